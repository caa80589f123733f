"""When a version is left alone, when it is tried again, and what says nothing of it. Time is handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DeadlineExceeded, InvalidFeatures, ModelFailed, ModelUnavailable, Unavailable
from app.prediction.breakers import Breaker, BreakerRules, Breakers, BreakerState, LeftAlone, is_versions_doing
from app.prediction.loop_watch import LoopWatch
from app.prediction.pool import NoRoom
from app.prediction.runtimes.base import NotAsked, NotNow
from tests.support.clock import ManualClock
from tests.support.serving import TENANT, compiled_route

pytestmark = pytest.mark.unit
CLOSED, OPEN, HALF_OPEN = BreakerState
RULES = BreakerRules()


class Heard:
    def __init__(self) -> None:
        self.changes: list[BreakerState] = []
        self.whys: list[str] = []

    def __call__(self, state: BreakerState, why: str) -> None:
        self.changes.append(state)
        self.whys.append(why)


def breaker(heard: Heard | None = None, chance: float = 0.5) -> Breaker:
    """Half a chance is the middle of the jitter."""
    return Breaker(heard or Heard(), RULES, lambda: chance)


def call(made: Breaker, now: float, *, fails: bool, given: bytes | None = None) -> bool:
    """Whether the call was made."""
    number = made.enter(now)
    if number is None:
        return False
    if fails:
        made.failed(number, now, given)
    else:
        made.succeeded(number, now)
    return True


def opened(now: float = 100.0, chance: float = 0.5, heard: Heard | None = None) -> Breaker:
    made = breaker(heard, chance)
    for _ in range(RULES.in_a_row):
        call(made, now, fails=True)
    return made


def test_five_failures_in_a_row_open_it_and_four_do_not() -> None:
    heard = Heard()
    made = breaker(heard)
    for _ in range(4):
        call(made, 100.0, fails=True)
    call(made, 100.0, fails=False)
    for _ in range(4):
        call(made, 100.0, fails=True)
    assert (made.state, heard.changes) == (CLOSED, [])
    call(made, 100.0, fails=True)
    assert (made.state, made.closed, heard.changes, heard.whys) == (OPEN, False, [OPEN], ["5 calls failed in a row"])
    assert not call(made, 100.0, fails=False)


def test_half_of_twenty_calls_within_ten_seconds_open_it() -> None:
    made = breaker()
    for number in range(19):
        call(made, 100.0 + 0.4 * number, fails=number % 2 == 1)
    assert made.state is CLOSED
    call(made, 108.0, fails=True)
    assert made.state is OPEN


def test_calls_older_than_ten_seconds_do_not_count() -> None:
    made = breaker()
    for number in range(19):
        call(made, 100.0, fails=number % 2 == 1)
    call(made, 111.0, fails=True)
    assert made.state is CLOSED
    for number in range(18):
        call(made, 111.0, fails=number % 2 == 1)
    assert made.state is CLOSED
    call(made, 111.0, fails=True)
    assert made.state is OPEN


def test_less_than_half_never_opens_it_however_many_calls() -> None:
    made = breaker()
    for number in range(3_000):
        assert call(made, 100.0 + number / 50, fails=number % 5 in {1, 3})
    assert made.state is CLOSED


@pytest.mark.parametrize(("chance", "open_s"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_it_stays_open_for_five_seconds_give_or_take_one(chance: float, open_s: float) -> None:
    made = opened(100.0, chance)
    assert made.wait_s(100.0) == pytest.approx(open_s)
    assert made.enter(100.0 + open_s - 0.01) is None
    assert made.enter(100.0 + open_s) is not None


def test_one_request_tries_a_half_open_version_and_its_answer_closes_it() -> None:
    heard = Heard()
    made = opened(heard=heard)
    probe = made.enter(105.0)
    assert probe is not None
    assert (made.state, made.enter(105.0), made.enter(200.0)) == (HALF_OPEN, None, None)
    made.succeeded(probe, 106.0)
    assert (made.state, made.wait_s(106.0), heard.changes) == (CLOSED, 0.0, [OPEN, HALF_OPEN, CLOSED])
    for _ in range(4):
        call(made, 106.0, fails=True)
    assert made.state is CLOSED, "it begins anew"


def test_a_failed_try_opens_it_for_its_whole_time_again() -> None:
    made = opened()
    assert call(made, 105.0, fails=True)
    assert (made.state, made.enter(109.9)) == (OPEN, None)
    assert made.enter(110.0) is not None


def test_a_try_that_was_given_up_lets_the_next_one_try() -> None:
    made = opened()
    probe = made.enter(105.0)
    assert probe is not None
    made.abandoned(probe)
    assert made.enter(105.0) is not None


def test_calls_of_an_earlier_state_say_nothing_of_the_present_one() -> None:
    made = breaker()
    before = made.enter(100.0)
    assert before is not None
    for _ in range(5):
        call(made, 100.0, fails=True)
    made.succeeded(before, 101.0)
    assert made.state is OPEN
    probe = made.enter(105.0)
    made.succeeded(before, 105.0)
    made.failed(before, 105.0)
    made.abandoned(before)
    assert (made.state, made.enter(105.0)) == (HALF_OPEN, None)
    assert probe is not None
    made.succeeded(probe, 105.0)
    assert made.state is CLOSED


def test_one_bad_input_sent_again_and_again_takes_the_version_from_nobody() -> None:
    made = breaker()
    for number in range(200):
        call(made, 100.0 + number / 100, fails=True, given=b"bad")
    assert made.state is CLOSED
    for number in range(4):
        call(made, 102.0, fails=True, given=bytes([number]))
    assert made.state is OPEN, "five inputs that fail are the version's doing"


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=200))
def test_whatever_happens_it_opens_only_for_cause_and_never_lets_two_try(calls: list[tuple[float, bool]]) -> None:
    heard = Heard()
    made, now, in_a_row, recent = breaker(heard), 50.0, 0, []
    for wait, fails in calls:
        now += wait
        state = made.state
        number = made.enter(now)
        if number is None:
            assert state is OPEN
            continue
        if state is not CLOSED:
            assert (made.state, made.enter(now)) == (HALF_OPEN, None)
            in_a_row, recent = 0, []
        elif fails:
            in_a_row, recent = in_a_row + 1, [*recent, (now, True)]
        else:
            in_a_row, recent = 0, [*recent, (now, False)]
        (made.failed if fails else made.succeeded)(number, now)
        window = [failed for at, failed in recent if now - at <= RULES.window_s]
        enough = len(window) >= RULES.least_calls and sum(window) >= RULES.failing_share * len(window) * 0.9
        if state is CLOSED and made.state is OPEN:
            assert fails
            assert in_a_row >= RULES.in_a_row or enough
            in_a_row, recent = 0, []
        assert in_a_row < RULES.in_a_row
    assert all(one is not other for one, other in zip(heard.changes, heard.changes[1:], strict=False))


@pytest.mark.parametrize(
    ("error", "had_s", "its_doing"),
    [
        (ModelFailed("raised", problems=[{"problem": "ESTIMATOR"}]), 10.0, True),
        (ModelFailed("NaN", problems=[{"problem": "BAD_OUTPUT"}]), 10.0, True),
        (ModelFailed("died", problems=[{"problem": "WORKER_DIED"}]), 10.0, True),
        (ModelFailed("did not load"), 10.0, True),
        (ModelFailed("known", problems=[{"problem": "QUARANTINED"}]), 10.0, False),
        (ModelFailed("text", problems=[{"problem": "ENCODING"}]), 10.0, False),
        (ModelUnavailable("could not be loaded"), 10.0, True),
        (DeadlineExceeded("late"), 10.0, True),
        (DeadlineExceeded("late"), 0.05, False),
        (NotAsked("not asked"), 10.0, False),
        (NotNow("being loaded"), 10.0, False),
        (NoRoom("full"), 10.0, False),
        (LeftAlone("open"), 10.0, False),
        (Unavailable("the host is away"), 10.0, False),
        (InvalidFeatures("a text"), 10.0, False),
        (RuntimeError("ours"), 10.0, False),
    ],
)
def test_what_is_the_versions_doing(error: Exception, had_s: float, its_doing: bool) -> None:
    assert is_versions_doing(error, had_s) is its_doing


class Counted:
    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def breaker(self, state: str, not_closed: int) -> None:
        self.said.append((state, not_closed))


def test_each_tenants_version_has_a_breaker_of_its_own_however_it_is_served() -> None:
    counted = Counted()
    breakers = Breakers(counted, LoopWatch(ManualClock()))
    native, compiled, other = compiled_route(None), compiled_route("0" * 64), compiled_route(None, 2)
    made = breakers.of(TENANT, native)
    assert breakers.of(TENANT, compiled) is made
    assert breakers.of(TENANT, other) is not made
    assert breakers.of(other.model_id, native) is not made
    for _ in range(5):
        call(made, 1.0, fails=True)
    assert (breakers.state(TENANT, native), breakers.state(TENANT, other)) == (OPEN, CLOSED)
    call(made, 60.0, fails=False)
    assert counted.said == [("OPEN", 1), ("HALF_OPEN", 1), ("CLOSED", 0)]
