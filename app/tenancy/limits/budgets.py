"""A tenant's budgets over all machines: this one's memory is asked first and refuses most, then the store that they share.

Where that is slow or gone, this machine holds its share: the limit divided by the machines that live. Nothing here raises or waits
for more than the store's patience, and without a store nothing waits at all.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Protocol

import structlog

from app.tenancy.limits.limiter import Decision, require_rows
from app.tenancy.limits.questions import Question

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from app.tenancy.limits.limiter import RateLimiter
    from app.tenancy.limits.questions import Answer, StoreState
    from app.tenancy.limits.shared_store import SharedStore
    from app.tenancy.types import QuotaState, TenantLimits

COUNT_EVERY_S = 2.0
_PREFIX = "turnout:limits:"
log = structlog.get_logger()


class Said(Protocol):
    """A Decision, as whoever passes it on knows it."""

    @property
    def allowed(self) -> bool: ...
    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def reset_s(self) -> float: ...


class Machines:
    """How many machines live and hold the limits together; 1 until somebody has counted, and the last count while nobody can."""

    def __init__(self, ask: Callable[[], Awaitable[int]] | None = None) -> None:
        self._ask = ask
        self.count = 1

    async def run(self) -> None:
        """Counts every other second, until cancelled."""
        while self._ask is not None:
            try:
                async with asyncio.timeout(COUNT_EVERY_S):
                    self.count = max(1, await self._ask())
            except Exception as error:  # noqa: BLE001  whatever the database does, the last count stands
                log.debug("machines_not_counted", error=type(error).__name__)
            await asyncio.sleep(COUNT_EVERY_S)


class Budgets:
    """One a serving process, its loop's alone. `store` None: each machine holds the whole limit."""

    def __init__(self, limiter: RateLimiter, store: SharedStore | None = None, machines: Machines | None = None) -> None:
        self.limiter, self._store = limiter, store  # `limiter`: this machine's budgets, which are all there is without a store
        self.asks_others = store is not None  # whether there is a store at all
        self._machines = machines or Machines()
        self._told: dict[UUID, int] = {}  # which time of the store's coming back it was told what this machine had taken
        self._heard: dict[UUID, int] = {}  # requests that all machines had left, as of the last answer

    def take(self, tenant_id: UUID, limits: TenantLimits, cost: int) -> Decision:
        """Takes `cost` requests out of this machine's budget, or its share of it; at once. A refusal takes nothing."""
        alone = self._store is not None and not self._store.ready
        return self.limiter.take(tenant_id, limits, cost, self._machines.count if alone else 1)

    def shared(self, tenant_id: UUID, limits: TenantLimits, cost: int, here: Said) -> SharedTake | None:
        """Begins to take out of all machines' budget what `take` just allowed `here`; None where nobody is to be asked."""
        if self._store is None or not self._store.ready:
            return None
        period_us, window_us = self.limiter.shape(tenant_id, limits)
        used_us = 0.0
        if self._told.get(tenant_id, 1) != self._store.times_ready:
            # Once, and not with each question: requests under way are in this machine's budget already, and will ask for themselves.
            self._told[tenant_id] = self._store.times_ready
            used_us = max(0.0, self.limiter.ahead_us - cost * period_us)
        asked = self._store.ask(Question(f"{_PREFIX}{tenant_id}", "r", period_us, window_us, cost, used_us))
        return None if asked is None else SharedTake(self, tenant_id, limits, cost, here, asked)

    def settled(self, tenant_id: UUID, limits: TenantLimits, cost: int, here: Said, answer: Answer | None) -> Decision:
        """What the store's answer to `shared` means; None: it was late."""
        if answer is None:
            self._heard.pop(tenant_id, None)
            machines = self._machines.count
            if machines == 1:
                return Decision(here.allowed, here.limit, here.remaining, 0, math.ceil(here.reset_s))
            self.limiter.give_back(tenant_id, limits, cost)
            return self.limiter.take(tenant_id, limits, cost, machines)
        period_us, window_us = self.limiter.shape(tenant_id, limits)
        left = max(0, int((window_us - answer.value) // period_us))
        self._heard[tenant_id] = left
        reset_s = math.ceil(answer.value / 1e6)
        if answer.fits:
            return Decision(True, here.limit, min(here.remaining, left), 0, max(math.ceil(here.reset_s), reset_s))
        self.limiter.give_back(tenant_id, limits, cost)
        wait_us = answer.value + cost * period_us - window_us
        wait_ms = None if cost * period_us > window_us else max(1, math.ceil(wait_us / 1000))
        return Decision(False, here.limit, left, wait_ms, reset_s)

    async def charge_rows(self, tenant_id: UUID, limits: TenantLimits, rows: int) -> None:
        """Counts `rows` into the tenant's UTC day, of all machines; raises QuotaExceeded, and then nothing is counted."""
        if self._store is None:
            self.limiter.charge_rows(tenant_id, limits, rows)
            return
        require_rows(self.limiter.take_rows(tenant_id, limits, rows), rows)
        try:
            decision = await self._shared_rows(self._store, tenant_id, limits, rows)
        except BaseException:
            self.limiter.give_back_rows(tenant_id, rows)
            raise
        if not decision.allowed:
            self.limiter.give_back_rows(tenant_id, rows)
        require_rows(decision, rows)

    @property
    def machines(self) -> int:
        """How many machines hold the limits together, as far as is known."""
        return self._machines.count

    def state(self) -> StoreState | None:
        """How it is with the shared store; None where there is none."""
        return None if self._store is None else self._store.state()

    async def run(self) -> None:
        """Keeps the store's connection and counts the machines, until cancelled; ends at once where there is no store."""
        if self._store is not None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._store.run())
                tasks.create_task(self._machines.run())

    def peek(self, tenant_id: UUID, limits: TenantLimits) -> QuotaState:
        """What is left, as this machine knows it; of requests also as all machines did when the store was asked last."""
        return self.limiter.peek(tenant_id, limits, self._heard.get(tenant_id))

    async def _shared_rows(self, store: SharedStore, tenant_id: UUID, limits: TenantLimits, rows: int) -> Decision:
        limiter = self.limiter
        if store.ready:
            alone = limiter.rows_alone(tenant_id)
            name = f"{_PREFIX}{limiter.day_key(tenant_id)}"
            asked = store.ask(Question(name, "c", limits.rows_per_day, limiter.until_tomorrow_ms(), rows, alone))
            answer = None
            try:
                answer = None if asked is None else await asked
            finally:
                if answer is None:
                    limiter.put_back_alone(tenant_id, alone)
            if answer is not None:
                return limiter.hear_rows(tenant_id, limits, rows, answer.fits, answer.value)
        return limiter.take_rows_alone(tenant_id, limits, rows, self._machines.count)


class SharedTake:
    """What was asked of the store, until it is waited for; may be dropped."""

    __slots__ = ("_answer", "_budgets", "_cost", "_here", "_limits", "_tenant_id")

    def __init__(
        self,
        budgets: Budgets,
        tenant_id: UUID,
        limits: TenantLimits,
        cost: int,
        here: Said,
        answer: asyncio.Future[Answer | None],
    ) -> None:
        self._budgets, self._tenant_id, self._limits, self._cost, self._here = budgets, tenant_id, limits, cost, here
        self._answer = answer

    async def decision(self) -> Decision:
        """What all machines' budget said, or this machine's share of it where the store did not answer in 30 ms."""
        return self._budgets.settled(self._tenant_id, self._limits, self._cost, self._here, await self._answer)
