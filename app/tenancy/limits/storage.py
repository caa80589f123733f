"""The `limits` library over our shared memory: a storage with a scheme of its own, and the strategy "gcra".

The library brings neither: its memory storage multiplies every limit by the number of processes, and its strategies either
let a double burst through at a window's border, charge for what they refuse, or store an entry for each unit of cost.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import quote, unquote

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import STRATEGIES, RateLimiter
from limits.util import WindowStats

from app.kernel.clock import Clock, SystemClock
from app.tenancy.limits.gcra import NS, decide, period_ns, units_left, wait_ns
from app.tenancy.limits.shared_memory import KEY_BYTES, SharedMemory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.tenancy.limits.shared_memory import Slot, Table

SCHEME = "turnout-shared"
STRATEGY = "gcra"
REQUESTS, COUNTERS, STRANGERS = "requests", "counters", "strangers"
# Strangers have a table of their own: whoever sends from a million addresses pushes out other strangers, never a tenant.
SLOTS = {REQUESTS: 131_072, COUNTERS: 131_072, STRANGERS: 65_536}
_REMEMBERED_KEYS = 10_000


def storage_uri(path: Path) -> str:
    """The URI by which `limits` and slowapi find the storage over the file at `path`."""
    return f"{SCHEME}://{quote(str(path.absolute()))}"


class Budget(RateLimitItemPerSecond):
    """`burst` units at once, `rate_per_s` of them regained a second. Its key leaves the numbers out, so that a tenant
    whose limits change keeps what it has used.
    """

    __slots__ = ("period_ns", "window_ns")

    def __init__(self, rate_per_s: int, burst: int, table: str = REQUESTS) -> None:
        super().__init__(burst, namespace=table)
        self.period_ns = period_ns(rate_per_s)
        self.window_ns = burst * self.period_ns

    def share_of(self, machines: int) -> Budget:
        """One machine's part where so many hold one budget and cannot ask each other; at least one unit at once."""
        share = Budget.__new__(Budget)
        RateLimitItemPerSecond.__init__(share, max(1, self.amount // machines), namespace=self.namespace)
        share.period_ns = self.period_ns * machines
        share.window_ns = share.amount * share.period_ns
        return share

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return f"{self.namespace}/{str(identifiers[0]) if len(identifiers) == 1 else '/'.join(map(str, identifiers))}"


class SharedMemoryStorage(Storage):
    """Budgets and counters of all processes of this machine."""

    STORAGE_SCHEME: ClassVar[list[str]] = [SCHEME]  # type: ignore[misc]  # the base declares an instance's

    def __init__(self, uri: str, wrap_exceptions: bool = False, clock: Clock | None = None, **_options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self.clock: Clock = clock or SystemClock()
        self.memory = SharedMemory(Path(unquote(uri.partition("://")[2])), SLOTS)
        self._keys: dict[str, bytes] = {}
        self._counters = self.memory.table(COUNTERS)

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return OSError

    def budget(self, name: str) -> Table:
        """The table of budgets of this name."""
        return self.memory.table(name if name == STRANGERS else REQUESTS)

    def key(self, text: str) -> bytes:
        """The 16 bytes under which `text` lies in a table."""
        key = self._keys.get(text)
        if key is None:
            if len(self._keys) >= _REMEMBERED_KEYS:
                self._keys.clear()
            key = self._keys[text] = blake2b(text.encode(), digest_size=KEY_BYTES).digest()
        return key

    def counter(self, text: str) -> Slot:
        """Where the counter of this name lies, for `add_under` and `tell`."""
        return self._counters.slot(self.key(text))

    def add_within(self, key: str, amount: int, limit: int, until_ms: int) -> tuple[bool, int]:
        """Adds `amount` to the counter where that keeps it within `limit`: (whether it did, the counter now).

        The counter begins anew after `until_ms` (Unix milliseconds). Whole or not at all, across processes.
        """
        return self.add_under(self.counter(key), amount, limit, self.clock.time_ms(), until_ms)

    def add_under(self, slot: Slot, amount: int, limit: int, now_ms: int, until_ms: int) -> tuple[bool, int]:
        """As `add_within`, of the counter in this slot, for who knows what time it is."""
        locked = self.memory.lock()
        try:
            before = slot.read(now_ms)
            total = before + amount
            if total > limit:
                return False, before
            slot.write(total, until_ms)
            return True, total
        finally:
            if locked:
                self.memory.unlock()

    def put(self, key: str, value: int, until_ms: int) -> int:
        """Sets the counter; returns what it was."""
        table, name = self.memory.table(COUNTERS), self.key(key)
        with self.memory:
            place, before, _ = table.find(name, self.clock.time_ms())
            table.write(place, name, value, until_ms)
        return before

    def tell(self, own: Slot, value: int, others: Iterable[Slot], most: int | None, until_ms: int) -> bool:
        """Sets its own counter where that and the `others` are together at most `most` (None: in any case); returns whether it did."""
        now = self.clock.time_ms()
        with self.memory:
            if most is not None and value + sum([other.read(now) for other in others]) > most:
                return False
            own.read(now)
            own.write(value, until_ms if value else 0)
        return True

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        table, name, now = self.memory.table(COUNTERS), self.key(key), self.clock.time_ms()
        with self.memory:
            place, total, until = table.find(name, now)
            table.write(place, name, total + amount, until or now + expiry * 1000)
        return total + amount

    def get(self, key: str) -> int:
        return self._counter(key)[0]

    def get_expiry(self, key: str) -> float:
        return (self._counter(key)[1] or self.clock.time_ms()) / 1000

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        with self.memory:
            for name in SLOTS:
                self.memory.table(name).reset()
        return None

    def clear(self, key: str) -> None:
        name = self.key(key)
        with self.memory:
            for table in map(self.memory.table, SLOTS):
                place, _, expiry = table.find(name, -1)
                if expiry:
                    table.write(place, name, 0, 0)

    def _counter(self, key: str) -> tuple[int, int]:
        table = self.memory.table(COUNTERS)
        with self.memory:
            _, total, until = table.find(self.key(key), self.clock.time_ms())
        return total, until


class Gcra(RateLimiter):
    """The strategy "gcra". `last_tat_ns` and `last_now_ns` tell what the latest `hit` saw: asking again would cost as much."""

    def __init__(self, storage: Any) -> None:
        if not isinstance(storage, SharedMemoryStorage):
            raise TypeError(f"the strategy {STRATEGY!r} needs a {SCHEME} storage")
        super().__init__(storage)
        self._shared, self._memory, self._clock = storage, storage.memory, storage.clock
        self.last_tat_ns = 0
        self.last_now_ns = 0

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        period, window = _shape(item)
        return self.take(self.slot(item, *identifiers), cost * period, window)

    def slot(self, item: RateLimitItem, *identifiers: str) -> Slot:
        """Where this budget lies, for `take`."""
        return self._shared.budget(item.namespace).slot(self._shared.key(item.key_for(*identifiers)))

    def take(self, slot: Slot, cost_ns: int, window_ns: int) -> bool:
        """As `hit`, of the budget in this slot."""
        now = int(self._clock.monotonic() * NS)
        locked = self._memory.lock()
        try:
            tat = slot.read(now)
            allowed, after = decide(tat, now, cost_ns, window_ns)
            if allowed or after < tat:  # a tat from beyond the window (the machine's clock began anew) is mended for good
                slot.write(after, after)
        finally:
            if locked:
                self._memory.unlock()
        self.last_tat_ns, self.last_now_ns = after, now
        return allowed

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        period, window = _shape(item)
        tat, now = self.look(item, *identifiers)
        return wait_ns(tat, now, cost * period, window) == 0

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        tat, now = self.look(item, *identifiers)
        return WindowStats(time.time() + max(0, tat - now) / NS, units_left(tat, now, *_shape(item)))

    def look(self, item: RateLimitItem, *identifiers: str) -> tuple[int, int]:
        """(tat, now) of a budget, in nanoseconds, without taking anything."""
        slot, now = self.slot(item, *identifiers), int(self._clock.monotonic() * NS)
        with self._memory:
            return slot.read(now), now


def _shape(item: RateLimitItem) -> tuple[int, int]:
    """(period, window) of any limit of the library, in nanoseconds."""
    if isinstance(item, Budget):
        return item.period_ns, item.window_ns
    period = period_ns(item.amount, item.get_expiry())
    return period, item.amount * period


cast("dict[str, Any]", STRATEGIES)[STRATEGY] = Gcra
