"""What one serving process is made of, and the order in which that starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from app.audit.heads import AuditHeads
    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.experiments.folding import Folder
    from app.experiments.sentinel import Sentinel
    from app.experiments.unleash.experiments import UnleashExperiments
    from app.experiments.unleash.source import UnleashFlagSource
    from app.graphql.context import Services
    from app.graphql.http.admission import Admission
    from app.graphql.http.bulk import BulkBodies
    from app.journal.direct import DirectLog
    from app.journal.folding import UsageFolder
    from app.journal.spool import Spool
    from app.prediction.breakers import Breakers
    from app.prediction.follower import Follower
    from app.prediction.live_proof import LiveProof
    from app.prediction.pool import RuntimePool
    from app.prediction.routing import RoutingTable
    from app.prediction.runtimes.host import ModelHost
    from app.prediction.shadows import Shadows
    from app.registry.artifacts import ArtifactUploads
    from app.registry.retention import ArtifactRetention
    from app.registry.validation import Validator
    from app.tenancy.answers import TenantAnswers
    from app.tenancy.directory import TenantDirectory
    from app.tenancy.identity.gatekeeper import Gatekeeper
    from app.tenancy.limits.budgets import Budgets
    from app.tenancy.limits.limiter import RateLimiter
    from app.web.front import Front
    from app.web.gauges import Gauges


class Background(Protocol):
    """Works beside the answers until it is cancelled."""

    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What one serving process is made of."""

    database: Database
    sync_database: SyncDatabase
    directory: TenantDirectory
    gatekeeper: Gatekeeper
    limiter: RateLimiter
    budgets: Budgets
    answers: TenantAnswers
    bulk: BulkBodies
    host: ModelHost
    pool: RuntimePool
    breakers: Breakers
    live_proof: LiveProof
    shadows: Shadows
    table: RoutingTable
    follower: Follower
    flag_server: UnleashFlagSource | None
    born: UnleashExperiments | None
    validator: Validator
    uploads: ArtifactUploads
    retention: ArtifactRetention
    counting: Database
    folder: Folder
    sentinel: Sentinel
    spool: Spool
    direct: DirectLog
    heads: AuditHeads
    usage: UsageFolder
    services: Services

    def lifespan(
        self, gauges: Gauges, admission: Admission, tell_parent: Callable[[], Coroutine[None, None, None]]
    ) -> Callable[[Front], AbstractAsyncContextManager[None]]:
        """What the server runs around its serving: the first picture is there before the first request, and nothing is left behind it."""

        @contextlib.asynccontextmanager
        async def living(_app: Front) -> AsyncIterator[None]:
            tasks: list[asyncio.Task[None]] = []
            try:
                await self._begin()
                tasks = [asyncio.create_task(task.run()) for task in (*self._in_the_background(), gauges, admission)]
                tasks.append(asyncio.create_task(tell_parent()))
                tasks.append(asyncio.create_task(self.follower.join()))  # beside the first answers: it waits for the models
                yield
            finally:
                await self._end(tasks)

        return living

    async def _begin(self) -> None:
        if self.flag_server is not None:  # first, so that the first picture has what was last good
            await self.flag_server.start(self._told())
        await self.follower.start()
        self.directory.require_readable()

    def _in_the_background(self) -> list[Background]:
        services = self.services
        work: list[Background] = [self.validator, self.live_proof, self.shadows, self.retention, self.folder, self.sentinel, self.heads]
        work += [self.usage, services.revocations, services.service_levels, self.budgets, self.spool, self.breakers.loop]
        return work if self.born is None else [*work, self.born]

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        await self.follower.stop()  # first: whoever promotes should not wait for a process that answers nobody
        if self.flag_server is not None:
            await self.flag_server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.services.service_levels.write()
        await self.direct.close()
        await asyncio.to_thread(self.spool.close)
        await self.pool.close()
        await self.host.close()
        await self.counting.close()
        await self.database.close()
        await self.sync_database.close()
        self.limiter.close()
        self.bulk.close()

    def _told(self) -> Callable[[], None]:
        """What is to be done when the flag server said something new; called from a thread of its client's."""
        loop = asyncio.get_running_loop()

        def told() -> None:
            self.follower.flags_changed()
            if self.born is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody answers any more
                    loop.call_soon_threadsafe(self.born.wake)

        return told
