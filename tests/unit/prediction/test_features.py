"""Rows against signatures: every wrong column named at once, no value changed on the way."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidFeatures, InvalidInput
from app.kernel.packed import PackedRows
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.prediction.features import RowChecker, batch_from_rows

pytestmark = pytest.mark.unit

MIXED = Signature(
    (
        Column("age", ColumnType.NUMBER, minimum=0, maximum=150),
        Column("city", ColumnType.STRING, categories=("Oslo", "Riga")),
        Column("visits", ColumnType.INTEGER),
        Column("member", ColumnType.BOOLEAN),
        Column("income", ColumnType.NUMBER, required=False),
        Column("note", ColumnType.STRING, required=False),
    ),
    InputKind.FRAME,
)
GOOD = {"age": 41, "city": "Oslo", "visits": 3.0, "member": True, "income": 12.5, "note": "ærlig"}


def problems_of(rows: list[Any], signature: Signature = MIXED) -> list[dict[str, Any]]:
    with pytest.raises(InvalidFeatures) as caught:
        batch_from_rows(signature, rows)
    return caught.value.details["problems"]


def test_objects_and_positional_lists_give_the_same_arrays() -> None:
    a = batch_from_rows(MIXED, [GOOD])
    b = batch_from_rows(MIXED, [list(GOOD.values())])
    assert a.numbers.tolist() == b.numbers.tolist() == [[41.0, 3.0, 1.0, 12.5]]
    assert a.texts == b.texts == (("Oslo",), ("ærlig",))


def test_null_is_a_missing_value_only_where_the_column_is_not_required() -> None:
    batch = batch_from_rows(MIXED, [{**GOOD, "income": None, "note": None}])
    assert math.isnan(batch.numbers[0, 3])
    assert batch.texts[1] == (None,)
    left_out = {k: v for k, v in GOOD.items() if k not in ("income", "note")}
    assert math.isnan(batch_from_rows(MIXED, [left_out]).numbers[0, 3])
    assert problems_of([{**GOOD, "age": None}]) == [{"name": "age", "problem": "MISSING", "expected": "a finite number", "got": "null"}]


def test_every_missing_unknown_mistyped_and_out_of_range_column_is_named_in_one_error() -> None:
    row = {"age": 151, "city": "Paris", "visits": 3.5, "member": 1, "income": "12", "colour": "red"}
    assert [(p["name"], p["problem"]) for p in problems_of([row])] == [
        ("age", "RANGE"), ("city", "CATEGORY"), ("visits", "TYPE"), ("member", "TYPE"), ("income", "TYPE"), ("colour", "UNKNOWN"),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, -(10**400)], ids=["inf", "-inf", "nan", "huge", "-huge"])
def test_a_non_finite_number_is_named(value: float) -> None:
    assert problems_of([{**GOOD, "income": value}])[0]["problem"] == "NOT_FINITE"


@pytest.mark.parametrize("value", ["41", True, [1], {"a": 1}])
def test_a_text_or_boolean_is_no_number(value: Any) -> None:
    assert problems_of([{**GOOD, "income": value}])[0]["problem"] == "TYPE"


@pytest.mark.parametrize("row", [None, "x", 3, [], [1, 2], [*list(GOOD.values()), 1]])
def test_a_row_out_of_shape_says_what_shape_is_right(row: Any) -> None:
    assert problems_of([row])[0]["problem"] == "SHAPE"


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([[1, 2]], "the shape of the row"),
        (["x"], "the shape of the row"),
        ([GOOD, 3], "the shape of row 1"),
        ([[1], GOOD, None, {**GOOD, "age": -1}], "the shape of row 0, the shape of row 2, age"),
        ([{**GOOD, "": 1}], '""'),
        ([{**GOOD, "None": 1}], "None"),
    ],
)
def test_the_sentence_names_each_wrong_column_and_each_row_out_of_shape(rows: list[Any], named: str) -> None:
    with pytest.raises(InvalidFeatures) as caught:
        batch_from_rows(MIXED, rows)
    assert caught.value.message == f"The features do not fit the model's signature: {named}. See problems."


def test_a_matrix_of_too_many_names_is_refused_before_its_rows_are_listed() -> None:
    class Unlisted(PackedRows):
        def listed(self, most: int | None = None) -> list[Any]:
            raise AssertionError("listed")

    for names, why in ([f"c{i}" for i in range(10_000)], "names 10,000 columns; the model has 6"), (["age"] * 2, "names a column twice"):
        with pytest.raises(InvalidInput, match=why):
            RowChecker(MIXED).matrix({"columns": names, "data": Unlisted(None, np.zeros((100, len(names))))})


def test_problems_of_many_rows_say_which_row() -> None:
    assert [(p["row"], p["name"]) for p in problems_of([GOOD, {**GOOD, "age": -1}, {**GOOD, "city": "x"}])] == [(1, "age"), (2, "city")]


def test_a_matrix_may_name_its_columns_in_any_order() -> None:
    checker = RowChecker(MIXED)
    names = list(reversed(GOOD))
    batch = checker.matrix({"columns": names, "data": [[GOOD[n] for n in names]] * 2})
    assert batch.numbers.tolist() == [[41.0, 3.0, 1.0, 12.5]] * 2
    assert checker.matrix({"data": [list(GOOD.values())]}).numbers.tolist() == [[41.0, 3.0, 1.0, 12.5]]


@pytest.mark.parametrize(
    "matrix",
    [None, [], {}, {"data": 1}, {"data": [], "rows": []}, {"columns": "age", "data": []}, {"columns": ["age", "age"], "data": [[1, 2]]}],
)
def test_a_malformed_matrix_is_refused_with_what_would_be_right(matrix: Any) -> None:
    with pytest.raises(InvalidInput):
        RowChecker(MIXED).matrix(matrix)


def test_what_a_refusal_says_is_bounded_whatever_the_client_and_the_artifact_name() -> None:
    wide = Signature(tuple(Column(f"{i}" + "n" * 250, ColumnType.NUMBER) for i in range(2_000)), InputKind.FRAME)
    many = Signature((Column("c", ColumnType.STRING, categories=tuple(f"{i}" + "v" * 250 for i in range(2_000))),), InputKind.FRAME)
    strange: list[tuple[Signature, list[Any]]] = [
        (wide, [[1]] * 200),
        (wide, [{"x": 1}] * 200),
        (many, [{"c": "x"}] * 200),
        (MIXED, [{**GOOD, **{"u" * 10_000 + str(i): 1 for i in range(200)}}]),
    ]
    for signature, rows in strange:
        problems = problems_of(rows, signature)
        assert len(problems) == 100
        assert len(json.dumps(problems)) < 200_000


def test_a_row_with_a_million_strange_columns_is_refused_without_walking_them() -> None:
    row = {**GOOD, **{f"u{i}": 1 for i in range(1_000_000)}}
    began = time.process_time()
    assert len(problems_of([row])) == 100
    assert time.process_time() - began < 0.05
    with pytest.raises(InvalidInput, match="1,000,006 columns"):
        RowChecker(MIXED).matrix({"columns": list(row), "data": [list(row.values())]})


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@given(st.lists(st.dictionaries(st.sampled_from([*GOOD, "zz"]), json_values) | st.lists(json_values, max_size=7), max_size=4))
def test_any_json_is_either_refused_with_problems_or_taken_unchanged(rows: list[Any]) -> None:
    try:
        batch = batch_from_rows(MIXED, rows)
    except InvalidFeatures as error:
        assert error.details["problems"]
        json.dumps(error.details["problems"])
        return
    assert batch.rows == len(rows)
    for k, row in enumerate(rows):
        values = dict(zip(GOOD, row, strict=True)) if isinstance(row, list) else row
        for j, name in enumerate(["age", "visits", "member", "income"]):
            sent = values.get(name)
            assert math.isnan(batch.numbers[k, j]) if sent is None else batch.numbers[k, j] == np.float64(sent)
        assert [t[k] for t in batch.texts] == [values.get("city"), values.get("note")]
