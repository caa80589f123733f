"""Which inputs are refused, for how long, and what clears them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.tensors import Batch
from app.prediction import quarantine
from app.prediction.quarantine import CRASHED_S, LATE_S, Quarantine, Quarantines, name_of
from tests.support.clock import ManualClock

pytestmark = pytest.mark.unit


def batch(numbers: list[float], texts: tuple[tuple[str | None, ...], ...] = ()) -> Batch:
    return Batch(1, np.array([numbers]), texts)


def test_the_second_death_counts_and_an_answer_clears() -> None:
    told: list[None] = []
    held = Quarantine(ManualClock().monotonic, lambda: told.append(None))
    assert not held
    assert (held.died(b"a", "crashed"), held.refusal(b"a"), bool(held)) == (1, None, True)
    held.answered(b"a")
    assert not held
    assert [held.died(b"a", "crashed"), held.died(b"a", "again")] == [1, 2]
    assert (held.refusal(b"a"), held.refusal(b"b"), len(told)) == ("again", None, 1)


def test_it_is_forgotten_after_its_time_and_lateness_sooner_than_a_crash() -> None:
    clock = ManualClock()
    held = Quarantine(clock.monotonic)
    for _ in range(2):
        held.died(b"crashes", "crashed", CRASHED_S)
        held.died(b"late", "late", LATE_S)
    clock.advance(LATE_S)
    assert (held.refusal(b"late"), held.refusal(b"crashes")) == (None, "crashed")
    clock.advance(CRASHED_S - LATE_S)
    assert not held
    assert held.deaths(b"crashes") == 0


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_MOST_INPUTS", 3)
    held = Quarantine(ManualClock().monotonic)
    for name in b"abcd":
        held.died(bytes([name]), "crashed")
    assert [held.deaths(bytes([name])) for name in b"abcd"] == [0, 1, 1, 1]


def test_each_artifact_has_its_own_and_the_empty_ones_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_MOST_ARTIFACTS", 2)
    all_of = Quarantines(ManualClock().monotonic, lambda: None)
    all_of.of("one/a").died(b"x", "crashed")
    assert all_of.of("two/a").deaths(b"x") == 0
    all_of.of("three/a")
    assert all_of.of("one/a").deaths(b"x") == 1


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
