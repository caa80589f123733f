"""Keeps this process's picture of tenants and routes fresh: a generation number polled each second, then only what changed.

A tenant's new routes are applied when its versions are open, so that no request waits for a model to load.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from app.db.outbox import changes_since
from app.errors import AppError
from app.prediction.pool import key_of
from app.prediction.routing import RoutedVersion, TenantRoutes
from app.registry.routes import load_pending, load_routes
from app.registry.types import VersionStatus
from app.tenancy.store import load_tenants

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from app.db.sync import SyncDatabase
    from app.kernel.clock import Clock
    from app.prediction.pool import RuntimePool
    from app.prediction.routing import RoutingTable
    from app.registry.types import ModelRoute
    from app.registry.validation import Validator
    from app.tenancy.directory import TenantDirectory

POLL_S = 1.0
_WARM_WITHIN_S = 20.0
log = structlog.get_logger()


class Refresher:
    """One a serving process. `wake` asks for a look now; `caught_up` waits for one that began after the call."""

    def __init__(
        self,
        database: SyncDatabase,
        directory: TenantDirectory,
        table: RoutingTable,
        pool: RuntimePool,
        validator: Validator,
        clock: Clock,
    ) -> None:
        self._database = database
        self._directory = directory
        self._table = table
        self._pool = pool
        self._validator = validator
        self._clock = clock
        self._wake = asyncio.Event()
        self._looks = 0
        self._looked = asyncio.Condition()
        self.refreshed_at: float | None = None  # monotonic seconds of the last look that succeeded

    def wake(self) -> None:
        """Look now rather than at the next poll."""
        self._wake.set()

    async def caught_up(self) -> None:
        """Returns when a look that began after this call has ended: what was committed before is then served."""
        async with self._looked:
            target = self._looks + 2  # one may be under way that began before
            self._wake.set()
            while self._looks < target:
                self._wake.set()
                await self._looked.wait()

    async def start(self) -> None:
        """The first picture, whole. Raises Unavailable where the database does not answer."""
        await self._look()

    async def run(self) -> None:
        """Looks each second, and when woken, until cancelled. A failure keeps the picture as it is."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            self._wake.clear()
            try:
                await self._look()
            except AppError as error:
                log.warning("routing_not_refreshed", code=error.code)
            except Exception:
                log.exception("routing_refresh_broke")
            async with self._looked:
                self._looks += 1
                self._looked.notify_all()

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            generation, changed = await changes_since(connection, self._table.generation)
            first = self._table.generation < 0
            if not changed and not first:
                self._seen(generation)
                return
            which: Collection[UUID] | None = None if first else changed
            stored = await load_tenants(connection, which)
            models = await load_routes(connection, which)
            pending = await load_pending(connection, which)
        self._directory.apply(stored)
        tenants = [each.tenant.tenant_id for each in stored]
        await asyncio.gather(*(self._apply(tenant_id, models.get(tenant_id, [])) for tenant_id in tenants))
        self._pool.keep(frozenset(key_of(tenant_id, route) for tenant_id, _, route in self._table.versions()))
        self._validator.consider(pending)
        self._seen(generation)

    def _seen(self, generation: int) -> None:
        self._table.generation = generation
        self.refreshed_at = self._clock.monotonic()

    async def _apply(self, tenant_id: UUID, models: list[ModelRoute]) -> None:
        routes = [route for model in models for route in model.versions.values() if route.status is VersionStatus.READY]
        try:
            async with asyncio.timeout(_WARM_WITHIN_S):
                await self._pool.warm(tenant_id, routes)
        except TimeoutError:
            log.warning("versions_still_cold", tenant_id=str(tenant_id))
        ready = {(route.model_id, route.number): RoutedVersion.of(route) for route in routes}
        self._table.apply(tenant_id, TenantRoutes.of(models, ready))
