"""What a child answers is hostile until it is proved to be in order."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.inspection import InspectionReport
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.prediction.runtimes.answers import Nonsense, answer_bytes, error_text, read_report, read_scores

pytestmark = pytest.mark.unit
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _body(labels: list[int], probabilities: list[list[float]] | None = None) -> memoryview:
    data = np.array(labels, dtype=np.int32).tobytes()
    return memoryview(data if probabilities is None else data + np.array(probabilities, dtype=np.float64).tobytes())


def test_labels_and_probabilities_come_out() -> None:
    scores = read_scores(Task.CLASSIFICATION, 2, 2, {"probabilities": True}, _body([1, 0], [[0.2, 0.8], [1.0, 0.0]]))
    assert scores.labels is not None
    assert scores.probabilities is not None
    assert scores.labels.tolist() == [1, 0]
    assert scores.probabilities.tolist() == [[0.2, 0.8], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"probabilities": False}, _body([2])),
        ({"probabilities": False}, _body([-1])),
        ({"probabilities": False}, _body([])),
        ({"probabilities": False}, _body([0, 0])),
        ({"probabilities": True}, _body([0])),
        ({"probabilities": True}, _body([0], [[0.5, 0.5, 0.5]])),
        ({"probabilities": True}, _body([0], [[float("nan"), 0.5]])),
        ({"probabilities": True}, _body([0], [[float("inf"), 0.5]])),
        ({"probabilities": "yes"}, _body([0])),
        ({}, _body([0])),
    ],
)
def test_an_answer_out_of_order_is_nonsense(header: dict[str, Any], body: memoryview) -> None:
    with pytest.raises(Nonsense):
        read_scores(Task.CLASSIFICATION, 1, 2, header, body)


@given(st.binary(max_size=40), st.integers(0, 3))
def test_a_regressors_answer_is_one_finite_number_a_row_or_nonsense(data: bytes, rows: int) -> None:
    try:
        scores = read_scores(Task.REGRESSION, rows, 0, {}, memoryview(data))
    except Nonsense:
        values = np.frombuffer(data[: len(data) // 8 * 8])
        assert len(data) != rows * 8 or not np.isfinite(values).all()
    else:
        assert scores.values is not None
        assert scores.values.shape == (rows,)


def test_the_largest_answer_is_labels_and_probabilities() -> None:
    assert answer_bytes(Task.CLASSIFICATION, 10, 3) == 10 * (4 + 24)
    assert answer_bytes(Task.REGRESSION, 10, 0) == 80


@given(JSON)
def test_any_report_is_read_or_failed(report: Any) -> None:
    assert isinstance(read_report({"report": report}), InspectionReport)


def test_a_report_comes_out_as_it_went_in() -> None:
    column = Column("age", ColumnType.NUMBER, required=False, minimum=0.0)
    signature = Signature((column, Column("city", ColumnType.STRING, categories=("Oslo",))), InputKind.FRAME, ("city",))
    report = InspectionReport(None, signature, ("no", "yes"), "Pipeline(SVC)", {"python": "3.11"}, ("old",))
    assert read_report({"report": report.to_json()}) == report


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"type": "TEXT"},
        {"required": 1},
        {"minimum": "0"},
        {"minimum": float("nan")},
        {"categories": [1]},
        {"categories": "ab"},
    ],
)
def test_a_report_with_a_column_out_of_order_is_failed(change: dict[str, Any]) -> None:
    good = InspectionReport(None, Signature((Column("age", ColumnType.NUMBER),), InputKind.FRAME), None, "Ridge", {}, ()).to_json()
    good["signature"]["columns"][0].update(change)
    assert read_report({"report": good}).failure is not None


def test_what_a_report_says_for_people_is_printable_and_its_columns_are_its_own() -> None:
    good = InspectionReport(None, Signature((Column("age", ColumnType.NUMBER),), InputKind.FRAME), None, "Ri\0dge", {"a\0": "\0"}, ("\0",))
    assert read_report({"report": good.to_json()}).estimator == "Ri dge"
    assert "\\u0000" not in json.dumps(read_report({"report": good.to_json()}).to_json())
    assert read_report({"report": {"failure": "a\0b"}}).failure == "a b"
    stray = InspectionReport(None, Signature((Column("age", ColumnType.NUMBER),), InputKind.FRAME, ("\0",)), None, "Ridge", {}, ())
    assert read_report({"report": stray.to_json()}).failure is not None


def test_an_errors_text_is_bounded_and_printable() -> None:
    text = error_text({"error": "a\x1b[31mb\n" + "x" * 10_000})
    assert len(text) == 4_000
    assert text.isprintable()
    assert error_text({"error": {"not": "text"}}) == "The model failed."
