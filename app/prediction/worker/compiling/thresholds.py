"""Where a fitted estimator's answer may jump: its thresholds, as values of its input columns. Runs in a locked child only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import Binarizer, KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, TargetEncoder

from app.prediction.worker.columns import receivers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    # (column of the model's input, what turns values of the feature into values of that column); None: no single column
    Origin = tuple[int, Callable[[NDArray[np.float64]], NDArray[np.float64]]] | None
    Own = Callable[[Any], Iterator[tuple[int, Any]]]

_DEEPEST = 8
_MOST_TREES = 200
_MOST_A_COLUMN = 2_000
_NEAR_A_ROOT = 3  # levels


def thresholds(estimator: Any, width: int) -> dict[int, NDArray[np.float64]]:
    """By column of the model's input: finite values on which something turns. What cannot be traced is left out.

    Where there are trees, every second value is one near a root: a row comes by there, and by few of the branches farther down.
    """
    every = _traced(estimator, width, _jumps)
    first = _traced(estimator, width, lambda held: _of_trees(held, _NEAR_A_ROOT))
    return {
        column: np.append(values, np.resize(first[column], len(values))) if column in first else values for column, values in every.items()
    }


def _traced(estimator: Any, width: int, own: Own) -> dict[int, NDArray[np.float64]]:
    found: dict[int, list[NDArray[np.float64]]] = {}
    origins: list[Origin] = [(i, _same) for i in range(width)]
    for (column, back), values in _walk(estimator, origins, own):
        with contextlib.suppress(Exception):  # an inverse that is not defined there
            traced = np.asarray(back(_few(values)), dtype=np.float64)
            found.setdefault(column, []).append(traced)
    sorted_values = {column: np.unique(np.concatenate(parts)) for column, parts in found.items()}
    finite = {column: values[np.isfinite(values)] for column, values in sorted_values.items()}
    return {column: values for column, values in finite.items() if len(values)}


def known_texts(estimator: Any, width: int) -> dict[int, tuple[str, ...]]:
    """By column of the model's input: the categories that its encoders know."""
    found: dict[int, dict[str, None]] = {}
    for (column, _), texts in _walk(estimator, [(i, _same) for i in range(width)], _categories):
        found.setdefault(column, {}).update(dict.fromkeys(texts))
    return {column: tuple(texts)[:_MOST_A_COLUMN] for column, texts in found.items()}


def _same(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values


def _walk(estimator: Any, origins: list[Origin], own: Own, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(origin, what `own` says of the feature) for each estimator within whose features can be traced."""
    if depth > _DEEPEST:
        return
    if isinstance(estimator, Pipeline):
        current = origins
        for _, step in estimator.steps:
            if isinstance(step, BaseEstimator):
                yield from _walk(step, current, own, depth + 1)
                current = _through(step, current)
        return
    if isinstance(estimator, ColumnTransformer):
        for part, positions in _parts(estimator):
            yield from _walk(part, [origins[i] for i in positions], own, depth + 1)
        return
    if isinstance(estimator, FeatureUnion):
        for _, part in estimator.transformer_list:
            yield from _walk(part, origins, own, depth + 1)
        return
    for feature, found in own(estimator):
        origin = origins[feature] if 0 <= feature < len(origins) else None
        if origin is not None:
            yield origin, found
    for held in receivers(estimator)[:_MOST_TREES]:
        yield from _walk(held, origins, own, depth + 1)


def _categories(estimator: Any) -> Iterator[tuple[int, list[str]]]:
    if isinstance(estimator, OneHotEncoder | OrdinalEncoder | TargetEncoder):
        for i, categories in enumerate(estimator.categories_):
            yield i, [value for value in categories if isinstance(value, str)]


def _few(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.unique(values)
    return values if len(values) <= _MOST_A_COLUMN else values[np.linspace(0, len(values) - 1, _MOST_A_COLUMN).astype(int)]


def _jumps(estimator: Any) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(feature, values) of the estimator itself."""
    yield from _of_trees(estimator)
    if isinstance(estimator, KBinsDiscretizer):
        yield from enumerate(np.asarray(edges, dtype=np.float64) for edges in estimator.bin_edges_)
    if isinstance(estimator, Binarizer):
        yield from ((i, np.array([float(estimator.threshold)])) for i in range(estimator.n_features_in_))
    if isinstance(estimator, OneHotEncoder | OrdinalEncoder):
        for i, categories in enumerate(estimator.categories_):
            with contextlib.suppress(TypeError, ValueError):  # texts
                yield i, np.asarray(categories, dtype=np.float64)


def _of_trees(estimator: Any, levels: int | None = None) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(feature, thresholds) of the estimator's own trees; of the uppermost levels alone where a number of them is given."""
    features: list[NDArray[Any]] = []
    values: list[NDArray[Any]] = []
    for left, right, feature, threshold in _branching(estimator):
        at = np.flatnonzero(left > 0) if levels is None else _uppermost(left, right, levels)
        features.append(feature[at])
        values.append(threshold[at])
    if features:
        all_features, all_values = np.concatenate(features), np.concatenate(values)
        for one in np.unique(all_features):
            yield int(one), all_values[all_features == one]


def _branching(estimator: Any) -> Iterator[tuple[NDArray[Any], ...]]:
    """(left, right, feature, threshold) by node, of each tree; a node that does not branch has no left one, which no root is."""
    for tree in _trees(estimator):
        yield tree.children_left, tree.children_right, tree.feature, tree.threshold
    for stage in getattr(estimator, "_predictors", ())[:_MOST_TREES]:
        for nodes in (predictor.nodes for predictor in stage):
            left = np.where(nodes["is_leaf"] == 0, nodes["left"].astype(np.int64), 0)
            yield left, nodes["right"].astype(np.int64), nodes["feature_idx"].astype(np.int64), nodes["num_threshold"]


def _uppermost(left: NDArray[Any], right: NDArray[Any], levels: int) -> NDArray[np.intp]:
    level = np.flatnonzero(left[:1] > 0)
    found = [level]
    for _ in range(levels - 1):
        below = np.concatenate([left[level], right[level]])
        level = below[left[below] > 0]
        found.append(level)
    return np.concatenate(found)


def _trees(estimator: Any) -> Iterator[Any]:
    if hasattr(estimator, "tree_"):
        yield estimator.tree_
    parts = getattr(estimator, "estimators_", None)
    if isinstance(parts, list | np.ndarray):
        flat = parts.ravel().tolist() if isinstance(parts, np.ndarray) else parts
        yield from (held.tree_ for held in flat[:_MOST_TREES] if hasattr(held, "tree_"))


def _parts(transformer: ColumnTransformer) -> Iterator[tuple[Any, list[int]]]:
    for name, part, _ in transformer.transformers_:
        if isinstance(part, BaseEstimator):
            yield part, list(transformer._transformer_to_input_indices[name])  # noqa: SLF001  nothing public says it


def _through(step: Any, origins: list[Origin]) -> list[Origin]:
    """The origins of the features that a transformer puts out."""
    if isinstance(step, Pipeline):
        for _, inner in step.steps:
            if isinstance(inner, BaseEstimator):
                origins = _through(inner, origins)
        return origins
    if isinstance(step, ColumnTransformer):
        return _through_columns(step, origins)
    if isinstance(step, SimpleImputer) and not step.add_indicator:
        kept = [i for i, value in enumerate(step.statistics_) if value == value]  # noqa: PLR0124  NaN: a column that is dropped
        return [origins[i] for i in kept] if len(origins) == len(step.statistics_) else []
    if hasattr(step, "get_support"):
        return [origins[i] for i in np.flatnonzero(step.get_support()) if i < len(origins)]
    if hasattr(step, "inverse_transform") and getattr(step, "n_features_in_", None) == len(origins):
        return [None if origin is None else (origin[0], _inverse(step, i, origin[1])) for i, origin in enumerate(origins)]
    return []


def _through_columns(step: ColumnTransformer, origins: list[Origin]) -> list[Origin]:
    width = max((part.stop for part in step.output_indices_.values()), default=0)
    found: list[Origin] = [None] * width
    for name, part, _ in step.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        given = [origins[i] for i in step._transformer_to_input_indices[name]]  # noqa: SLF001
        made = given if isinstance(part, str) else _through(part, given)
        place = step.output_indices_[name]
        if len(made) == place.stop - place.start:
            found[place] = made
    return found


def _inverse(
    step: Any, column: int, before: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def inverse(values: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = np.zeros((len(values), step.n_features_in_))
        rows[:, column] = values
        return before(np.asarray(step.inverse_transform(rows))[:, column])

    return inverse
