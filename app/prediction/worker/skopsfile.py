"""skops files: a zip archive of one JSON tree and plain arrays. Runs in a locked child only.

What may be built from one is decided here, by the allow-list that holds for pickles too, and never by the file or by skops'
own list of what it trusts. Nothing here falls back to pickle: skops' `load` has none, and no other of its doors is used.
Source: skops.io persistence format; CVE-2025-54412, -54413 and -54886 are why it is 0.13 or newer and `load` alone.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import resource
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from app.prediction.worker.allowlist import may_look_up, may_use
from app.prediction.worker.verdicts import Loaded, LoadRefused, Trust, not_here, noting_versions, other_version, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"PK\x03\x04"
EMPTY_MAGIC = b"PK\x05\x06"
_SCHEMA = "schema.json"
_MOST_MEMBERS = 100_000
_LARGEST_SCHEMA_BYTES = 256 * 1024 * 1024
_LARGEST_UNPACKED_BYTES = 1024 * 1024 * 1024  # where the process has no limit of its own
_OLDEST_PROTOCOL = 1
_OLDEST = (0, 13)
_VERSION = re.compile(r'"[0-9]{1,3}\.[0-9A-Za-z.+-]{1,20}"')
_TOO_DEEP = "The skops file is nested too deeply."
# Kinds of nodes that hold data or name a class or a function. Bound methods and operator's callables are not among them.
_LOADERS = """
    BytearrayNode BytesNode CachedNode ConstructorFromReduceNode DTypeNode DefaultDictNode DictNode FunctionNode JsonNode ListNode
    LossNode MaskedArrayNode NdArrayNode ObjectNode PartialNode RandomGeneratorNode RandomStateNode SetNode SliceNode
    SparseMatrixNode TreeNode TupleNode TypeNode
""".split()  # noqa: SIM905  a list of so many is read better so
_NAMELESS = frozenset({"JsonNode", "CachedNode"})  # what they hold is JSON, or a node that stands elsewhere
_CHECK_ARRAY = ("FunctionNode", "sklearn.utils.validation", "check_array")


def load(stream: io.BufferedReader, trust: Trust) -> Loaded:
    """The object that a skops file holds; raises LoadRefused, and MemoryError where it does not fit."""
    skops = sys.modules.get("skops.io")
    if skops is None:
        raise LoadRefused("This service cannot read skops files: skops is not installed. Save the fitted estimator with joblib.dump.")
    _check_library()
    data = stream.read()
    schema = _schema(data)
    if trust is Trust.RESTRICTED:
        _check_nodes(schema)
    with noting_versions() as versions:
        try:
            trusted = skops.get_untrusted_types(data=data)
            if trust is Trust.RESTRICTED:
                for full_name in trusted:
                    module, _, name = full_name.rpartition(".")
                    if full_name != "functools.partial":  # each was judged above, by what it holds
                        _check_name(module, name, schema)
            found = skops.loads(data, trusted=trusted)
        except (LoadRefused, MemoryError):
            raise
        except (AttributeError, ModuleNotFoundError) as error:
            version = _trained_with(schema)
            why = f"The artifact refers to something that is not there in this service ({error}). {other_version(version)}"
            raise LoadRefused(why, version) from None
        except RecursionError:
            raise LoadRefused(_TOO_DEEP) from None
        except Exception as error:  # noqa: BLE001  any byte sequence may be an artifact
            version = _trained_with(schema)
            why = f"The skops file is damaged, or cannot be loaded here ({type(error).__name__}: {error}). {other_version(version)}"
            raise LoadRefused(why, version) from None
    return Loaded(found, versions.other())


def _check_library() -> None:
    version = str(sys.modules["skops"].__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise LoadRefused(f"This service cannot read skops files: it has skops {version}, and older than 0.13 is not safe.")


def _schema(data: bytes) -> dict[str, Any]:
    """The archive's tree; raises LoadRefused for an archive that is none of skops', or would unpack to more than there is room for."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist())
            schema = json.loads(archive.read(_SCHEMA))  # as skops does: two parsers might read two things
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LoadRefused(f"The skops file is damaged: its {_SCHEMA} is not JSON ({error}).") from None
    except RecursionError:
        raise LoadRefused(_TOO_DEEP) from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise LoadRefused(f"The artifact is a damaged zip archive ({type(error).__name__}: {error}): upload it again.") from None
    if not isinstance(schema, dict):
        raise LoadRefused(f"The skops file is damaged: its {_SCHEMA} is not an object.")
    protocol = schema.get("protocol")
    if type(protocol) is not int or protocol < _OLDEST_PROTOCOL:
        raise LoadRefused("The skops file was saved with an old skops, or is damaged: save it again with skops 0.13 or newer.")
    return schema


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if _SCHEMA not in names:
        raise LoadRefused("The artifact is a zip archive, but no skops file: save the fitted estimator with joblib.dump or skops.io.dump.")
    if len(set(names)) != len(names):
        raise LoadRefused("The skops file is damaged: two of its parts have one name.")
    if len(names) > _MOST_MEMBERS:
        raise LoadRefused(f"The skops file has {len(names):,} parts; at most {_MOST_MEMBERS:,} are read.")
    room = _room()
    unpacked = sum(member.file_size for member in members)
    if unpacked > room:
        raise LoadRefused(f"The skops file unpacks to {unpacked:,} bytes; a model here has room for {room:,}.")
    if next(m for m in members if m.filename == _SCHEMA).file_size > _LARGEST_SCHEMA_BYTES:
        raise LoadRefused(f"The skops file's {_SCHEMA} is larger than {_LARGEST_SCHEMA_BYTES >> 20} MiB.")


def _room() -> int:
    """Half of what this process may still map: arrays are read, then copied."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return _LARGEST_UNPACKED_BYTES if soft == resource.RLIM_INFINITY else soft // 2


def _walk(root: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree that skops could take for a node, wherever it stands."""
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if isinstance(found.get("__loader__"), str):
                yield found
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def _check_nodes(schema: dict[str, Any]) -> None:
    """Raises LoadRefused for the first node that may not be built."""
    known: dict[int, tuple[str, str, str]] = {}
    judged: set[tuple[str, str]] = set()
    for node in _walk(schema):
        loader, module, name = kind = _kind(node)
        if loader not in _LOADERS:
            raise LoadRefused(f"The skops file holds a {loader} ({module}.{name}), which is not on the allow-list of what is loaded here.")
        # skops takes the first node with an id for all that have it: two kinds under one would be judged as one and built as the other
        if (number := node.get("__id__")) is not None:
            if type(number) is not int:  # 1, 1.0 and true are one key to Python
                raise LoadRefused("The skops file is damaged: an id is no whole number.")
            if loader != "CachedNode" and known.setdefault(number, kind) != kind:
                raise LoadRefused("The skops file is damaged: one id stands for two different things.")
        if loader in _NAMELESS:
            continue
        if loader == "PartialNode":
            _check_partial(node)
        elif (module, name) not in judged:
            _check_name(module, name, schema)
            judged.add((module, name))


def _kind(node: dict[str, Any]) -> tuple[str, str, str]:
    return str(node["__loader__"]), str(node.get("__module__")), str(node.get("__class__"))


def _check_partial(node: dict[str, Any]) -> None:
    """Of partial functions, only those of check_array: fitted histogram boosting with categories holds one."""
    content = node.get("content")
    function = content.get("func") if isinstance(content, dict) else None
    if not isinstance(function, dict) or "__loader__" not in function or _kind(function) != _CHECK_ARRAY:
        raise LoadRefused(refusal("functools", "partial"))


def _check_name(module: str, name: str, schema: dict[str, Any]) -> None:
    if not may_look_up(module, name):
        raise LoadRefused(refusal(module, name))
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        version = _trained_with(schema)
        raise LoadRefused(not_here(module, name, version), version)
    if not may_use(module, name, found):
        raise LoadRefused(refusal(module, name))


def _trained_with(schema: dict[str, Any]) -> str | None:
    """The scikit-learn that the first estimator found names; None where none does."""
    waiting: list[Any] = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            named = found.get("_sklearn_version")
            if isinstance(named, dict) and isinstance(named.get("content"), str) and _VERSION.fullmatch(named["content"]):
                return str(named["content"][1:-1])
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
    return None
