"""A single row looked at value by value gives what the arrays' way gives, or leaves it to that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidFeatures
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.kernel.tensors import Batch
from app.prediction.features import RowChecker
from app.prediction.one_row import OneRow

pytestmark = pytest.mark.unit

LIMITS = st.sampled_from([None, -3.0, 0.0, 2.5, 150.0])
EDGES = [0, -1, 3.5, 2.5, 150, 2**53, 2**53 + 1, -(2**53) - 1, 10**400, -(10**400), 1e308, -1e308, math.inf, -math.inf, math.nan, -0.0]
TEXTS = ["", "Oslo", "Riga", "\N{LATIN SMALL LETTER AE}", None]
CELLS = st.one_of(
    st.sampled_from(EDGES), st.integers(-200, 200), st.floats(-200, 200), st.booleans(), st.sampled_from(TEXTS), st.just([]), st.just({})
)


@st.composite
def columns(draw: st.DrawFn, number: int) -> Column:
    kind = draw(st.sampled_from(list(ColumnType)))
    column = Column(f"c{number}", kind, required=draw(st.booleans()))
    if kind in {ColumnType.NUMBER, ColumnType.INTEGER}:
        return replace(column, minimum=draw(LIMITS), maximum=draw(LIMITS))
    return replace(column, categories=draw(st.sampled_from([None, ("Oslo", "Riga")]))) if kind is ColumnType.STRING else column


def plain(column: Column) -> st.SearchStrategy[Any]:
    return {
        ColumnType.NUMBER: st.floats(0, 2.5),
        ColumnType.INTEGER: st.integers(0, 2),
        ColumnType.STRING: st.just("Oslo"),
        ColumnType.BOOLEAN: st.booleans(),
    }[column.type]


@st.composite
def asked(draw: st.DrawFn) -> tuple[Signature, Any]:
    listed = [draw(columns(number)) for number in range(draw(st.integers(1, 6)))]
    values = [draw(st.one_of(plain(column), plain(column), CELLS)) for column in listed]
    form = draw(st.integers(0, 3))
    if form == 0:
        return Signature(tuple(listed), InputKind.FRAME), draw(st.sampled_from([values, [*values, 1.0], values[:-1], "row", None, 7]))
    named = dict(zip((column.name for column in listed), values, strict=True))
    if form == 1:
        named[draw(st.sampled_from(["other", "c0", "c1"]))] = 1.0
    if form == 2 and named:
        named.pop(draw(st.sampled_from(list(named))))
    return Signature(tuple(listed), InputKind.FRAME), named


def by_arrays(signature: Signature, row: Any) -> Batch | None:
    """Two of the same row go the arrays' way."""
    try:
        both = RowChecker(signature).rows([row, row])
    except InvalidFeatures:
        return None
    return Batch(1, both.numbers[:1], tuple(column[:1] for column in both.texts))


@given(asked())
def test_whatever_the_row_it_gives_what_the_arrays_give_or_leaves_it_to_them(question: tuple[Signature, Any]) -> None:
    signature, row = question
    found, wanted = OneRow(signature).fits(row), by_arrays(signature, row)
    if found is not None:
        assert wanted is not None
        assert found.texts == wanted.texts
        assert found.numbers.dtype == np.float64
        assert found.numbers.shape == wanted.numbers.shape
        assert found.numbers.tobytes() == wanted.numbers.tobytes()
    elif wanted is not None:
        assert None in (row.values() if isinstance(row, dict) else row) or len(row) < len(signature.columns) or _is_vast(row)


def _is_vast(row: Any) -> bool:
    """Finite numbers whose sum is not."""
    values = row.values() if isinstance(row, dict) else row
    return any(type(value) in (int, float) and abs(value) > 1e300 for value in values)


@pytest.mark.parametrize("row", [{"a": 1.0, "b": 2, "c": True, "d": "x"}, [1.0, 2, True, "x"]])
def test_a_plain_row_needs_nobody_else(row: Any) -> None:
    kinds = (ColumnType.NUMBER, ColumnType.INTEGER, ColumnType.BOOLEAN, ColumnType.STRING)
    signature = Signature(tuple(Column(name, kind) for name, kind in zip("abcd", kinds, strict=True)), InputKind.FRAME)
    found = OneRow(signature).fits(row)
    assert found is not None
    assert found.numbers.tolist() == [[1.0, 2.0, 1.0]]
    assert found.texts == (("x",),)
