"""Bounds that keep one tenant's work from taking what all tenants need: threads, and calls of estimators at once."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict, deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from app.kernel.ranks import LONG_WORK

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")
THREADS, THREADS_EACH = 4, 2  # more would only share the same cores; no tenant has them all


def calls_each() -> int:
    """How many estimators of one tenant a serving process calls at once: half the cores, and two at the least."""
    return max(2, (os.cpu_count() or 1) // 2)


class TenantThreads:
    """Threads beside the event loop. Who waits is served in turn, tenant by tenant, and none has more than `each` of them at once."""

    def __init__(self, threads: int = THREADS, each: int = THREADS_EACH) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batch", initializer=_go_behind)
        self._free, self._each = threads, each
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Hashable, deque[_Job]] = OrderedDict()  # whose turn it is next goes first
        self._running: dict[Hashable, int] = {}

    def of(self, tenant: Hashable) -> Executor:
        """The tenant's lane."""
        return _Lane(self, tenant)

    def close(self) -> None:
        """Waits for nothing that still runs; what has not begun is cancelled."""
        with self._lock:
            waiting, self._waiting = self._waiting, OrderedDict()
        for jobs in waiting.values():
            for job in jobs:
                job.future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, tenant: Hashable, job: _Job) -> None:
        with self._lock:
            self._waiting.setdefault(tenant, deque()).append(job)
        self._begin()

    def _begin(self) -> None:
        while (job := self._next()) is not None:
            self._pool.submit(self._run, *job)

    def _next(self) -> tuple[Hashable, _Job] | None:
        """A job that may run now; its place is taken."""
        with self._lock:
            if not self._free:
                return None
            for tenant in list(self._waiting):
                if self._running.get(tenant, 0) >= self._each:
                    continue
                jobs = self._waiting[tenant]
                while jobs:
                    job = jobs.popleft()
                    if not job.future.set_running_or_notify_cancel():
                        continue
                    self._waiting.move_to_end(tenant)
                    if not jobs:
                        del self._waiting[tenant]
                    self._free -= 1
                    self._running[tenant] = self._running.get(tenant, 0) + 1
                    return tenant, job
                del self._waiting[tenant]
        return None

    def _run(self, tenant: Hashable, job: _Job) -> None:
        job.run()
        with self._lock:
            self._free += 1
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
        self._begin()


def _go_behind() -> None:
    """The calling thread's rank, where threads have one of their own: the event loop gets its core back when it has something to do."""
    if sys.platform == "linux":
        os.nice(LONG_WORK)


class _Job:
    __slots__ = ("arguments", "future", "work")

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.work, self.arguments = work, arguments
        self.future: Future[Any] = Future()

    def run(self) -> None:
        try:
            self.future.set_result(self.work(*self.arguments))
        except BaseException as error:  # noqa: BLE001  as an executor does: whoever waits gets it
            self.future.set_exception(error)


class _Lane(Executor):
    def __init__(self, threads: TenantThreads, tenant: Hashable) -> None:
        self._threads, self._tenant = threads, tenant

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As an executor's; keyword arguments are not taken."""
        if kwargs:
            raise TypeError("work in a tenant's lane takes positional arguments")
        job = _Job(fn, args)
        self._threads.add(self._tenant, job)
        return job.future


class Gate:
    """Lets `most` pass at once; the others are called, in the order in which they came, when it is their turn. In one event loop."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: OrderedDict[Callable[[], None], None] = OrderedDict()
        self._granted: set[Callable[[], None]] = set()

    def enter(self, again: Callable[[], None]) -> bool:
        """Whether the caller may pass now; if not, `again` is called when it may, and enters then."""
        if again in self._granted:
            self._granted.discard(again)
            return True
        if self._free:
            self._free -= 1
            return True
        self._waiting[again] = None
        return False

    def leave(self) -> None:
        """One that passed is done: its place goes to who waited longest."""
        if not self._waiting:
            self._free += 1
            return
        again, _ = self._waiting.popitem(last=False)
        self._granted.add(again)
        again()

    def forget(self, again: Callable[[], None]) -> None:
        """Nobody calls `again` any more; a place that it was given goes on."""
        self._waiting.pop(again, None)
        if again in self._granted:
            self._granted.discard(again)
            self.leave()


class Gates:
    """A gate for each tenant, made when it is first asked for; small, and kept."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most or calls_each()
        self._gates: dict[Hashable, Gate] = {}

    def of(self, tenant: Hashable) -> Gate:
        gate = self._gates.get(tenant)
        if gate is None:
            gate = self._gates[tenant] = Gate(self._most)
        return gate
