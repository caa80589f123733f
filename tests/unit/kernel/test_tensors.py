"""One row as plain values is what it is as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from app.kernel.tensors import Batch, Row, RowScores, Scores

pytestmark = pytest.mark.unit


def test_a_rows_array_is_made_of_its_values_once() -> None:
    row = Row([1, 2.5, None, True], (("Oslo",),))
    assert (row.rows, row.texts) == (1, (("Oslo",),))
    np.testing.assert_array_equal(row.numbers, np.array([[1.0, 2.5, np.nan, 1.0]]))
    assert (row.numbers.dtype, row.numbers is row.numbers) == (np.float64, True)
    with pytest.raises(AttributeError):
        row.number  # type: ignore[attr-defined]  # noqa: B018


def test_a_batch_has_its_first_row_as_values() -> None:
    assert list(Batch(2, np.array([[1.0, 2.0], [3.0, 4.0]])).values) == [1.0, 2.0]


@pytest.mark.parametrize(
    "scores",
    [
        Scores(np.array([1], np.int32), np.array([[0.25, 0.75]])),
        Scores(np.array([1], np.int32)),
        Scores(values=np.array([0.1])),
    ],
)
def test_scores_of_one_row_are_the_same_in_plain_numbers_and_as_arrays(scores: Scores) -> None:
    [said] = scores.each()
    plain = RowScores(said)
    assert (plain.first, list(plain.each())) == (scores.first, [said])
    for name in ("labels", "probabilities", "values"):
        wanted, found = getattr(scores, name), getattr(plain, name)
        assert (found is None) == (wanted is None)
        assert found is None or (found.dtype, found.tobytes(), found.shape) == (wanted.dtype, wanted.tobytes(), wanted.shape)


def test_each_row_says_its_own() -> None:
    many = Scores(np.array([0, 1], np.int32), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert list(many.each()) == [(0, [0.9, 0.1], None), (1, [0.2, 0.8], None)]
    assert many.first == (0, [0.9, 0.1], None)


def test_scores_of_nothing_say_nothing() -> None:
    assert list(Scores().each()) == []
