"""Runtimes of this process, within its memory: opened once, before the first request where an alias points at the version.

A version is served by its compiled graph where it has one. Its estimator is opened beside it when something needs that: rows that
the graph must not answer, and the proof that goes on; it is closed again when nothing did for a minute.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from app.errors import AppError, DeadlineExceeded, ModelFailed, ModelUnavailable, Unavailable
from app.prediction.budget import MemoryLedger, loaded_bytes, native_bytes, onnx_bytes
from app.prediction.runtimes.base import Measured, NotNow
from app.registry.types import RuntimeKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from uuid import UUID

    from app.kernel.clock import Clock, Deadline
    from app.prediction.opening import Opener
    from app.prediction.runtimes.base import Runtime
    from app.registry.types import VersionRoute

Key = tuple["UUID", "UUID", int, bool]  # tenant, model, version, by its compiled graph
_MOST_SPARE_CHILDREN = 64  # processes of the machine, whatever the memory
_MOST_SPARE_EACH = 16  # of them of one tenant
_MOST_OPENING_EACH = 4  # versions that no alias points at, opened at once for one tenant's requests
_COLD_WAIT_S = 0.05  # a request waits so long for a version that nobody promised to have open
_COLD_RETRY_MS = 500
_FAILED_RETRY_MS = 1000
_FAILURE_KEPT_S = 5.0
_MOST_FAILURES_KEPT = 1_000
_MOST_MEASURES_KEPT = 10_000
_IDLE_S = 60.0
_BUSY_LOOK_S, _BUSY_WITHIN_S = 0.005, 2.0
log = structlog.get_logger()


class NoRoom(NotNow):
    """The version does not fit beside those that are needed."""


def key_of(tenant_id: UUID, route: VersionRoute) -> Key:
    return (tenant_id, route.model_id, route.number, route.is_compiled)


def by_estimator(route: VersionRoute) -> VersionRoute:
    """The same version, served by its own estimator."""
    return replace(route, runtime=RuntimeKind.SKLEARN, compiled_digest=None, compiled_size_bytes=0)


class _Needed:
    """Versions that aliases and experiments need, by tenant: a change touches its tenant alone, however many there are."""

    def __init__(self) -> None:
        self._of: dict[UUID, frozenset[Key]] = {}

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and key in self._of.get(key[0], ())

    def replace(self, needed: Collection[Key], of: Collection[UUID] | None) -> None:
        if of is None:
            self._of.clear()
        for tenant_id in of or ():
            self._of.pop(tenant_id, None)
        by_tenant: dict[UUID, list[Key]] = {}
        for key in needed:
            by_tenant.setdefault(key[0], []).append(key)
        self._of.update((tenant_id, frozenset(keys)) for tenant_id, keys in by_tenant.items())


class RuntimePool:
    """Opens, keeps and closes runtimes, in `memory_bytes` as `budget` reckons them.

    Whoever was not used for longest goes first; versions that aliases need go last, and only for one another.
    """

    def __init__(self, opener: Opener, memory_bytes: int, clock: Clock) -> None:
        self._opener = opener
        self._clock = clock
        self._ledger: MemoryLedger[Key] = MemoryLedger(memory_bytes)
        self._open: dict[Key, Runtime] = {}
        self._opening: dict[Key, asyncio.Task[Runtime]] = {}
        self._needed = _Needed()
        self._beside: dict[Key, float] = {}  # estimators of compiled versions: when they were last asked for
        self._measured: dict[str, int] = {}  # what estimators took, by artifact
        self._failures: dict[Key, tuple[ModelFailed, float]] = {}

    @property
    def size(self) -> int:
        """How many runtimes are open."""
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """What the open runtimes take, and those being opened, about."""
        return self._ledger.used

    def opened(self, tenant_id: UUID, route: VersionRoute) -> Runtime | None:
        """The version's runtime where it is open; looking is no use of it."""
        return self._open.get(key_of(tenant_id, route))

    def use(self, tenant_id: UUID, route: VersionRoute) -> Runtime | None:
        """The version's runtime where it is open: no waiting."""
        return self.used(key_of(tenant_id, route))

    def used(self, key: Key) -> Runtime | None:
        """As `use`."""
        runtime = self._open.get(key)
        if runtime is not None:
            self._ledger.touch(key)
        return runtime

    async def get(self, tenant_id: UUID, route: VersionRoute) -> Runtime:
        """The version's runtime, opened where it is not; many callers, one opening. Raises ModelUnavailable or ModelFailed."""
        runtime = self.use(tenant_id, route)
        return runtime if runtime is not None else await asyncio.shield(self._begin(tenant_id, route))

    async def get_within(self, tenant_id: UUID, route: VersionRoute, deadline: Deadline) -> Runtime:
        """As `get`, for a request: a version that no alias needs is waited for hardly at all, and is there for a later one.

        Raises ModelUnavailable with `retry_after_ms` while it loads and where it cannot be loaded, DeadlineExceeded where an aliased
        version took too long.
        """
        key = key_of(tenant_id, route)
        needed = key in self._needed
        if not needed:
            self._raise_failure(key)
            if key not in self._opening and sum(each[0] == tenant_id and each not in self._needed for each in self._opening) >= (
                _MOST_OPENING_EACH
            ):
                raise NotNow("Several other versions are being loaded for your tenant already.", retry_after_ms=_COLD_RETRY_MS)
        task = self._begin(tenant_id, route)
        await asyncio.wait([task], timeout=max(0.0, deadline.remaining_s()) if needed else _COLD_WAIT_S)
        if task.done():
            try:
                return task.result()
            except (ModelFailed, Unavailable) as error:
                raise _not_now(error) from None
        if needed:
            raise DeadlineExceeded("The model was still being loaded when the time was up.", retry_after_ms=1000)
        raise NotNow(f"Version {route.number} is being loaded: nothing used it of late.", retry_after_ms=_COLD_RETRY_MS)

    def want(self, tenant_id: UUID, route: VersionRoute) -> None:
        """Has the version opened for later requests, and waits for nothing; not at once again where that failed just now."""
        failure = self._failures.get(key_of(tenant_id, route))
        if failure is None or self._clock.monotonic() - failure[1] >= _FAILURE_KEPT_S:
            self._begin(tenant_id, route)

    async def estimator(self, tenant_id: UUID, route: VersionRoute) -> Runtime:
        """The estimator of a version that is served compiled, beside its graph; raises as `get`."""
        native = by_estimator(route)
        self._beside[key_of(tenant_id, native)] = self._clock.monotonic()
        return await self.get(tenant_id, native)

    async def warm(self, tenant_id: UUID, routes: Collection[VersionRoute]) -> list[tuple[VersionRoute, AppError]]:
        """Those that could not be opened, and why, which is logged; returns when each has been or could not be."""
        routes = list(routes)
        failures = await asyncio.gather(*(self._warm_one(tenant_id, route) for route in routes))
        return [(route, failure) for route, failure in zip(routes, failures, strict=True) if failure is not None]

    def keep(self, needed: Collection[Key], of: Collection[UUID] | None = None) -> None:
        """From now on these versions stay open while they fit; others may be closed. `of`: only these tenants' part is new."""
        self._needed.replace(needed, of)

    def share_of(self, routes: Iterable[VersionRoute]) -> float:
        """Which part of the memory these versions would take, by reckoning."""
        reckoned = sum(onnx_bytes(route) if route.is_compiled else self._native_bytes(route) for route in routes)
        return reckoned / self._ledger.limit

    async def close_idle(self) -> None:
        """Closes estimators beside graphs that nothing asked for of late."""
        before = self._clock.monotonic() - _IDLE_S
        idle = [key for key, at in self._beside.items() if at < before]
        for key in idle:
            del self._beside[key]
        await self._close([key for key in idle if key not in self._needed and self._may_go(key)])

    async def shut(self, tenant_id: UUID) -> None:
        """Closes every version of a tenant that is gone, also those being opened; who is answering is waited for, two seconds at most."""
        if opening := [task for key, task in self._opening.items() if key[0] == tenant_id]:
            await asyncio.wait(opening)
        end = asyncio.get_running_loop().time() + _BUSY_WITHIN_S
        while held := [key for key in self._open if key[0] == tenant_id]:
            late = asyncio.get_running_loop().time() > end
            await self._close([key for key in held if late or self._may_go(key)])
            await asyncio.sleep(_BUSY_LOOK_S)
        for key in [key for key in self._beside if key[0] == tenant_id]:
            del self._beside[key]

    async def close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await self._close(list(self._open))
        await self._opener.close()

    # --- opening

    def _begin(self, tenant_id: UUID, route: VersionRoute) -> asyncio.Task[Runtime]:
        key = key_of(tenant_id, route)
        task = self._opening.get(key)
        if task is None:
            task = asyncio.create_task(self._open_one(key, tenant_id, route))
            self._opening[key] = task
            task.add_done_callback(lambda done: self._opened(key, done))
        return task

    async def _open_one(self, key: Key, tenant_id: UUID, route: VersionRoute) -> Runtime:
        if route.is_compiled:
            try:
                return await self._within_memory(
                    key, onnx_bytes(route), lambda: self._opener.compiled(tenant_id, route, lambda: self.estimator(tenant_id, route))
                )
            except NoRoom:
                raise
            except (ModelFailed, ModelUnavailable) as error:  # its answers are the estimator's: slower is better than none
                log.error("compiled_model_refused", digest=route.compiled_digest, why=error.message)  # noqa: TRY400  told, not traced
        runtime = await self._within_memory(key, self._native_bytes(route), lambda: self._estimator(key, tenant_id, route))
        spare = [each for each in self._ledger if each in self._open and self._open[each].kind == "sklearn" and each not in self._needed]
        own = [each for each in spare if each[0] == tenant_id]
        going = {*spare[:-_MOST_SPARE_CHILDREN], *own[:-_MOST_SPARE_EACH]} - {key}
        await self._close([each for each in spare if each in going and self._may_go(each)])
        return runtime

    def _native_bytes(self, route: VersionRoute) -> int:
        return self._measured.get(route.artifact_digest) or native_bytes(route)

    async def _estimator(self, key: Key, tenant_id: UUID, route: VersionRoute) -> Runtime:
        """The estimator, its memory booked as it is and no longer as it was reckoned; raises NoRoom, too."""
        runtime = await self._opener.estimator(tenant_id, route)
        if not isinstance(runtime, Measured) or runtime.memory_bytes is None:
            return runtime
        size = loaded_bytes(runtime.memory_bytes)
        while len(self._measured) >= _MOST_MEASURES_KEPT:
            del self._measured[next(iter(self._measured))]
        self._measured[route.artifact_digest] = size
        try:
            await self._close(await self._room(key, size))
        except BaseException:
            await runtime.close()
            raise
        return runtime

    async def _within_memory(self, key: Key, size: int, open_it: Callable[[], Awaitable[Runtime]]) -> Runtime:
        """Books the memory, makes room, and only then opens: what is held is never above the bound."""
        going = await self._room(key, size)
        try:
            await self._close(going)
            runtime = await open_it()
        except BaseException:
            self._ledger.give_back(key)
            raise
        self._open[key] = runtime
        return runtime

    async def _room(self, key: Key, size: int) -> list[Key]:
        """Who has to go; raises NoRoom. What an alias needs waits a while for others to have answered."""
        end = asyncio.get_running_loop().time() + _BUSY_WITHIN_S
        while (going := self._ledger.take(key, size, self._needed, self._may_go)) is None:
            if key not in self._needed or size > self._ledger.limit or asyncio.get_running_loop().time() > end:
                log.warning("no_room_for_model", bytes=size, held=self._ledger.used, limit=self._ledger.limit)
                raise NoRoom(
                    "There is no memory for this version beside those that aliases point at: point fewer aliases, or raise "
                    "TURNOUT_MODEL_MEMORY_BYTES.",
                    retry_after_ms=1000,
                )
            await asyncio.sleep(_BUSY_LOOK_S)
        return going

    def _may_go(self, key: Key) -> bool:
        runtime = self._open.get(key)
        return runtime is not None and not runtime.busy

    async def _close(self, keys: list[Key]) -> None:
        runtimes = [self._open.pop(key) for key in keys]
        for key in keys:
            self._ledger.give_back(key)
        await asyncio.gather(*(runtime.close() for runtime in runtimes), return_exceptions=True)

    def _opened(self, key: Key, done: asyncio.Task[Runtime]) -> None:
        self._opening.pop(key, None)
        self._failures.pop(key, None)
        if done.cancelled() or (error := done.exception()) is None:
            return
        if isinstance(error, ModelFailed):
            while len(self._failures) >= _MOST_FAILURES_KEPT:
                del self._failures[next(iter(self._failures))]
            self._failures[key] = (error, self._clock.monotonic())
        elif not isinstance(error, AppError):
            log.error("runtime_not_opened", version=key[2], exc_info=(type(error), error, error.__traceback__))

    def _raise_failure(self, key: Key) -> None:
        """A version that takes longer to fail than a request waits would otherwise be loading for ever."""
        failure = self._failures.get(key)
        if failure is not None and self._clock.monotonic() - failure[1] < _FAILURE_KEPT_S:
            raise _not_now(failure[0])

    async def _warm_one(self, tenant_id: UUID, route: VersionRoute) -> AppError | None:
        try:
            await self.get(tenant_id, route)
        except AppError as error:
            log.warning("version_not_warm", version=route.number, code=error.code, why=error.message)
            return error
        return None


def _not_now(error: ModelFailed | Unavailable) -> Unavailable:
    """What a request is told of a version that cannot be opened: nothing of it is the input's fault, and it will be tried again."""
    told = type(error) if isinstance(error, Unavailable) else ModelUnavailable
    return told(error.message, **{"retry_after_ms": _FAILED_RETRY_MS, **error.details})
