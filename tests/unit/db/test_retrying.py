"""Once more, where that is no harm: each try in the log, and no more of them than the budget allows."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from app.db.breaker import away
from app.db.driver import unavailable
from app.db.retrying import RetryBudget, is_unavailable, retried
from app.errors import LogUnavailable, NotFound, Unavailable

pytestmark = pytest.mark.unit


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures, self.error, self.calls = failures, error or unavailable(), 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "answered"


async def test_what_fails_once_is_tried_again_and_the_try_is_in_the_log():
    flaky = Flaky(1)
    with capture_logs() as logs:
        assert await retried("read a thing", flaky, when=is_unavailable, budget=RetryBudget()) == "answered"
    assert flaky.calls == 2
    ((event),) = logs
    assert {key: event[key] for key in ("event", "what", "retry", "why")} == {
        "event": "retry_scheduled", "what": "read a thing", "retry": 1, "why": "Unavailable"}  # fmt: skip
    assert 0.02 <= event["wait_s"] <= 0.08


async def test_the_last_failure_is_the_callers():
    flaky = Flaky(9)
    with pytest.raises(Unavailable):
        await retried("x", flaky, when=is_unavailable, attempts=3, budget=RetryBudget())
    assert flaky.calls == 3


@pytest.mark.parametrize("error", [NotFound("no"), LogUnavailable("full"), away()])
async def test_what_the_same_call_would_meet_again_is_not_tried_again(error):
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        await retried("x", flaky, when=is_unavailable, budget=RetryBudget())
    assert flaky.calls == 1


async def test_where_everything_fails_a_fifth_more_is_asked_and_not_twice_as_much():
    budget, calls = RetryBudget(), 0
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]  # what a quiet time had saved

    async def fails() -> None:
        nonlocal calls
        calls += 1
        raise unavailable()

    with capture_logs() as logs:
        for _ in range(50):
            with pytest.raises(Unavailable):
                await retried("x", fails, when=is_unavailable, budget=budget)
    assert 58 <= calls <= 60
    assert sum(event["event"] == "retry_refused" for event in logs) == 100 - calls
