"""Calls a fitted estimator as the notebook that trained it would, so that the answers are the notebook's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from app.kernel.signature import ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch, Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CallFailed(Exception):
    """The estimator does not answer, or not with what its task promises; the text says what it said."""


class Caller:
    """`caller(batch)` answers with Scores; raises CallFailed, and whatever else the estimator raises."""

    def __init__(self, estimator: Any, signature: Signature, task: Task, classes: tuple[str, ...]) -> None:
        self._input = InputBuilder(estimator, signature)
        self._classifies = task is Task.CLASSIFICATION
        if self._classifies:
            own = class_labels(estimator)
            if tuple(map(str, own)) != tuple(classes):
                raise CallFailed("The artifact's classes are not those of its version.")
            self._index = {label: i for i, label in enumerate(own)}
        self._has_probabilities = self._classifies and hasattr(estimator, "predict_proba")
        self._transform: Any
        self._last: Any
        self._transform, self._last = _halves(estimator) if self._has_probabilities else (None, estimator)

    def __call__(self, batch: Batch) -> Scores:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = self._input(batch)
            if self._transform is not None:
                given = self._transform(given)
            answered = self._last.predict(given)
            if not self._classifies:
                return Scores(values=_values(answered, batch.rows))
            labels = self._labels(answered, batch.rows)
            return Scores(labels=labels, probabilities=self._probabilities(given, batch.rows) if self._has_probabilities else None)

    def _labels(self, answered: Any, rows: int) -> NDArray[np.int32]:
        """As `predict` says: an argmax over the probabilities would differ on ties, thresholds and calibrated estimators."""
        flat = _one_a_row(np.asarray(answered), rows)
        try:
            return np.fromiter((self._index[label] for label in flat.tolist()), dtype=np.int32, count=rows)
        except (KeyError, TypeError):
            raise CallFailed("The estimator predicted a class that is not among its classes_.") from None

    def _probabilities(self, given: Any, rows: int) -> NDArray[np.float64]:
        found = np.ascontiguousarray(self._last.predict_proba(given), dtype=np.float64)
        if found.shape != (rows, len(self._index)):
            raise CallFailed(f"predict_proba answered with shape {found.shape}, expected ({rows}, {len(self._index)}).")
        _finite(found, "predict_proba")
        return found


def class_labels(estimator: Any) -> list[Any]:
    """The estimator's classes as plain Python values, in its order; raises CallFailed where they are not one list of distinct classes."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise CallFailed("The estimator has no classes_: it is not a fitted classifier.")
    if isinstance(classes, list | tuple) and any(isinstance(part, np.ndarray | list) for part in classes):
        raise CallFailed("The estimator is multi-output (it has several sets of classes); train one model for each output.")
    labels = np.asarray(classes).tolist()
    if not isinstance(labels, list) or not labels or len({str(label) for label in labels}) != len(labels):
        raise CallFailed("The estimator's classes_ are not a list of distinct classes.")
    return labels


def _halves(estimator: Any) -> tuple[Any, Any]:
    """(the steps before the last, as one function; the last): predict and predict_proba then share one pass through the steps.

    This is what Pipeline's own methods do one after the other, so it is for the class itself and no subclass. None: no such steps.
    """
    if type(estimator) is not Pipeline or len(estimator.steps) < 2:
        return None, estimator
    return estimator[:-1].transform, estimator[-1]


class InputBuilder:
    """`builder(batch)` is what the estimator was trained on: a data frame, an array, or a list of texts."""

    def __init__(self, estimator: Any, signature: Signature) -> None:
        self._kind = signature.kind
        self._columns = signature.columns
        self._names = [column.name for column in signature.columns]
        self._none = frozenset(signature.none_columns)
        self._plain = all(column.type is ColumnType.NUMBER for column in signature.columns)
        self._has_texts = any(column.type is ColumnType.STRING for column in signature.columns)
        trained = [str(name) for name in trained_names(estimator) or ()]
        self._order = trained if trained != self._names and set(trained) == set(self._names) else None

    def __call__(self, batch: Batch) -> Any:
        if self._kind is InputKind.TEXT:
            return list(batch.texts[0])
        if self._kind is InputKind.FRAME:
            return self._frame(batch)
        return self._object_array(batch) if self._has_texts else batch.numbers

    def _frame(self, batch: Batch) -> pd.DataFrame:
        if self._plain:
            frame = pd.DataFrame(batch.numbers, columns=self._names, copy=False)
        else:
            frame = pd.DataFrame({column.name: values for column, values in self._each(batch)}, columns=self._names)
        return frame if self._order is None else frame[self._order]

    def _each(self, batch: Batch) -> list[tuple[Any, Any]]:
        texts, number, built = iter(batch.texts), 0, []
        for column in self._columns:
            if column.type is ColumnType.STRING:
                built.append((column, self._text_series(column.name, next(texts))))
            else:
                built.append((column, _number_series(column.type, batch.numbers[:, number])))
                number += 1
        return built

    def _text_series(self, name: str, values: tuple[str | None, ...]) -> Any:
        if name in self._none:
            return pd.Series(list(values), dtype=object)
        return pd.Series(list(values), dtype="str")  # pandas' own text type: a missing value is NaN

    def _object_array(self, batch: Batch) -> NDArray[np.object_]:
        array = np.empty((batch.rows, len(self._columns)), dtype=object)
        texts, number = iter(batch.texts), 0
        for i, column in enumerate(self._columns):
            if column.type is ColumnType.STRING:
                missing = None if column.name in self._none else np.nan
                array[:, i] = [missing if value is None else value for value in next(texts)]
            else:
                array[:, i] = _python_values(column.type, batch.numbers[:, number])
                number += 1
        return array


def trained_names(estimator: Any) -> list[Any] | None:
    """The column names of the frame that the estimator was fitted on; None where it was fitted on something else."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else list(names)


def _number_series(kind: ColumnType, values: NDArray[np.float64]) -> Any:
    missing = np.isnan(values)
    if kind is ColumnType.INTEGER:
        return values if missing.any() else values.astype(np.int64)
    if kind is ColumnType.BOOLEAN:
        return pd.Series(_python_values(kind, values), dtype=object) if missing.any() else values.astype(bool)
    return values


def _python_values(kind: ColumnType, values: NDArray[np.float64]) -> list[Any]:
    plain: list[Any] = values.tolist()
    if kind is ColumnType.NUMBER:
        return plain
    convert = bool if kind is ColumnType.BOOLEAN else int
    return [value if value != value else convert(value) for value in plain]  # noqa: PLR0124  NaN is the one that differs from itself


def _values(answered: Any, rows: int) -> NDArray[np.float64]:
    values = np.ascontiguousarray(_one_a_row(np.asarray(answered), rows), dtype=np.float64)
    _finite(values, "predict")
    return values


def _one_a_row(answered: NDArray[Any], rows: int) -> NDArray[Any]:
    if answered.ndim == 2 and answered.shape[1] > 1:
        raise CallFailed(
            f"The estimator is multi-output or multi-label ({answered.shape[1]} answers a row); train one model for each output."
        )
    if answered.size != rows or answered.ndim not in {1, 2}:
        raise CallFailed(f"predict answered with shape {answered.shape} for {rows} rows.")
    return answered.reshape(rows)


def _finite(values: NDArray[np.float64], method: str) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        raise CallFailed(f"{method} answered NaN or an infinity.")
