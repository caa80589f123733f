"""Runtimes of this process, one a version: opened once, before the first request where an alias points at it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from app.errors import AppError, ModelUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from app.prediction.runtimes.base import Runtime
    from app.prediction.runtimes.host import ModelHost
    from app.registry.artifacts import ArtifactCache
    from app.registry.ports import Confinement
    from app.registry.types import VersionRoute

Key = tuple["UUID", "UUID", int]  # tenant, model, version
_MOST_PINNED = 64
_HOST_AWAY_S = 0.05
log = structlog.get_logger()


def key_of(tenant_id: UUID, route: VersionRoute) -> Key:
    return (tenant_id, route.model_id, route.number)


class RuntimePool:
    """Opens, keeps and closes runtimes. Versions that aliases need stay; others are dropped, least recently used first."""

    def __init__(self, host: ModelHost, artifacts: ArtifactCache, confinement: Confinement) -> None:
        self._host = host
        self._artifacts = artifacts
        self._confinement = confinement
        self._open: OrderedDict[Key, Runtime] = OrderedDict()
        self._opening: dict[Key, asyncio.Task[Runtime]] = {}
        self._needed: frozenset[Key] = frozenset()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def size(self) -> int:
        """How many versions are open."""
        return len(self._open)

    def opened(self, tenant_id: UUID, route: VersionRoute) -> Runtime | None:
        """The version's runtime where it is open: no waiting."""
        return self._open.get((tenant_id, route.model_id, route.number))

    async def get(self, tenant_id: UUID, route: VersionRoute) -> Runtime:
        """The version's runtime, opened where it is not; many callers, one opening. Raises ModelUnavailable or ModelFailed."""
        key = key_of(tenant_id, route)
        runtime = self._open.get(key)
        if runtime is not None:
            if key not in self._needed:
                self._open.move_to_end(key)
            return runtime
        task = self._opening.get(key)
        if task is None:
            task = asyncio.create_task(self._open_one(key, tenant_id, route))
            self._opening[key] = task
            task.add_done_callback(lambda done: self._opened(key, done))
        return await asyncio.shield(task)

    async def warm(self, tenant_id: UUID, routes: Collection[VersionRoute]) -> None:
        """Returns when each of these versions is open or has failed to open, which is logged: requests then say so.

        Waits for a model host that is not there yet; the caller bounds the time.
        """
        await asyncio.gather(*(self._warm_one(tenant_id, route) for route in routes))

    def keep(self, needed: frozenset[Key]) -> None:
        """From now on these versions stay open; others may be closed."""
        self._needed = needed
        spare = [key for key in self._open if key not in needed]
        for key in spare[: max(0, len(spare) - _MOST_PINNED)]:
            self._close_soon(self._open.pop(key))

    async def close(self) -> None:
        runtimes = list(self._open.values())
        self._open.clear()
        await asyncio.gather(*(runtime.close() for runtime in runtimes), *self._closing, return_exceptions=True)

    async def _open_one(self, key: Key, tenant_id: UUID, route: VersionRoute) -> Runtime:
        if refusal := await self._confinement.refusal(route.artifact_digest):
            raise ModelUnavailable(refusal)
        path = await self._artifacts.path(tenant_id, route.artifact_digest)
        runtime = await self._host.open(tenant_id, route.artifact_digest, path, route.signature, route.task, route.classes or ())
        self._open[key] = runtime
        self.keep(self._needed)
        return runtime

    def _opened(self, key: Key, done: asyncio.Task[Runtime]) -> None:
        self._opening.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, AppError):
            log.error("runtime_not_opened", version=key[2], exc_info=(type(error), error, error.__traceback__))

    async def _warm_one(self, tenant_id: UUID, route: VersionRoute) -> None:
        while True:
            try:
                await self.get(tenant_id, route)
            except AppError as error:
                if error.code == Unavailable.code:  # the model host is being started, or started anew
                    await asyncio.sleep(_HOST_AWAY_S)
                    continue
                log.warning("version_not_warm", version=route.number, code=error.code, why=error.message)
            return

    def _close_soon(self, runtime: Runtime) -> None:
        task = asyncio.create_task(runtime.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
