"""Which claims of a row are about time, so that a machine that stands still does not break what is about counts."""

from __future__ import annotations

from itertools import count

import pytest

from tools.chaos.figures import Stretch, stretch
from tools.chaos.history import Answer, Operation, Outcome
from tools.chaos.load import BUSY, Tried, code_of
from tools.chaos.scenarios.common import answered, within

pytestmark = pytest.mark.unit
_numbers = count()


def asked(answers: int, **others: int) -> Stretch:
    """So many that were answered, and others by their codes."""
    ends = [*[(Outcome.OK, "")] * answers, *((Outcome.FAIL, code) for code, times in others.items() for _ in range(times))]
    return stretch([Tried(operation(outcome), 0.0, 0.01, code) for outcome, code in ends])


def operation(outcome: Outcome) -> Operation:
    number = next(_numbers)
    return Operation(number, "north", "u", "model", outcome, Answer(str(number), 1) if outcome is Outcome.OK else None)


@pytest.mark.parametrize(
    ("others", "holds", "timed"),
    [
        ({}, True, True),
        ({"BUSY": 300}, False, True),
        ({"RATE_LIMITED": 300}, False, True),
        ({"UNAVAILABLE": 1}, True, True),
        ({"UNAVAILABLE": 2}, False, False),
        ({"UNAVAILABLE": 2, "BUSY": 300}, False, False),
        ({"DEADLINE_EXCEEDED": 2}, False, False),
        ({"BROKEN": 2}, False, False),
    ],
)
def test_what_a_crowded_machine_turned_away_is_about_time_and_what_was_broken_is_not(
    others: dict[str, int], holds: bool, timed: bool
) -> None:
    claim = answered(asked(1000, **others))
    assert (claim.holds, claim.timed) == (holds, timed)


def test_nothing_answered_is_about_no_time() -> None:
    assert [(claim.holds, claim.timed) for claim in map(answered, (asked(0), asked(0, BUSY=5)))] == [(False, False)] * 2


def test_busy_is_what_the_service_says_of_itself_and_no_other_unavailability() -> None:
    code = {"code": "UNAVAILABLE"}
    assert code_of({"message": "The service is busy. Wait, then try again.", "extensions": code}) == BUSY
    assert code_of({"message": "The database does not answer.", "extensions": code}) == "UNAVAILABLE"


@pytest.mark.parametrize(("took_s", "holds", "timed"), [(2.0, True, True), (2.1, False, True), (None, False, False)])
def test_late_is_about_time_and_never_is_not(took_s: float | None, holds: bool, timed: bool) -> None:
    claim = within("it came", took_s, 2.0)
    assert (claim.holds, claim.timed) == (holds, timed)
