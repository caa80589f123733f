"""Which inputs are refused, for how long, what clears them, and who hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.tensors import Batch
from app.prediction import quarantine
from app.prediction.quarantine import CRASHED_S, LATE, LATE_S, LocalMarks, Marks, Quarantine, SharedMarks, name_of
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["of a process", "of a machine"])
def marks(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Marks:
    return LocalMarks(clock) if request.param == "of a process" else SharedMarks(tmp_path / "quarantine.bin", clock)


def batch(numbers: list[float], texts: tuple[tuple[str | None, ...], ...] = ()) -> Batch:
    return Batch(1, np.array([numbers]), texts)


def test_the_second_death_counts_and_an_answer_clears(marks: Marks) -> None:
    told: list[None] = []
    held = Quarantine("tenant/artifact", marks, lambda: told.append(None))
    assert not held
    assert (held.died(b"a", 3), held.refusal(b"a"), bool(held)) == (1, None, True)
    held.answered(b"a")
    assert held.deaths(b"a") == 0
    assert [held.died(b"a", 3), held.died(b"a", -11)] == [1, 2]
    assert (held.refusal(b"a"), held.refusal(b"b"), len(told)) == (-11, None, 1)


@pytest.mark.parametrize("status", [0, 3, 255, -9, -31, LATE])
def test_how_the_last_worker_ended_is_told_as_it_was(marks: Marks, status: int) -> None:
    held = Quarantine("tenant/artifact", marks)
    held.died(b"a", 1)
    held.died(b"a", status)
    assert held.refusal(b"a") == status


def test_it_is_forgotten_after_its_time_and_lateness_sooner_than_a_crash(marks: Marks, clock: ManualClock) -> None:
    held = Quarantine("tenant/artifact", marks)
    for _ in range(2):
        held.died(b"crashes", -11, CRASHED_S)
        held.died(b"late", LATE, LATE_S)
    clock.advance(LATE_S)
    assert (held.refusal(b"late"), held.refusal(b"crashes")) == (None, -11)
    clock.advance(CRASHED_S - LATE_S)
    assert not held
    assert held.deaths(b"crashes") == 0


def test_what_one_process_holds_is_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_MOST_LOCAL", 4)  # the fourth says that there are any
    held = Quarantine("tenant/artifact", LocalMarks(clock))
    for name in b"abcd":
        held.died(bytes([name]), 1)
    assert [held.deaths(bytes([name])) for name in b"abcd"] == [0, 1, 1, 1]


def test_each_artifact_has_its_own(marks: Marks) -> None:
    one, other = Quarantine("one/artifact", marks), Quarantine("other/artifact", marks)
    one.died(b"x", 1)
    assert (one.deaths(b"x"), other.deaths(b"x"), bool(other)) == (1, 0, False)


def test_processes_of_a_machine_hear_of_one_another_and_try_one_suspect_at_a_time(tmp_path: Path, clock: ManualClock) -> None:
    one, other = (Quarantine("tenant/artifact", SharedMarks(tmp_path / "quarantine.bin", clock)) for _ in range(2))
    one.died(b"x", -11)
    assert (other.deaths(b"x"), other.died(b"x", -11), one.refusal(b"x")) == (1, 2, -11)
    assert (one.begin_trial(), one.begin_trial(), other.begin_trial()) == (True, True, False)
    assert (one.is_trial_of_another(), other.is_trial_of_another()) == (False, True)
    other.end_trial()
    assert not other.begin_trial(), "it is not the other one's to end"
    one.end_trial()
    assert other.begin_trial()
    clock.advance(16.0)
    assert one.begin_trial(), "who tried is gone"


@given(
    st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=2, max_size=2),
)
def test_an_inputs_name_is_its_values_and_no_other_inputs(numbers: list[float], texts: list[str | None]) -> None:
    name = name_of(batch(numbers, tuple((text,) for text in texts)))
    assert name == name_of(batch(list(numbers), tuple((text,) for text in texts)))
    changed = [numbers[0] + 1.0 if abs(numbers[0]) < 1e9 else 0.0, numbers[1]]
    assert name != name_of(batch(changed, tuple((text,) for text in texts)))
    assert name != name_of(batch(numbers, ((texts[0],), ("" if texts[1] is None else texts[1] + "x",))))
