"""The one place that unpickles, and the door to both formats of uploads. Runs in a locked child only."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import pickle  # noqa: TID251  in a locked child, through an allow-list
import zlib
from typing import TYPE_CHECKING, Any, Self

import sklearn
from joblib.compressor import BinaryZlibFile
from joblib.numpy_pickle import NumpyUnpickler
from sklearn.utils.validation import check_array

from app.prediction.worker import skopsfile
from app.prediction.worker.allowlist import may_look_up, may_use
from app.prediction.worker.verdicts import Loaded, LoadRefused, Trust, not_here, noting_versions, other_version, refusal
from app.prediction.worker.versionwatch import VersionWatch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoadRefused", "Loaded", "Trust", "load"]
_LONGEST_MAGIC = 8
_COMPRESSED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
    (b"\x5d\x00\x00", lzma.LZMAFile),
    *((bytes((0x78, level)), lambda stream: BinaryZlibFile(stream, "rb")) for level in (0x01, 0x5E, 0x9C, 0xDA)),
)


class _Missing(Exception):
    """A global that might be taken, and is not there."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module, name)
        self.module = module
        self.name = name


class _CheckArray(functools.partial):  # type: ignore[type-arg]
    """The one partial function that fitted estimators hold (histogram boosting with categories): of check_array."""

    def __new__(cls, func: Any, /, *args: Any, **keywords: Any) -> Self:
        if func is not check_array:
            raise LoadRefused(refusal("functools", "partial"))
        return super().__new__(cls, func, *args, **keywords)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or not state or state[0] is not check_array:
            raise LoadRefused(refusal("functools", "partial"))
        super().__setstate__(state)  # type: ignore[misc]  # typeshed leaves it out


class _RestrictedUnpickler(NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
    """joblib routes the nested pickles of object arrays through `find_class` too (from 1.6.0 on; a test holds it to that)."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("functools", "partial"):
            return _CheckArray
        if not may_look_up(module, name):
            raise LoadRefused(refusal(module, name))
        try:
            found = super().find_class(module, name)
        except (AttributeError, ImportError):
            raise _Missing(module, name) from None
        if not may_use(module, name, found):
            raise LoadRefused(refusal(module, name))
        return found


def load(stream: io.BufferedReader, trust: Trust) -> Loaded:
    """The object that a joblib, pickle or skops file holds, compressed or not; raises LoadRefused, and MemoryError where it does not fit.

    The first bytes say which it is, never a name.
    """
    magic = stream.peek(_LONGEST_MAGIC)[:_LONGEST_MAGIC]
    if not magic:
        raise LoadRefused("The artifact is empty.")
    if magic.startswith((skopsfile.MAGIC, skopsfile.EMPTY_MAGIC)):
        return skopsfile.load(stream, trust)
    return _load_pickle(stream, magic, trust)


def _load_pickle(stream: io.BufferedReader, magic: bytes, trust: Trust) -> Loaded:
    watched = VersionWatch(_plain(stream, magic))
    source = io.BufferedReader(watched, 1 << 16)
    unpickler = (_RestrictedUnpickler if trust is Trust.RESTRICTED else NumpyUnpickler)("", source, ensure_native_byte_order=True)
    with noting_versions() as versions:
        try:
            found = unpickler.load()
        except MemoryError:
            raise
        except _Missing as missing:
            raise LoadRefused(not_here(missing.module, missing.name, watched.version()), watched.version()) from None
        except LoadRefused:
            raise
        except (ModuleNotFoundError, AttributeError) as error:
            raise LoadRefused(_not_here(error, watched.version()), watched.version()) from None
        except Exception as error:  # noqa: BLE001  any byte sequence may be an artifact
            version = watched.version()
            other = "" if version in (None, sklearn.__version__) else f" {other_version(version)}"
            raise LoadRefused(_broken(error) + other, version) from None
    return Loaded(found, versions.other())


def _plain(stream: io.BufferedReader, magic: bytes) -> Any:
    """The stream with its compression undone. A decompression bomb meets the child's memory limit."""
    for prefix, open_ in _COMPRESSED:
        if magic.startswith(prefix):
            return io.BufferedReader(open_(stream), 1 << 16)
    return stream


def _not_here(error: Exception, trained_with: str | None) -> str:
    if "__main__" in str(error):
        return (
            f"The artifact refers to something defined in the notebook or script that saved it ({error}): put it into an installed package."
        )
    return f"The artifact refers to something that is not there in this service ({error}). {other_version(trained_with)}"


def _broken(error: Exception) -> str:
    if isinstance(error, PermissionError) or (isinstance(error, RuntimeError) and "thread" in str(error)):
        return f"The artifact tried something that a model may not do here ({type(error).__name__}: {error})."
    if isinstance(error, EOFError | lzma.LZMAError | OSError | zlib.error) or "truncated" in str(error) or "EOF" in str(error):
        return f"The artifact is cut short or damaged ({type(error).__name__}: {error}): upload it again."
    if isinstance(error, pickle.UnpicklingError | ValueError | KeyError | IndexError | UnicodeError):
        return f"The artifact is no joblib file, or is damaged ({type(error).__name__}: {error})."
    return f"The artifact could not be loaded: {type(error).__name__}: {error}"
