"""Budgets of several machines over a real Valkey: two RateLimiters with a file each stand for two machines."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from app.errors import QuotaExceeded
from app.kernel.clock import SystemClock
from app.tenancy.limits import shared_store
from app.tenancy.limits.budgets import Budgets, Machines
from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.limits.shared_store import FAILURES, SharedStore
from app.tenancy.types import TenantLimits
from tests.support.valkey import own_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.valkey import Valkey

pytestmark = pytest.mark.integration

TENANT = UUID(int=7)
UNIT = 10_000  # requests that are taken as one: it takes hours to regain them, so nothing is regained during a test
SLOW = TenantLimits(requests_per_second=1, burst=10 * UNIT, rows_per_day=100)


class Telemetry:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def shared_limit(self, outcome: str, count: int = 1) -> None:
        self.outcomes += [outcome] * count


class Machine:
    def __init__(self, path: Path, url: str, machines: int) -> None:
        self.limiter, self.telemetry = RateLimiter(path, SystemClock()), Telemetry()
        self.store = SharedStore(url, SystemClock(), self.telemetry)
        counted = Machines()
        counted.count = machines
        self.budgets = Budgets(self.limiter, self.store, counted)

    async def accepts(self, limits: TenantLimits = SLOW, cost: int = 1, tenant: UUID = TENANT) -> bool:
        here = self.budgets.take(tenant, limits, cost * UNIT)
        if not here.allowed:
            return False
        shared = self.budgets.shared(tenant, limits, cost * UNIT, here)
        return here.allowed if shared is None else (await shared.decision()).allowed

    async def count(self, tries: int, limits: TenantLimits = SLOW) -> int:
        return sum([await self.accepts(limits) for _ in range(tries)])

    async def takes_rows(self, rows: int, limits: TenantLimits = SLOW) -> bool:
        try:
            await self.budgets.charge_rows(TENANT, limits, rows)
        except QuotaExceeded:
            return False
        return True


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets for how long an answer of the store is waited for: long enough for a crowded machine, unless a test makes it short."""
    monkeypatch.setattr(shared_store, "_SOCKET_S", 20.0)

    def wait(seconds: float) -> None:
        monkeypatch.setattr(shared_store, "PATIENCE_S", seconds)
        monkeypatch.setattr(shared_store, "_GRACE_S", seconds / 2)

    wait(10.0)
    return wait


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with own_valkey() as server:
        yield server


@asynccontextmanager
async def machines(folder: Path, url: str, count: int = 2) -> AsyncIterator[list[Machine]]:
    made = [Machine(folder / f"limits-{number}.bin", url, count) for number in range(count)]
    tasks = [asyncio.create_task(machine.store.run()) for machine in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for machine in made:
            machine.limiter.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.005)


async def ready(both: list[Machine]) -> None:
    await until(lambda: all(machine.store.ready for machine in both))


async def test_what_a_burst_lets_through_is_the_limit_and_not_each_machines(valkey: Valkey, tmp_path: Path) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        assert (await one.count(6), await other.count(9)) == (6, 4)


async def test_tenants_do_not_share_a_budget(valkey: Valkey, tmp_path: Path) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        assert await one.count(20) == 10
        assert await other.accepts(tenant=UUID(int=8))


async def test_a_refusal_says_when_to_come_back_and_costs_nothing_anywhere(valkey: Valkey, tmp_path: Path) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        assert await one.accepts(cost=8)
        here = other.budgets.take(TENANT, SLOW, 5 * UNIT)
        shared = other.budgets.shared(TENANT, SLOW, 5 * UNIT, here)
        assert here.allowed
        assert shared is not None
        refused = await shared.decision()
        assert (refused.allowed, refused.limit, refused.remaining // UNIT) == (False, 10 * UNIT, 2)
        assert 2_990 * UNIT < (refused.retry_after_ms or 0) <= 3_000 * UNIT
        assert other.limiter.peek(TENANT, SLOW).requests_available == 10 * UNIT
        assert other.budgets.peek(TENANT, SLOW).requests_available // UNIT == 2
        assert await other.accepts(cost=2)


async def test_many_at_once_are_asked_together_and_counted_one_by_one(valkey: Valkey, tmp_path: Path) -> None:
    limits = TenantLimits(requests_per_second=1, burst=60 * UNIT)
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        accepted = await asyncio.gather(*(machine.accepts(limits) for machine in (one, other) for _ in range(40)))
        assert sum(accepted) == 60


async def test_a_dead_store_leaves_each_machine_its_share_at_once_and_nobody_an_error(valkey: Valkey, tmp_path: Path) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        valkey.kill()
        assert await asyncio.gather(one.accepts(), other.accepts()) == [True, True]
        await until(lambda: not one.store.ready and not other.store.ready)
        assert (await one.count(20), await other.count(20)) == (4, 4)
        assert one.telemetry.outcomes.count("late") <= 1
        valkey.start()
        await ready([one, other])
        assert await one.count(5) + await other.count(5) == 0  # a store that forgot is told by those who remember


async def test_a_frozen_store_is_waited_for_once_and_then_not_at_all(
    valkey: Valkey, tmp_path: Path, patience: Callable[[float], None]
) -> None:
    limits = TenantLimits(requests_per_second=10, burst=1_000 * UNIT)
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        valkey.freeze()
        patience(0.5)
        assert all(await asyncio.gather(*(one.accepts(limits) for _ in range(50))))
        assert one.telemetry.outcomes == ["late"] * 50
        await until(lambda: not one.store.ready)  # a moment after the first who waited
        assert await one.count(50, limits) == 50
        assert one.telemetry.outcomes[50:] == []  # nobody was asked, so nobody waited
        patience(10.0)
        valkey.thaw()
        await ready([one])
        assert await one.accepts(limits)
        assert one.telemetry.outcomes[50:] == ["answered"]


async def test_a_store_that_fails_five_times_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async with machines(tmp_path, "redis://127.0.0.1:1/0", 1) as (alone,):
        await until(lambda: alone.store.state().failures == FAILURES)
        assert alone.store.state().ready is False
        assert await alone.count(20) == 10


async def test_rows_of_a_day_are_counted_over_all_machines(valkey: Valkey, tmp_path: Path) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        assert [await one.takes_rows(60), await other.takes_rows(41), await other.takes_rows(40), await one.takes_rows(1)] == [
            True,
            False,
            True,
            False,
        ]
        assert one.budgets.peek(TENANT, SLOW).rows_left_today == 0


async def test_rows_counted_while_the_store_was_away_are_told_when_it_is_back(
    valkey: Valkey, tmp_path: Path, patience: Callable[[float], None]
) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        assert await one.takes_rows(20)
        valkey.freeze()
        patience(0.5)
        await one.accepts()
        await other.accepts()
        await until(lambda: not one.store.ready and not other.store.ready)
        assert [await one.takes_rows(40), await one.takes_rows(1)] == [True, False]  # half of the 80 that were left
        patience(10.0)
        valkey.thaw()
        await ready([one, other])
        assert await one.takes_rows(0)
        assert [await other.takes_rows(41), await other.takes_rows(40)] == [False, True]


async def test_a_store_whose_scripts_were_flushed_goes_on(valkey: Valkey, tmp_path: Path) -> None:
    async with machines(tmp_path, valkey.url) as (one, other):
        await ready([one, other])
        await one.accepts()
        _, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        writer.write(b"SCRIPT FLUSH\r\n")
        await writer.drain()
        writer.close()
        await one.count(2)
        assert await one.count(20) + 3 == 10
        assert set(one.telemetry.outcomes) == {"answered"}
