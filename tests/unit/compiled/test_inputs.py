"""Rows as a graph's inputs, and the rows that a graph must not see."""

from __future__ import annotations

import numpy as np
import pytest

from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.kernel.tensors import Batch
from app.prediction.compiled.inputs import LARGEST_PROVED, Feeder, OutsideProof, UnknownLayout

pytestmark = pytest.mark.unit

FLOAT, DOUBLE, INT, STRING = "tensor(float)", "tensor(double)", "tensor(int64)", "tensor(string)"
MIXED = Signature(
    (
        Column("age", ColumnType.NUMBER),
        Column("city", ColumnType.STRING),
        Column("visits", ColumnType.INTEGER),
        Column("member", ColumnType.BOOLEAN),
        Column("colour", ColumnType.STRING),
    ),
    InputKind.FRAME,
)
ROWS = Batch(2, np.array([[41.5, 3.0, 1.0], [np.nan, 0.0, 0.0]]), (("Oslo", "Riga"), ("red", "blue")))
NUMBERS = Signature((Column("a", ColumnType.NUMBER), Column("b", ColumnType.NUMBER)), InputKind.ARRAY)


@pytest.mark.parametrize(("kind", "dtype"), [(FLOAT, np.float32), (DOUBLE, np.float64)])
def test_numbers_come_in_the_graphs_precision(kind: str, dtype: type) -> None:
    fed = Feeder(NUMBERS, [("numbers", kind)])(Batch(1, np.array([[0.1, np.nan]])))
    assert list(fed) == ["numbers"]
    assert fed["numbers"].dtype == dtype
    np.testing.assert_array_equal(fed["numbers"], np.array([[0.1, np.nan]], dtype=dtype))


def test_texts_and_numbers_are_apart_and_in_signature_order() -> None:
    fed = Feeder(MIXED, [("numbers", FLOAT), ("texts", STRING)])(ROWS)
    np.testing.assert_array_equal(fed["numbers"], ROWS.numbers.astype(np.float32))
    assert fed["texts"].tolist() == [["Oslo", "red"], ["Riga", "blue"]]


def test_whole_numbers_are_apart_where_the_graph_wants_them_so() -> None:
    feeder = Feeder(MIXED, [("numbers", DOUBLE), ("integers", INT), ("texts", STRING)])
    fed = feeder(ROWS)
    np.testing.assert_array_equal(fed["numbers"], ROWS.numbers[:, [0, 2]])
    assert (fed["integers"].dtype, fed["integers"].tolist()) == (np.int64, [[3], [0]])
    missing = Batch(1, np.array([[1.0, np.nan, 0.0]]), (("Oslo",), ("red",)))
    with pytest.raises(OutsideProof):
        feeder(missing)
    assert feeder.outside(missing).tolist() == [0]


@pytest.mark.parametrize("number", [np.nextafter(LARGEST_PROVED, np.inf), -1e300])
def test_a_number_beyond_the_proof_is_outside_also_beside_a_missing_one(number: float) -> None:
    feeder = Feeder(NUMBERS, [("numbers", FLOAT)])
    batch = Batch(3, np.array([[1.0, 2.0], [np.nan, number], [np.nan, np.nan]]))
    with pytest.raises(OutsideProof):
        feeder(batch)
    assert feeder.outside(batch).tolist() == [1]
    assert feeder.outside(Batch(1, np.array([[LARGEST_PROVED, -LARGEST_PROVED]]))).tolist() == []


def test_a_missing_text_is_outside() -> None:
    feeder = Feeder(MIXED, [("numbers", FLOAT), ("texts", STRING)])
    batch = Batch(2, np.zeros((2, 3)), (("Oslo", None), ("red", "red")))
    with pytest.raises(OutsideProof):
        feeder(batch)
    assert feeder.outside(batch).tolist() == [1]


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [("numbers", INT)],
        [("numbers", FLOAT), ("more", FLOAT)],
        [("numbers", FLOAT), ("texts", STRING)],
        [("numbers", FLOAT), ("integers", INT)],
        [("x", FLOAT)],
    ],
)
def test_a_graph_with_other_inputs_than_the_signatures_is_refused(inputs: list[tuple[str, str]]) -> None:
    with pytest.raises(UnknownLayout):
        Feeder(NUMBERS, inputs)
