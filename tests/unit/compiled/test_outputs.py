"""Which answers of a graph count, and how they are read."""

from __future__ import annotations

import numpy as np
import pytest

from app.kernel.signature import Task
from app.prediction.compiled.outputs import PROBABILITY_TOLERANCE, Malformed, read_answer

pytestmark = pytest.mark.unit

C, R = Task.CLASSIFICATION, Task.REGRESSION


def probabilities(*rows: list[float]) -> dict[str, np.ndarray]:
    return {"probabilities": np.array(rows, dtype=np.float32)}


def test_values_are_read_as_64_bits_whatever_the_graph_computes_with() -> None:
    answer = read_answer(R, 0, 2, {"values": np.array([[1.5], [-2.0]], dtype=np.float32)})
    assert answer.scores.values is not None
    assert answer.scores.values.dtype == np.float64
    assert answer.scores.values.tolist() == [1.5, -2.0]
    assert answer.doubtful.tolist() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_the_estimators_to_give(bad: float) -> None:
    assert read_answer(R, 0, 3, {"values": np.array([1.0, bad, 2.0])}).doubtful.tolist() == [1]
    assert read_answer(R, 0, 1, {"values": np.array([bad])}).doubtful.tolist() == [0]
    assert read_answer(C, 2, 2, probabilities([0.1, 0.9], [bad, 0.1])).doubtful.tolist() == [1]
    assert read_answer(C, 2, 1, probabilities([bad, 0.1])).doubtful.tolist() == [0]


def test_the_likeliest_class_is_the_label() -> None:
    answer = read_answer(C, 3, 2, probabilities([0.2, 0.7, 0.1], [0.6, 0.3, 0.1]))
    assert answer.scores.labels is not None
    assert answer.scores.labels.dtype == np.int32
    assert answer.scores.labels.tolist() == [1, 0]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("gap", "doubtful"), [(0.0, True), (1.9, True), (2.2, False)])
def test_two_classes_that_the_tolerance_could_swap_are_the_estimators_to_tell(gap: float, doubtful: bool, alone: bool) -> None:
    close = [0.4 + gap * PROBABILITY_TOLERANCE, 0.2, 0.4]
    rows = [close] if alone else [close, [0.9, 0.05, 0.05]]
    found = read_answer(C, 3, len(rows), {"probabilities": np.array(rows)})
    assert found.doubtful.tolist() == ([0] if doubtful else [])


def test_labels_of_the_graph_stand_where_they_are_not_the_likeliest_class() -> None:
    answer = read_answer(C, 2, 2, {"labels": np.array([1, 0]), **probabilities([0.9, 0.1], [0.5, 0.5])})
    assert answer.scores.labels is not None
    assert (answer.scores.labels.tolist(), answer.doubtful.tolist()) == ([1, 0], [])


def test_margins_say_which_labels_are_too_close_and_are_no_probabilities() -> None:
    outputs = {"labels": np.array([1, 0, 1]), "margins": np.array([[3.0], [-1e-6], [np.nan]], dtype=np.float32)}
    answer = read_answer(C, 2, 3, outputs)
    assert answer.scores.probabilities is None
    assert answer.doubtful.tolist() == [1, 2]
    large = read_answer(C, 3, 1, {"labels": np.array([2]), "margins": np.array([[1e9, 1e9 + 1e3, -5.0]])})
    assert large.doubtful.tolist() == [0]  # of such numbers 1,000 is next to nothing


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"probabilities": np.zeros((2, 2))},
        {"probabilities": np.zeros((1, 2), dtype=np.int64)},
        {"labels": np.array([0])},
        {"labels": np.array([2]), **probabilities([0.5, 0.5])},
        {"labels": np.array([-1]), **probabilities([0.5, 0.5])},
        {"labels": np.array(["a"], dtype=object), **probabilities([0.5, 0.5])},
    ],
)
def test_outputs_of_another_layout_are_refused(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(Malformed):
        read_answer(C, 2, 1, outputs)
