"""A database that does not answer is not asked by every call: who asked says so, and one attempt a second finds out when it is back."""

from __future__ import annotations

import asyncio
import itertools

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.db.breaker import OPENS_AFTER, PACE_S, DatabaseAway, DatabaseBreaker
from app.db.driver import unavailable
from app.errors import ConfigurationError, Unavailable
from tests.support.clock import ManualClock

pytestmark = pytest.mark.unit


def failure(cause: BaseException | None) -> Unavailable:
    error = unavailable()
    error.__cause__ = cause
    return error


def fail(breaker: DatabaseBreaker, cause: BaseException | None) -> None:
    with pytest.raises(Unavailable), breaker.watch():
        raise failure(cause)


async def refuse() -> None:
    raise failure(ConnectionRefusedError())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> DatabaseBreaker:
    return DatabaseBreaker(clock.monotonic)


def test_calls_that_find_nobody_open_it_and_the_next_one_is_told_at_once(breaker, clock):
    for _ in range(OPENS_AFTER - 1):
        fail(breaker, ConnectionRefusedError())
        assert not breaker.is_open
    fail(breaker, asyncpg.ConnectionDoesNotExistError("lost"))
    assert breaker.is_open
    clock.advance(4)
    assert breaker.open_for_s == 4
    with pytest.raises(DatabaseAway) as caught, breaker.watch():
        pytest.fail("it was asked")
    assert caught.value.details == {"retry_after_ms": 1000}
    assert caught.value.code == "UNAVAILABLE"


def test_one_call_that_waited_for_its_whole_time_opens_it(breaker):
    fail(breaker, TimeoutError())
    assert breaker.is_open


def test_an_answer_closes_it_and_forgets_what_failed_before(breaker):
    for _ in range(OPENS_AFTER - 1):
        fail(breaker, ConnectionRefusedError())
    with breaker.watch():
        pass
    fail(breaker, ConnectionRefusedError())
    assert not breaker.is_open
    fail(breaker, TimeoutError())
    breaker.answered()
    assert not breaker.is_open
    assert breaker.open_for_s == 0.0


@pytest.mark.parametrize(
    "spoken",
    [asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.TooManyConnectionsError, asyncpg.SerializationError, asyncpg.ReadOnlySQLTransactionError],
)  # fmt: skip
def test_what_the_server_refuses_for_the_statements_own_sake_says_nothing_about_it(breaker, spoken):
    for _ in range(5):
        fail(breaker, spoken("no"))
    fail(breaker, None)  # of something else than the database
    assert not breaker.is_open


async def test_one_that_was_not_asked_counts_for_nothing(breaker):
    fail(breaker, TimeoutError())
    breaker.answered()
    for _ in range(5):
        with pytest.raises(DatabaseAway), breaker.watch():
            raise DatabaseAway("told by another")
    assert not breaker.is_open


async def test_after_a_failure_one_connection_a_second_is_tried_however_many_ask(breaker, clock):
    tried = 0

    async def attempt() -> None:
        nonlocal tried
        tried += 1
        await refuse()

    for _ in range(1_000):
        with pytest.raises(Unavailable):
            await breaker.connect(attempt, probe=True)
        clock.advance(0.01)
    assert 8 <= tried <= 10


@given(st.lists(st.floats(min_value=0, max_value=3), min_size=1, max_size=60))
async def test_between_two_failed_attempts_lies_a_second(waits):
    clock, at = ManualClock(), []
    breaker = DatabaseBreaker(clock.monotonic)

    async def attempt() -> None:
        at.append(clock.monotonic())
        await refuse()

    for wait in waits:
        clock.advance(wait)
        with pytest.raises(Unavailable):
            await breaker.connect(attempt, probe=True)
    assert all(later - earlier >= PACE_S for earlier, later in itertools.pairwise(at))


async def test_who_gives_up_while_connecting_keeps_nobody_else_from_it(breaker, clock):
    connected = asyncio.Event()
    connected.set()
    given_up = asyncio.create_task(breaker.connect(asyncio.Event().wait))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert await breaker.connect(connected.wait) is True
    with pytest.raises(Unavailable):
        await breaker.connect(refuse)
    clock.advance(2)
    given_up = asyncio.create_task(breaker.connect(asyncio.Event().wait))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert await breaker.connect(connected.wait) is True


async def test_while_one_attempt_hangs_nobody_begins_another(breaker, clock):
    with pytest.raises(Unavailable):
        await breaker.connect(refuse, probe=True)
    clock.advance(2)
    hanging = asyncio.Event()
    first = asyncio.create_task(breaker.connect(hanging.wait, probe=True))
    await asyncio.sleep(0)
    with pytest.raises(DatabaseAway):
        await breaker.connect(refuse, probe=True)
    hanging.set()
    assert await first is True
    with pytest.raises(Unavailable) as caught:  # one that was made ends the waiting
        await breaker.connect(refuse)
    assert not isinstance(caught.value, DatabaseAway)


async def test_while_it_is_open_only_a_probe_may_connect(breaker, clock):
    fail(breaker, TimeoutError())
    with pytest.raises(DatabaseAway):
        await breaker.connect(refuse)

    async def made() -> str:
        return "a connection"

    assert await breaker.connect(made, probe=True) == "a connection"
    assert breaker.is_open  # a connection is no answer yet


async def test_a_refused_login_is_not_tried_again_by_each_call(breaker, clock):
    async def refused() -> None:
        raise ConfigurationError("wrong password")

    with pytest.raises(ConfigurationError):
        await breaker.connect(refused)
    with pytest.raises(DatabaseAway):
        await breaker.connect(refused)
    assert not breaker.is_open


async def test_who_waits_long_is_told_as_soon_as_somebody_finds_nobody(breaker):
    async def long_query() -> None:
        async with breaker.while_it_answers():
            await asyncio.Event().wait()

    waiting = asyncio.create_task(long_query())
    await asyncio.sleep(0)
    fail(breaker, TimeoutError())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting, 5)
    assert not breaker._waiting
