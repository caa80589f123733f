"""The one place that unpickles. Runs in a locked child only."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import pickle  # noqa: TID251  in a locked child, through an allow-list
import warnings
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from joblib.compressor import BinaryZlibFile
from joblib.numpy_pickle import NumpyUnpickler
from sklearn.utils.validation import check_array

from app.prediction.worker.allowlist import may_look_up, may_use

if TYPE_CHECKING:
    from collections.abc import Callable

_ADVICE = "Save only fitted scikit-learn objects, or ask the operator of this service about custom classes."
_LONGEST_MAGIC = 8
_COMPRESSED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
    (b"\x5d\x00\x00", lzma.LZMAFile),
    *((bytes((0x78, level)), lambda stream: BinaryZlibFile(stream, "rb")) for level in (0x01, 0x5E, 0x9C, 0xDA)),
)


class Trust(StrEnum):
    RESTRICTED = "restricted"  # only what the allow-list names
    FULL = "full"  # anything: the lock is then all that holds it


class LoadRefused(Exception):
    """The artifact was not loaded; the text says why, in words for whoever saved it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """`trained_with`: the scikit-learn version that the artifact names, where it differs from the one at hand."""

    object: Any
    trained_with: str | None


class _CheckArray(functools.partial):  # type: ignore[type-arg]
    """The one partial function that fitted estimators hold (histogram boosting with categories): of check_array."""

    def __new__(cls, func: Any, /, *args: Any, **keywords: Any) -> Self:
        if func is not check_array:
            raise LoadRefused(_refusal("functools", "partial"))
        return super().__new__(cls, func, *args, **keywords)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or not state or state[0] is not check_array:
            raise LoadRefused(_refusal("functools", "partial"))
        super().__setstate__(state)  # type: ignore[misc]  # typeshed leaves it out


class _RestrictedUnpickler(NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
    """joblib routes the nested pickles of object arrays through `find_class` too (from 1.6.0 on; a test holds it to that)."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("functools", "partial"):
            return _CheckArray
        if not may_look_up(module, name):
            raise LoadRefused(_refusal(module, name))
        try:
            found = super().find_class(module, name)
        except (AttributeError, ImportError):
            raise LoadRefused(
                f"The artifact refers to {module}.{name}, which this scikit-learn does not have: it was saved with another version."
            ) from None
        if not may_use(module, name, found):
            raise LoadRefused(_refusal(module, name))
        return found


def load(stream: io.BufferedReader, trust: Trust) -> Loaded:
    """The object that a joblib or pickle file holds, compressed or not; raises LoadRefused, and MemoryError where it does not fit."""
    import sklearn
    from sklearn.exceptions import InconsistentVersionWarning

    magic = stream.peek(_LONGEST_MAGIC)[:_LONGEST_MAGIC]
    if not magic:
        raise LoadRefused("The artifact is empty.")
    unpickler = (_RestrictedUnpickler if trust is Trust.RESTRICTED else NumpyUnpickler)(
        "", _plain(stream, magic), ensure_native_byte_order=True
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            found = unpickler.load()
        except (LoadRefused, MemoryError):
            raise
        except (ModuleNotFoundError, AttributeError) as error:
            raise LoadRefused(_not_here(error)) from None
        except Exception as error:  # noqa: BLE001  any byte sequence may be an artifact
            raise LoadRefused(_broken(magic, error)) from None
    versions = {str(w.message.original_sklearn_version) for w in caught if isinstance(w.message, InconsistentVersionWarning)}
    return Loaded(found, min(versions - {sklearn.__version__}, default=None))


def _plain(stream: io.BufferedReader, magic: bytes) -> Any:
    """The stream with its compression undone. A decompression bomb meets the child's memory limit."""
    for prefix, open_ in _COMPRESSED:
        if magic.startswith(prefix):
            return io.BufferedReader(open_(stream), 1 << 16)
    return stream


def _refusal(module: str, name: str) -> str:
    hint = ""
    if module == "__main__":
        hint = " It was defined in the notebook or script that saved the artifact."
    elif module == "functools" or (module, name) == ("builtins", "getattr"):
        hint = " It is a function handed to a transformer; of functions, only numpy's and scikit-learn's own are taken."
    elif module.startswith("scipy.stats"):
        hint = " If it belongs to a parameter search, save its best_estimator_."
    return (
        f"The artifact refers to {module}.{name}, which is not on the allow-list (scikit-learn estimators and numpy data).{hint} {_ADVICE}"
    )


def _not_here(error: Exception) -> str:
    if "__main__" in str(error):
        return (
            f"The artifact refers to something defined in the notebook or script that saved it ({error}): put it into an installed package."
        )
    return f"The artifact refers to something that is not installed here ({error})."


def _broken(magic: bytes, error: Exception) -> str:
    if magic.startswith(b"PK"):
        return "The artifact is a zip archive, not a joblib file: save the fitted estimator with joblib.dump."
    if isinstance(error, PermissionError) or (isinstance(error, RuntimeError) and "thread" in str(error)):
        return f"The artifact tried something that a model may not do here ({type(error).__name__}: {error})."
    if isinstance(error, EOFError | lzma.LZMAError | OSError | zlib.error) or "truncated" in str(error) or "EOF" in str(error):
        return f"The artifact is cut short or damaged ({type(error).__name__}: {error}): upload it again."
    if isinstance(error, pickle.UnpicklingError | ValueError | KeyError | IndexError | UnicodeError):
        return f"The artifact is no joblib file, or is damaged ({type(error).__name__}: {error})."
    return f"The artifact could not be loaded: {type(error).__name__}: {error}"
