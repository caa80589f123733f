"""What comes of loading an artifact: an object, or a refusal in words for whoever saved it. Shared by the two formats of uploads."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sklearn
from sklearn.exceptions import InconsistentVersionWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADVICE = "Save only fitted scikit-learn objects, or ask the operator of this service about custom classes."


class Trust(StrEnum):
    RESTRICTED = "restricted"  # only what the allow-list names
    FULL = "full"  # anything: the lock is then all that holds it


class LoadRefused(Exception):
    """The artifact was not loaded; the text says why, in words for whoever saved it. `trained_with`: as `Loaded.trained_with`."""

    def __init__(self, why: str, trained_with: str | None = None) -> None:
        super().__init__(why)
        self.trained_with = trained_with


@dataclass(frozen=True, slots=True)
class Loaded:
    """`trained_with`: the scikit-learn version that the artifact names, where it differs from the one at hand."""

    object: Any
    trained_with: str | None


@dataclass(slots=True)
class Versions:
    """The scikit-learn versions that estimators name while they are restored."""

    named: set[str] = field(default_factory=set)

    def other(self) -> str | None:
        """One that is not the one at hand; None where there is none."""
        return min(self.named - {sklearn.__version__}, default=None)


@contextmanager
def noting_versions() -> Iterator[Versions]:
    """Fills what it gives at its end, also where loading fails half-way. Warnings go nowhere meanwhile."""
    versions = Versions()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            yield versions
        finally:
            versions.named.update(
                str(w.message.original_sklearn_version) for w in caught if isinstance(w.message, InconsistentVersionWarning)
            )


def refusal(module: str, name: str) -> str:
    """Why an artifact may not refer to this global."""
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


def not_here(module: str, name: str, trained_with: str | None) -> str:
    """Why a global that might be taken cannot be: this installation has none of that name."""
    return f"The artifact refers to {module}.{name}, which is not there in this service. {other_version(trained_with)}"


def other_version(trained_with: str | None) -> str:
    """What to do about an artifact that this scikit-learn cannot load or call."""
    here = sklearn.__version__
    if trained_with is None or trained_with == here:
        return f"This service runs scikit-learn {here}; an artifact of another version has to be trained again, and saved, with {here}."
    return (
        f"It was trained with scikit-learn {trained_with}; this service runs {here}. Train it again with {here}, or load it where "
        f"{trained_with} is installed, check it, and build it anew with {here}."
    )
