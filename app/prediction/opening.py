"""Makes a version's runtime: its compiled graph in this process, or its estimator in the machine's locked child for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from app.db.breaker import DatabaseAway
from app.errors import ModelFailed, ModelUnavailable, Unavailable
from app.prediction.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from uuid import UUID

    from app.prediction.bulkheads import TenantThreads
    from app.prediction.runtimes.base import Runtime
    from app.prediction.runtimes.flat import FlatFiles
    from app.prediction.runtimes.host import ModelHost
    from app.prediction.runtimes.onnx import Native
    from app.registry.artifacts import ArtifactCache
    from app.registry.ports import Confinement
    from app.registry.types import VersionRoute

_AWAY_S, _AWAY_WITHIN_S = 0.05, 15.0
_KNOWN_AWAY_WITHIN_S = 2.0  # a database that is known not to answer: the last good state must not wait for one model's file


class Opener(Protocol):
    """Opens runtimes; each call opens a new one, and waits a while for a model host or a database that is being started anew."""

    async def compiled(self, tenant_id: UUID, route: VersionRoute, native: Native) -> Runtime:
        """The version served by its graph; raises ModelFailed, ModelUnavailable or Unavailable."""

    async def estimator(self, tenant_id: UUID, route: VersionRoute) -> Runtime:
        """The version served by its own estimator; raises as `compiled`."""

    async def close(self) -> None: ...


class RuntimeOpener:
    """One a serving process."""

    def __init__(
        self, host: ModelHost, artifacts: ArtifactCache, confinement: Confinement, flats: FlatFiles, threads: TenantThreads
    ) -> None:
        """`threads`: where graphs compute what would hold the event loop."""
        self._host = host
        self._artifacts = artifacts
        self._confinement = confinement
        self._flats = flats
        self._threads = threads

    async def compiled(self, tenant_id: UUID, route: VersionRoute, native: Native) -> Runtime:
        return await _patiently(lambda: self._compiled(tenant_id, route, native))

    async def estimator(self, tenant_id: UUID, route: VersionRoute) -> Runtime:
        return await _patiently(lambda: self._estimator(tenant_id, route))

    async def _compiled(self, tenant_id: UUID, route: VersionRoute, native: Native) -> Runtime:
        await self._artifacts.require_signed(tenant_id, route.artifact_digest)
        flat = await self._flats.path(tenant_id, str(route.compiled_digest))
        try:
            return await self._graph(flat, tenant_id, route, native)
        except ModelFailed:
            if await asyncio.to_thread(flat.exists):
                raise
            # Another process held it to be spare in the moment between.
            return await self._graph(await self._flats.path(tenant_id, str(route.compiled_digest)), tenant_id, route, native)

    async def _graph(self, flat: Path, tenant_id: UUID, route: VersionRoute, native: Native) -> Runtime:
        classes, threads = len(route.classes or ()), self._threads.of(tenant_id)
        return await asyncio.to_thread(OnnxRuntime.load, flat, route.signature, route.task, classes, native, threads)

    async def _estimator(self, tenant_id: UUID, route: VersionRoute) -> Runtime:
        if refusal := await self._confinement.refusal(route.artifact_digest):
            raise ModelUnavailable(refusal)
        path = await self._artifacts.path(tenant_id, route.artifact_digest)
        return await self._host.open(tenant_id, route.artifact_digest, path, route.signature, route.task, route.classes or ())

    async def close(self) -> None:
        """Waits for no batch that is still computed."""
        self._threads.close()


async def _patiently(open_it: Callable[[], Awaitable[Runtime]]) -> Runtime:
    """The runtime, once who is needed for it is there; raises as `open_it`, Unavailable where they stay away."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            return await open_it()
        except Unavailable as error:
            patience_s = _KNOWN_AWAY_WITHIN_S if isinstance(error, DatabaseAway) else _AWAY_WITHIN_S
            if error.code != Unavailable.code or loop.time() - began >= patience_s:
                raise
            await asyncio.sleep(_AWAY_S)
