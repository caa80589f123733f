"""When two answers are the same, and what a verdict says."""

from __future__ import annotations

import numpy as np
import pytest

from app.kernel.proof import Proof
from app.kernel.signature import Task
from app.kernel.tensors import Scores
from app.prediction.compiled.compare import MARGIN, Yardstick, difference
from app.prediction.runtimes.compiler import verdict

pytestmark = pytest.mark.unit

C, R = Task.CLASSIFICATION, Task.REGRESSION


def chances(*first: float, labels: list[int] | None = None) -> Scores:
    p = np.array(first)
    return Scores(np.array(labels if labels is not None else (p < 0.5).astype(int), dtype=np.int32), np.column_stack([p, 1 - p]))


def values(*numbers: float) -> Scores:
    return Scores(values=np.array(numbers))


def test_another_class_is_a_fault_however_close_the_probabilities() -> None:
    found = difference(chances(0.5 + 1e-9, 0.9), chances(0.5 - 1e-9, 0.9), Yardstick.of(C, chances(0.5)))
    assert found.fault == "another class than scikit-learn's on 1 of 2 rows"


@pytest.mark.parametrize(
    ("off", "margin", "same"), [(0.99e-5, 1, True), (1.01e-5, 1, False), (0.24e-5, MARGIN, True), (0.26e-5, MARGIN, False)]
)
def test_probabilities_may_be_off_by_the_tolerance_and_no_more(off: float, margin: int, same: bool) -> None:
    found = difference(chances(0.7, 0.2), chances(0.7, 0.2 + off), Yardstick.of(C, chances(0.5)), margin)
    assert (found.fault is None) is same
    assert found.largest_difference == pytest.approx(off)


def test_numbers_are_measured_by_how_far_answers_are_apart_not_by_how_large_they_are() -> None:
    ordinary = values(*np.linspace(1e6, 1e6 + 10, 21))
    yardstick = Yardstick.of(R, ordinary)
    assert yardstick.tolerance == pytest.approx(9e-5)  # of the middle nine tenths of a spread of 10
    assert yardstick.middle == 1e6 + 5
    assert difference(ordinary, values(*ordinary.values + 8e-5), yardstick).fault is None  # type: ignore[operator]
    assert difference(ordinary, values(*ordinary.values + 1e-4), yardstick).fault is not None  # type: ignore[operator]


def test_answers_far_from_the_others_may_be_off_by_their_share() -> None:
    yardstick = Yardstick.of(R, values(*np.linspace(-1, 1, 21)))
    assert difference(values(1e9), values(1e9 + 9e3), yardstick).fault is None
    assert difference(values(1e9), values(1e9 + 2e4), yardstick).fault is not None


def test_a_constant_model_has_a_scale_too() -> None:
    assert Yardstick.of(R, values(5.0, 5.0)).tolerance == 5e-5
    assert Yardstick.of(R, values(0.0, 0.0)).tolerance == 0.0


def test_nan_is_never_the_same() -> None:
    assert difference(values(1.0, 2.0), values(1.0, np.nan), Yardstick(1.0)).fault is not None
    assert difference(chances(0.2), chances(np.nan, labels=[1]), Yardstick(1.0)).fault is not None


ROWS = 1_200


def judged(**changes: object) -> Proof:
    native = values(*np.linspace(0, 10, ROWS))
    given = {
        "task": R, "native": native, "answered": np.arange(ROWS), "compiled": native, "handed_back": np.zeros(ROWS, dtype=bool),
        "ordinary": 1_000, "native_us": 300.0, "compiled_us": 10.0, "precision": "float32",
    }  # fmt: skip
    return verdict(**{**given, **changes})  # type: ignore[arg-type]


def test_a_graph_that_answers_the_same_and_faster_serves() -> None:
    proof = judged()
    assert (proof.reason, proof.rows, proof.largest_difference, proof.speed_up) == (None, ROWS, 0.0, 30.0)
    assert Proof.from_json(proof.to_json()) == proof


def test_a_graph_that_is_no_faster_does_not_serve() -> None:
    assert judged(compiled_us=300.0).reason == "float32: no faster than scikit-learn (300 µs for a row, not 300)"


def test_rows_that_it_hands_back_are_not_compared_but_not_too_many() -> None:
    wrong = values(*np.r_[np.full(400, 99.0), np.linspace(0, 10, ROWS)[400:]])
    back = np.arange(ROWS) < 400
    proof = judged(compiled=wrong, handed_back=back)
    assert (proof.reason, proof.handed_back) == (None, 400)
    assert judged(compiled=wrong, handed_back=np.arange(ROWS) < 399).reason is not None
    assert judged(handed_back=np.arange(ROWS) < 501).reason == "float32: it leaves most rows to scikit-learn"


def test_a_row_that_scikit_learn_refuses_must_be_handed_back() -> None:
    answered = np.arange(ROWS - 5)
    native = values(*np.linspace(0, 10, ROWS)[:-5])
    assert judged(native=native, answered=answered).reason == "float32: it answers 5 rows that scikit-learn refuses"
    assert judged(native=native, answered=answered, handed_back=np.arange(ROWS) >= ROWS - 5).reason is None


def test_fewer_than_a_thousand_rows_are_no_proof() -> None:
    assert judged(native=values(*np.linspace(0, 10, ROWS)[:999]), answered=np.arange(999), handed_back=np.arange(ROWS) >= 999).reason == (
        "float32: too few rows to compare (999)"
    )
