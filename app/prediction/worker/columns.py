"""Reads what a fitted estimator knows of its input columns: names, categories, and how it takes a missing value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder

from app.kernel.signature import ColumnType, InputKind
from app.prediction.worker.calling import trained_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VECTORISERS = (CountVectorizer, HashingVectorizer)
_ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)
_ON_THE_SAME_INPUT = ("best_estimator_", "estimator_", "regressor_", "estimator", "regressor")
_SEVERAL_ON_THE_SAME_INPUT = ("estimators_", "calibrated_classifiers_")
_LARGEST_LOOK = 3  # of many estimators on the same input the first few tell all


@dataclass(slots=True)
class Hint:
    """What the encoders say of one column. `categories`: only where others are refused. `example`: a value that is taken."""

    type: ColumnType | None = None
    categories: tuple[str, ...] | None = None
    missing_is_none: bool = False
    example: Any = None


@dataclass(frozen=True, slots=True)
class Reading:
    """`names`: of the frame it was fitted on. `width`: None where the estimator does not say. `hints`: by position."""

    kind: InputKind
    names: tuple[str, ...] | None
    width: int | None
    hints: dict[int, Hint]


def read_columns(estimator: Any) -> Reading:
    """All that the estimator itself tells of its input."""
    names = _first(trained_names(part) for part in same_input(estimator))
    hints: dict[int, Hint] = {}
    if _takes_texts(estimator):
        return Reading(InputKind.TEXT, None, 1, {0: Hint(type=ColumnType.STRING, example="text")})
    width = _first(getattr(part, "n_features_in_", None) for part in same_input(estimator))
    if names is not None:
        width = len(names)
    if width is not None:
        _note(estimator, list(range(int(width))), hints)
    kind = InputKind.ARRAY if names is None else InputKind.FRAME
    return Reading(kind, None if names is None else tuple(map(str, names)), None if width is None else int(width), hints)


def _first(values: Iterator[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def same_input(estimator: Any, depth: int = 0) -> Iterator[Any]:
    """The estimator, and those within that are given the very same input."""
    if not _is_estimator(estimator):
        return
    yield estimator
    if depth > 8:
        return
    for held in receivers(estimator):
        yield from same_input(held, depth + 1)


def _is_estimator(found: Any) -> bool:
    """CalibratedClassifierCV holds its parts in a class that is no BaseEstimator."""
    return isinstance(found, BaseEstimator) or type(found).__module__ == "sklearn.calibration"


def receivers(estimator: Any) -> list[Any]:
    if isinstance(estimator, Pipeline):
        return [step for _, step in estimator.steps if isinstance(step, BaseEstimator)][:1]
    if isinstance(estimator, FeatureUnion):
        return [transformer for _, transformer in estimator.transformer_list]
    if isinstance(estimator, ColumnTransformer):
        return []
    one = [vars(estimator).get(name) for name in _ON_THE_SAME_INPUT]
    several = [_listed(vars(estimator).get(name))[:_LARGEST_LOOK] for name in _SEVERAL_ON_THE_SAME_INPUT]
    return [held for held in [*one, *(h for group in several for h in group)] if held is not None]


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return list(value.flat) if isinstance(value, np.ndarray) and value.dtype == object else []


def _takes_texts(estimator: Any, depth: int = 0) -> bool:
    if isinstance(estimator, _VECTORISERS):
        return True
    if depth > 8:
        return False
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            if isinstance(step, FunctionTransformer):
                continue  # cleans texts, or says nothing
            if isinstance(step, BaseEstimator):
                return _takes_texts(step, depth + 1)
        return False
    return _is_estimator(estimator) and any(_takes_texts(held, depth + 1) for held in receivers(estimator))


def _note(estimator: Any, at: list[int], hints: dict[int, Hint], depth: int = 0) -> None:
    """Walks down while the columns `at` (positions in the model's input) stay recognisable, and notes what each part says."""
    if depth > 12 or not _is_estimator(estimator):
        return  # "drop" and "passthrough" are texts
    if isinstance(estimator, _ENCODERS):
        _note_encoder(estimator, at, hints)
    elif isinstance(estimator, _VECTORISERS):
        hints.setdefault(at[0], Hint()).type = ColumnType.STRING
        hints[at[0]].example = "text"
    elif isinstance(estimator, SimpleImputer):
        if estimator.missing_values is None:
            for i in at:
                hints.setdefault(i, Hint()).missing_is_none = True
    elif isinstance(estimator, ColumnTransformer):
        named = estimator.named_transformers_
        for name, positions in estimator._transformer_to_input_indices.items():  # noqa: SLF001  nothing public says it
            if name in named and positions:
                _note(named[name], [at[i] for i in positions if i < len(at)], hints, depth + 1)
    elif isinstance(estimator, Pipeline):
        _note_steps(estimator, at, hints, depth)
    else:
        own = getattr(estimator, "_preprocessor", None)  # histogram boosting encodes its categories itself
        for held in [*receivers(estimator), *([own] if isinstance(own, ColumnTransformer) else [])]:
            if getattr(held, "n_features_in_", len(at)) == len(at):
                _note(held, at, hints, depth + 1)


def _note_steps(pipeline: Pipeline, at: list[int], hints: dict[int, Hint], depth: int) -> None:
    """Steps one after another, as long as each is given as many columns as the pipeline."""
    for _, step in pipeline.steps:
        if not isinstance(step, BaseEstimator):
            continue
        if getattr(step, "n_features_in_", len(at)) != len(at):
            return
        _note(step, at, hints, depth + 1)
        if isinstance(step, (ColumnTransformer, FeatureUnion, *_ENCODERS, *_VECTORISERS)):
            return


def _note_encoder(encoder: Any, at: list[int], hints: dict[int, Hint]) -> None:
    refuses = getattr(encoder, "handle_unknown", None) == "error"
    for i, categories in zip(at, getattr(encoder, "categories_", ()), strict=False):
        values = np.asarray(categories).tolist()
        known = [value for value in values if value is not None and value == value]  # noqa: PLR0124  NaN differs from itself
        hint = hints.setdefault(i, Hint())
        hint.missing_is_none = hint.missing_is_none or None in values
        hint.type = _type_of(known) or hint.type
        hint.example = known[0] if known else hint.example
        if refuses and hint.type is ColumnType.STRING:
            own = tuple(map(str, known))
            hint.categories = own if hint.categories is None else tuple(c for c in hint.categories if c in own)


def _type_of(known: Sequence[Any]) -> ColumnType | None:
    kinds = set(map(type, known))
    if kinds == {str}:
        return ColumnType.STRING
    if kinds == {bool}:
        return ColumnType.BOOLEAN
    if kinds == {int}:
        return ColumnType.INTEGER
    return ColumnType.NUMBER if kinds else None
