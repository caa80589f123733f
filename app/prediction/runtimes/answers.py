"""What a child answers, checked before it is believed: shapes, ranges, finiteness. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.kernel.inspection import InspectionReport
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Scores

_LONGEST_TEXT = 4_000
_MOST_COLUMNS = 100_000


class Nonsense(Exception):
    """The child does not keep to the protocol."""


def answer_bytes(task: Task, rows: int, classes: int) -> int:
    """How long an answer's body may be."""
    return rows * (4 + 8 * classes) if task is Task.CLASSIFICATION else rows * 8


def read_scores(task: Task, rows: int, classes: int, header: dict[str, Any], body: memoryview) -> Scores:
    """The scores of `rows` rows; raises Nonsense."""
    if task is Task.REGRESSION:
        values = _floats(body, rows)
        return Scores(values=values)
    if header.get("probabilities") not in (True, False):
        raise Nonsense("probabilities is neither true nor false")
    if len(body) < rows * 4:
        raise Nonsense("too few labels")
    labels = np.frombuffer(body[: rows * 4], dtype=np.int32)
    if rows and not (labels.min() >= 0 and labels.max() < classes):
        raise Nonsense("a label that is no class")
    if not header["probabilities"]:
        if len(body) != rows * 4:
            raise Nonsense("more than labels")
        return Scores(labels=labels)
    return Scores(labels=labels, probabilities=_floats(body[rows * 4 :], rows * classes).reshape(rows, classes))


def _floats(body: memoryview, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    if len(body) != count * 8:
        raise Nonsense(f"{len(body)} bytes where {count * 8} belong")
    values = np.frombuffer(body, dtype=np.float64)
    if not np.isfinite(values).all():
        raise Nonsense("a number that is not finite")
    return values


def part(whole: Scores, start: int, stop: int) -> Scores:
    """Rows `start` to `stop`."""
    return Scores(
        labels=None if whole.labels is None else whole.labels[start:stop],
        probabilities=None if whole.probabilities is None else whole.probabilities[start:stop],
        values=None if whole.values is None else whole.values[start:stop],
    )


def error_text(header: dict[str, Any]) -> str:
    """What the estimator said, bounded and printable."""
    text = header.get("error")
    return _text(text) if type(text) is str else "The model failed."


def read_report(answer: dict[str, Any]) -> InspectionReport:
    """The report that an inspection answered with; a failed one where it is out of shape."""
    report = answer.get("report")
    try:
        if type(report) is not dict:
            raise Nonsense("no report")
        if report.get("failure") is not None:
            return InspectionReport.failed(
                _shown(report["failure"]), _shown(report.get("estimator", "")), _environment(report.get("environment", {}))
            )
        classes = report["classes"]
        return InspectionReport(
            failure=None,
            signature=_signature(report["signature"]),
            classes=None if classes is None else tuple(_string(label) for label in _list(classes)),
            estimator=_shown(report["estimator"]),
            environment=_environment(report["environment"]),
            warnings=tuple(_shown(text) for text in _list(report["warnings"])[:20]),
        )
    except (Nonsense, KeyError, TypeError, ValueError, AttributeError):
        return InspectionReport.failed("The artifact interfered with its inspection: the report is not in order.")


def _environment(data: Any) -> dict[str, str]:
    if type(data) is not dict:
        raise Nonsense("no environment")
    return {_shown(key): _shown(value) for key, value in list(data.items())[:20]}


def _signature(data: Any) -> Signature:
    columns = tuple(_column(column) for column in _list(data["columns"]))
    if not columns:
        raise Nonsense("no columns")
    none_columns = tuple(_string(name) for name in _list(data["noneColumns"]))
    if not {column.name for column in columns}.issuperset(none_columns):
        raise Nonsense("a column that is none of the columns")
    return Signature(columns, InputKind(data["kind"]), none_columns)


def _column(data: Any) -> Column:
    categories = data["categories"]
    if type(data["required"]) is not bool:
        raise Nonsense("required is no boolean")
    for bound in (data["minimum"], data["maximum"]):
        if bound is not None and (type(bound) not in (int, float) or not np.isfinite(bound)):
            raise Nonsense("a bound that is no number")
    return Column(
        _string(data["name"]),
        ColumnType(data["type"]),
        data["required"],
        data["minimum"],
        data["maximum"],
        None if categories is None else tuple(_string(value) for value in _list(categories)),
    )


def _list(value: Any) -> list[Any]:
    if type(value) is not list or len(value) > _MOST_COLUMNS:
        raise Nonsense("no list, or one too long")
    return value


def _string(value: Any) -> str:
    if type(value) is not str:
        raise Nonsense("no text")
    return value[:_LONGEST_TEXT]


def _shown(value: Any) -> str:
    return _text(_string(value))


def _text(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_TEXT])
