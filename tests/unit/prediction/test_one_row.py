"""A single row looked at value by value gives what the arrays' way gives, or leaves it to that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidFeatures
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.kernel.tensors import Batch
from app.prediction.features import RowChecker
from app.prediction.one_row import OneRow

pytestmark = pytest.mark.unit

LIMITS = st.sampled_from([(None, None), (None, 2.5), (-3.0, None), (0.0, 2.5), (0.5, 150.0)])
NUMBERS = [-4, -3.0, -2.5, -0.5, 0, 0.5, 1, 1.0, 2, 2.5, 3, 3.5, 150, 150.5, 151]
VAST = [2**53, 2**53 + 1, -(2**53) - 1, 10**400, -(10**400), 1e308, -1e308, math.inf, -math.inf, math.nan]
ODD = st.none() | st.sampled_from([*NUMBERS, *VAST, True, False, "", "Oslo", "Rome", [], {}])


@st.composite
def columns(draw: st.DrawFn, number: int) -> Column:
    kind = draw(st.sampled_from(list(ColumnType)))
    column = Column(f"c{number}", kind, required=draw(st.booleans()))
    if kind in {ColumnType.NUMBER, ColumnType.INTEGER}:
        low, high = draw(LIMITS)
        return replace(column, minimum=low, maximum=high)
    return replace(column, categories=draw(st.sampled_from([None, ("Oslo", "Riga")]))) if kind is ColumnType.STRING else column


def plain(column: Column) -> st.SearchStrategy[Any]:
    return {
        ColumnType.NUMBER: st.sampled_from([0.5, 1, 2.5]),
        ColumnType.INTEGER: st.sampled_from([1, 2, 1.0]),
        ColumnType.STRING: st.just("Oslo"),
        ColumnType.BOOLEAN: st.booleans(),
    }[column.type]


@st.composite
def asked(draw: st.DrawFn) -> tuple[Signature, Any]:
    """Rows with at most two odd values, and now and then of another shape."""
    listed = [draw(columns(number)) for number in range(draw(st.integers(1, 5)))]
    values = [draw(plain(column)) for column in listed]
    for _ in range(draw(st.integers(0, 2))):
        values[draw(st.integers(0, len(listed) - 1))] = draw(ODD)
    named = dict(zip((column.name for column in listed), values, strict=True))
    shapes: list[Any] = [values, named] * 5
    shapes += [[*values, 1.0], values[:-1], "row", None, 7, {**named, "other": 1.0}, dict(list(named.items())[1:])]
    shapes.append({("other" if name == "c0" else name): value for name, value in named.items()})
    return Signature(tuple(listed), InputKind.FRAME), draw(st.sampled_from(shapes))


def by_arrays(signature: Signature, row: Any) -> Batch | None:
    """Two of the same row go the arrays' way."""
    try:
        both = RowChecker(signature).rows([row, row])
    except InvalidFeatures:
        return None
    return Batch(1, both.numbers[:1], tuple(column[:1] for column in both.texts))


@settings(max_examples=1000)
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
    """A number that the floats do not hold exactly, or finite ones whose sum is not."""
    values = row.values() if isinstance(row, dict) else row
    return any(type(value) in (int, float) and abs(value) >= 2**53 for value in values)


@pytest.mark.parametrize("row", [{"a": 1.0, "b": 2, "c": True, "d": "x"}, [1.0, 2, True, "x"]])
def test_a_plain_row_needs_nobody_else(row: Any) -> None:
    kinds = (ColumnType.NUMBER, ColumnType.INTEGER, ColumnType.BOOLEAN, ColumnType.STRING)
    signature = Signature(tuple(Column(name, kind) for name, kind in zip("abcd", kinds, strict=True)), InputKind.FRAME)
    found = OneRow(signature).fits(row)
    assert found is not None
    assert found.numbers.tolist() == [[1.0, 2.0, 1.0]]
    assert found.texts == (("x",),)
