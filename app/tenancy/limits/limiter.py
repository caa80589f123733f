"""How much a tenant may ask: requests by the second, rows by the day, and how often a stranger may fail.

slowapi holds the strategy and the storage; its middleware and decorators are not used, because they run after parsing, skip
a limit whose key is empty and answer in their own words.
"""

from __future__ import annotations

import math
import os
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, cast

from slowapi import Limiter

from app.errors import QuotaExceeded
from app.tenancy.limits.gcra import NS, units_left, wait_ns
from app.tenancy.limits.storage import STRANGERS, STRATEGY, Budget, SharedMemoryStorage, storage_uri
from app.tenancy.types import QuotaState

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from app.kernel.clock import Clock
    from app.tenancy.limits.shared_memory import Slot
    from app.tenancy.limits.storage import Gcra
    from app.tenancy.types import TenantLimits

T = TypeVar("T")
FAILURES_PER_SECOND = 20
FAILURES_AT_ONCE = 200
_DAY_MS = 86_400_000
_ANY = 2**62
_FAILURES = Budget(FAILURES_PER_SECOND, FAILURES_AT_ONCE, STRANGERS)


class Decision(NamedTuple):  # made on every request: a third of a frozen dataclass's cost
    """What a budget said. `limit` and `remaining` are in the budget's units, as the RateLimit header fields want them."""

    allowed: bool
    limit: int
    remaining: int
    retry_after_ms: int | None  # 0 where allowed; None: it will never fit, however long one waits
    reset_s: int  # until the budget is full again


class CountKeys(NamedTuple):
    """Where a process tells a count, and where the others do."""

    own: Slot
    others: tuple[Slot, ...]


class _TenantBudget(NamedTuple):
    """A tenant's budget by its limits, and where it lies."""

    limits: TenantLimits
    budget: Budget
    slot: Slot


class RateLimiter:
    """The budgets of this machine, shared by all its processes through TURNOUT_HOME/limits.bin; one a process, its loop's alone."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Config file")  # that there is none is the point
            self._limiter = _Limiter(
                key_func=_by_decorator,
                strategy=STRATEGY,
                storage_uri=storage_uri(path),
                storage_options=cast("dict[str, str]", {"clock": clock}),  # handed on to the storage as it is
                config_filename=os.devnull,
            )
        self._gcra = cast("Gcra", self._limiter.limiter)
        self._storage = cast("SharedMemoryStorage", self._gcra.storage)
        self._budgets: dict[UUID, _TenantBudget] = {}
        self._rows: dict[UUID, tuple[int, Slot]] = {}  # of the day that was asked for last

    def take(self, tenant_id: UUID, limits: TenantLimits, cost: int = 1, machines: int = 1) -> Decision:
        """Takes `cost` requests (0 or more) out of the tenant's budget where they fit; a refusal takes nothing. Under 6 µs.

        Out of this machine's share of it where `machines` hold it together and cannot ask each other.
        """
        if cost < 0:
            raise ValueError("a cost is never negative")
        known = self._budgets.get(tenant_id)
        if known is None or known.limits is not limits:
            known = self._budget(tenant_id, limits)
        budget = known.budget if machines == 1 else known.budget.share_of(machines)
        # As the strategy's `hit`, whose words for the budget and its place are made once and not for each request.
        gcra, period_ns, window_ns = self._gcra, budget.period_ns, budget.window_ns
        if not gcra.take(known.slot, cost * period_ns, window_ns):
            return _decision(False, budget, cost, gcra.last_tat_ns, gcra.last_now_ns)
        ahead_ns = gcra.last_tat_ns - gcra.last_now_ns
        return Decision(True, budget.amount, (window_ns - ahead_ns) // period_ns, 0, -(-ahead_ns // NS))

    def give_back(self, tenant_id: UUID, limits: TenantLimits, cost: int) -> None:
        """Undoes a `take` that was allowed here and refused elsewhere."""
        _, budget, slot = self._budget(tenant_id, limits)
        self._gcra.take(slot, -cost * budget.period_ns, budget.window_ns)

    def shape(self, tenant_id: UUID, limits: TenantLimits) -> tuple[float, float]:
        """Of the tenant's budget: microseconds a request, and of the whole burst."""
        budget = self._budget(tenant_id, limits).budget
        return budget.period_ns / 1000, budget.window_ns / 1000

    def take_rows(self, tenant_id: UUID, limits: TenantLimits, rows: int) -> Decision:
        """Counts `rows` (0 or more) into the tenant's UTC day where they fit; a refusal counts nothing."""
        added, total = self._add_rows(tenant_id, limits, rows)
        return self._of_rows(limits, rows, added, total)

    def _add_rows(self, tenant_id: UUID, limits: TenantLimits, rows: int) -> tuple[bool, int]:
        """Whether they fit, and the rows of today now."""
        if rows < 0:
            raise ValueError("rows are never negative")
        now_ms = self._clock.time_ms()
        day = now_ms // _DAY_MS
        known = self._rows.get(tenant_id)
        if known is None or known[0] != day:
            known = self._rows[tenant_id] = (day, self._storage.counter(_rows_key(tenant_id, day)))
        return self._storage.add_under(known[1], rows, limits.rows_per_day, now_ms, (day + 1) * _DAY_MS)

    def give_back_rows(self, tenant_id: UUID, rows: int) -> None:
        """Undoes a `take_rows` that was allowed here and refused elsewhere."""
        day, until_ms = self._today()
        self._storage.add_within(_rows_key(tenant_id, day), -rows, _ANY, until_ms)

    def take_rows_alone(self, tenant_id: UUID, limits: TenantLimits, rows: int, machines: int) -> Decision:
        """Counts `rows` where the other machines cannot be asked: within this machine's share of what was left when they last could."""
        day, until_ms = self._today()
        heard = self._storage.get(_heard_key(tenant_id, day))
        share = max(0, limits.rows_per_day - heard) // machines
        added, total = self._storage.add_within(_alone_key(tenant_id, day), rows, share, until_ms)
        return self._of_rows(limits, rows, added, limits.rows_per_day - share + total)

    def rows_alone(self, tenant_id: UUID) -> int:
        """The rows that were counted alone today and that nobody else knows of; they are the caller's now, to tell or to put back."""
        day, until_ms = self._today()
        key = _alone_key(tenant_id, day)
        return self._storage.put(key, 0, until_ms) if self._storage.get(key) else 0

    def put_back_alone(self, tenant_id: UUID, rows: int) -> None:
        """What `rows_alone` gave and could not be told."""
        day, until_ms = self._today()
        if rows:
            self._storage.add_within(_alone_key(tenant_id, day), rows, _ANY, until_ms)

    def hear_rows(self, tenant_id: UUID, limits: TenantLimits, rows: int, fits: bool, total: int) -> Decision:
        """Takes note of all machines' rows today, and tells what that means for these."""
        day, until_ms = self._today()
        self._storage.put(_heard_key(tenant_id, day), total, until_ms)
        return self._of_rows(limits, rows, fits, total)

    def until_tomorrow_ms(self) -> int:
        """How long today's counters are of use."""
        return self._today()[1] - self._clock.time_ms()

    def day_key(self, tenant_id: UUID) -> str:
        """The name of the tenant's rows of today, the same on every machine."""
        return _rows_key(tenant_id, self._today()[0])

    def _of_rows(self, limits: TenantLimits, rows: int, fits: bool, total: int) -> Decision:
        left_ms = self.until_tomorrow_ms()
        wait_ms = 0 if fits else left_ms if rows <= limits.rows_per_day else None
        return Decision(fits, limits.rows_per_day, max(0, limits.rows_per_day - total), wait_ms, math.ceil(left_ms / 1000))

    def charge_rows(self, tenant_id: UUID, limits: TenantLimits, rows: int) -> None:
        """As `take_rows`; raises QuotaExceeded that says what is left and when the day begins anew."""
        added, total = self._add_rows(tenant_id, limits, rows)
        if not added:
            require_rows(self._of_rows(limits, rows, added, total), rows)

    @property
    def ahead_us(self) -> float:
        """Microseconds until the budget that was asked last is full again."""
        return max(0, self._gcra.last_tat_ns - self._gcra.last_now_ns) / 1000

    def peek(self, tenant_id: UUID, limits: TenantLimits, at_most: int | None = None) -> QuotaState:
        """What is left of the tenant's requests (of which somebody may know that there are `at_most` so many) and rows."""
        budget = self._budget(tenant_id, limits).budget
        tat, now = self._gcra.look(budget, str(tenant_id))
        left = units_left(tat, now, budget.period_ns, budget.window_ns)
        day, until_ms = self._today()
        # What all machines used, where they were heard of, is no less than what this one did.
        heard = self._storage.get(_heard_key(tenant_id, day)) + self._storage.get(_alone_key(tenant_id, day))
        used = max(self._storage.get(_rows_key(tenant_id, day)), heard)
        return QuotaState(
            requests_available=left if at_most is None else min(left, at_most),
            rows_left_today=max(0, limits.rows_per_day - used),
            resets_at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=until_ms),
        )

    def may_try(self, address: str) -> Decision:
        """Whether a caller from this address may present a token that nobody knows yet; takes nothing."""
        tat, now = self._gcra.look(_FAILURES, _network(address))
        allowed = wait_ns(tat, now, _FAILURES.period_ns, _FAILURES.window_ns) == 0
        return _decision(allowed, _FAILURES, 1, tat, now)

    def take_failure(self, address: str) -> Decision:
        """Counts one failed authentication of this address (of its /64 network, for IPv6)."""
        allowed = self._limiter.limiter.hit(_FAILURES, _network(address), cost=1)
        return _decision(allowed, _FAILURES, 1, self._gcra.last_tat_ns, self._gcra.last_now_ns)

    def count_keys(self, tenant_id: UUID, slot: int, slots: int) -> CountKeys:
        """Where the serving process in `slot` of so many tells its count of this tenant, and where the others tell theirs."""
        keys = [self._storage.counter(f"under-way/{tenant_id}/{each}") for each in range(slots)]
        return CountKeys(keys.pop(slot), tuple(keys))

    def tell_count(self, keys: CountKeys, count: int, most: int | None, for_ms: int) -> bool:
        """Tells the other serving processes how many predictions this one has under way; False, and nothing told, beyond `most`."""
        return self._storage.tell(keys.own, count, keys.others, most, self._clock.time_ms() + for_ms)

    def close(self) -> None:
        self._storage.memory.close()

    def _budget(self, tenant_id: UUID, limits: TenantLimits) -> _TenantBudget:
        known = self._budgets.get(tenant_id)
        if known is None or known.limits is not limits:
            budget = Budget(limits.requests_per_second, limits.burst)
            known = self._budgets[tenant_id] = _TenantBudget(limits, budget, self._gcra.slot(budget, str(tenant_id)))
        return known

    def _today(self) -> tuple[int, int]:
        """The UTC day as a number, and the Unix millisecond at which it ends."""
        day = self._clock.time_ms() // _DAY_MS
        return day, (day + 1) * _DAY_MS


class _Limiter(Limiter):
    def get_app_config(self, key: str, default_value: T = None) -> T:  # type: ignore[assignment]  # noqa: ARG002  slowapi's signature
        """Nothing but its arguments configures the limiter: slowapi would take RATELIMIT_ENABLED from a `.env` or the environment."""
        return default_value


def require_rows(decision: Decision, rows: int) -> None:
    """Raises QuotaExceeded where `rows` were refused; it says what is left and when the day begins anew."""
    if decision.allowed:
        return
    text = f"This needs {rows} rows of the day's {decision.limit}, of which {decision.remaining} are left"
    if decision.retry_after_ms is None:
        raise QuotaExceeded(f"{text}: so many never fit into a day.")
    raise QuotaExceeded(f"{text} until midnight UTC.", retry_after_ms=decision.retry_after_ms)


def _decision(allowed: bool, budget: Budget, cost: int, tat: int, now: int) -> Decision:
    wait: int | None = 0
    if not allowed:
        wait = wait_ns(tat, now, cost * budget.period_ns, budget.window_ns)
    return Decision(
        allowed,
        budget.amount,
        units_left(tat, now, budget.period_ns, budget.window_ns),
        None if wait is None else -(-wait // 1_000_000),
        -(-max(0, tat - now) // NS),
    )


def _rows_key(tenant_id: UUID, day: int) -> str:
    return f"rows/{tenant_id}/{day}"


def _heard_key(tenant_id: UUID, day: int) -> str:
    return f"heard/{tenant_id}/{day}"


def _alone_key(tenant_id: UUID, day: int) -> str:
    return f"alone/{tenant_id}/{day}"


def _network(address: str) -> str:
    """The address as one caller: a home or a phone has a whole /64 of IPv6, so a single address of it says nothing."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")
    return str(parsed)


def _by_decorator(*_: Any) -> NoReturn:
    raise TypeError("budgets are taken by RateLimiter, never by slowapi's decorators")
