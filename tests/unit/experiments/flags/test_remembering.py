"""A decision is made once for a unit, for as long as nothing but the unit decides it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from app.experiments.flags.building import FlagBuilder, build_flags
from app.experiments.flags.document import Constraint, Document, Flag, Strategy
from app.experiments.flags.engine import Engine
from app.experiments.flags.remembering import Remembered, lasts
from app.experiments.types import Decision, DecisionReason
from tests.support.predicting import running, variant

pytestmark = pytest.mark.unit

UNITS = [f"{number:032x}" for number in range(40)]


def decision(number: int) -> Decision:
    return Decision(DecisionReason.EXPERIMENT, "colour", "blue", number, None, 0.5, 1)


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was put to the evaluator."""
    asked: list[str] = []
    ask = Engine.ask

    def noted(self: Engine, flag: str, context: Any) -> Any:
        asked.append(flag)
        return ask(self, flag, context)

    monkeypatch.setattr(Engine, "ask", noted)
    return asked


def test_a_unit_gets_the_same_decision_again_and_the_evaluator_is_asked_once(questions: list[str]) -> None:
    flags = build_flags("clinic", [running(variant("control", 1, control=True), variant("blue", 2))], 10.0, 7)
    first = [flags.decide("sum", unit, None) for unit in UNITS]
    assert {each.variant for each in first if each} == {"control", "blue", None}
    asked = len(questions)
    assert [flags.decide("sum", unit, None) for unit in UNITS] == first
    assert [flags.decide("sum", unit, {}) for unit in UNITS] == first
    assert len(questions) == asked


def test_attributes_are_looked_at_each_time(questions: list[str]) -> None:
    flags = build_flags("clinic", [running(variant("control", 1, control=True), variant("blue", 2))], 0.0, 7)
    asked = len(questions)
    for _ in range(3):
        flags.decide("sum", UNITS[0], {"country": "NO"})
    assert len(questions) == asked + 3


def test_other_flags_of_the_same_builder_decide_for_themselves() -> None:
    build = FlagBuilder()
    arms = variant("control", 1, control=True), variant("blue", 2)
    before = build("clinic", [running(*arms)], 0.0, 7, None, False)
    after = build("clinic", [running(*arms, rollout=0.0)], 0.0, 8, None, False)
    assert {each.reason for unit in UNITS if (each := before.decide("sum", unit, None))} == {DecisionReason.EXPERIMENT}
    assert {each.reason for unit in UNITS if (each := after.decide("sum", unit, None))} == {DecisionReason.OUT_OF_ROLLOUT}


def test_flags_that_decide_no_more_are_not_kept_for_what_they_decided() -> None:
    build = FlagBuilder()
    before = build("clinic", [running(variant("control", 1, control=True), variant("blue", 2))], 0.0, 7, None, False)
    assert before.decide("sum", UNITS[0], None) is not None
    gone = weakref.ref(before)
    del before
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("constraint", "stays"),
    [
        (Constraint("country", "IN", ("NO",)), True),
        (Constraint("born", "DATE_AFTER", ("2020-01-01T00:00:00Z",)), False),
        (Constraint("currentTime", "IN", ("now",)), False),
    ],
)
def test_what_depends_on_the_time_does_not_last(constraint: Constraint, stays: bool) -> None:
    flags = (Flag("a"), Flag("b", strategies=(Strategy("default"), Strategy("default", (constraint,)))))
    assert lasts(Document(1, flags)) is stays


def test_no_more_than_twice_the_half_is_remembered_and_what_was_asked_for_stays() -> None:
    remembered = Remembered(half=10)
    for number in range(100):
        remembered.put(number, decision(number))
        assert remembered.get(0) == decision(0)
    kept = [number for number in range(100) if remembered.get(number) is not None]
    assert 10 <= len(kept) <= 20
    assert {0, 99} <= set(kept)
