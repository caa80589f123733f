"""Walks a fitted estimator: to make it work on one thread, and to name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_CONTAINER = 100_000
_LONGEST_NAME = 200


def settle(estimator: Any) -> None:
    """Sets n_jobs to 1 on every nested estimator, fitted parts too: a child may start no thread, and a core is shared by many models."""
    for nested in nested_estimators(estimator):
        for name in ("n_jobs", "n_threads"):
            if nested.__dict__.get(name) not in (None, 1):
                nested.__dict__[name] = 1


def nested_estimators(root: Any) -> Iterator[BaseEstimator]:
    """The estimator and all that it holds, each once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, BaseEstimator):
            yield found
            waiting.extend(vars(found).values())
        else:
            waiting.extend(_held_by(found))


def _held_by(found: Any) -> list[Any]:
    if isinstance(found, dict) and len(found) <= _LARGEST_CONTAINER:
        return [value for value in found.values() if not isinstance(value, str | int | float)]
    if isinstance(found, list | tuple) and len(found) <= _LARGEST_CONTAINER:
        return list(found)
    if isinstance(found, np.ndarray) and found.dtype == object and found.size <= _LARGEST_CONTAINER:
        return [value for value in found.flat if not isinstance(value, str | int | float)]
    if type(found).__module__ == "sklearn.calibration":
        return list(vars(found).values())  # _CalibratedClassifier is no BaseEstimator
    return []


def describe(estimator: Any) -> str:
    """What a person would call it: "Pipeline(StandardScaler, LogisticRegression)"."""
    name = _describe(estimator, 0)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _describe(estimator: Any, depth: int) -> str:
    name = type(estimator).__name__
    if depth > 3:
        return name
    parts: list[Any] = []
    for attribute, position in (("steps", 1), ("transformers", 1), ("transformer_list", 1), ("estimators", 1)):
        held = getattr(estimator, attribute, None)
        if isinstance(held, list) and all(isinstance(part, tuple) and len(part) > position for part in held):
            parts = [part[position] for part in held]
            break
    else:
        inner = [getattr(estimator, attribute, None) for attribute in ("best_estimator_", "estimator", "regressor")]
        # Not by truth: an ensemble that is not fitted, as a calibration keeps its own, has no length to ask for.
        parts = [part for part in inner if isinstance(part, BaseEstimator)][:1]
    shown = [_describe(part, depth + 1) for part in parts if isinstance(part, BaseEstimator)]
    return f"{name}({', '.join(shown)})" if shown else name
