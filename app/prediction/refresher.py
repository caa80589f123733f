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
_CATCH_UP_WITHIN_S = 2.0
log = structlog.get_logger()


class Refresher:
    """One a serving process. `wake` asks for a look now; `caught_up` waits until it is served."""

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
        self._begun = self._ended = 0  # looks
        self._looked = asyncio.Condition()
        self._applying: dict[UUID, asyncio.Task[None]] = {}
        self.refreshed_at: float | None = None  # monotonic seconds of the last look that succeeded

    def wake(self) -> None:
        """Look now rather than at the next poll."""
        self._wake.set()

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call, or after two seconds; of one tenant where it is named."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_WITHIN_S):
                async with self._looked:
                    target = self._begun + 1  # a look under way may have begun before the commit
                    self._wake.set()
                    await self._looked.wait_for(lambda: self._ended >= target)
                applying = None if tenant_id is None else self._applying.get(tenant_id)
                if applying is not None:
                    await asyncio.wait([applying])

    async def start(self) -> None:
        """The first picture, whole; its versions go on opening. Raises Unavailable where the database does not answer."""
        await self._look()

    @property
    def opening(self) -> bool:
        """Whether versions are being opened for routes that are not applied yet, or for the first picture."""
        return bool(self._applying)

    async def run(self) -> None:
        """Looks each second, and when woken, until cancelled. A failure keeps the picture as it is."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            self._wake.clear()
            self._begun += 1
            try:
                await self._look()
            except AppError as error:
                log.warning("routing_not_refreshed", code=error.code)
            except Exception:
                log.exception("routing_refresh_broke")
            async with self._looked:
                self._ended = self._begun
                self._looked.notify_all()

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            generation, changed = await changes_since(connection, self._table.generation)
            first = self._table.generation < 0
            if not changed and not first:
                self._seen(generation)
                return
            which: Collection[UUID] | None = None if first else changed
            stored = await self._directory.load(connection, which)
            models = await load_routes(connection, which)
            pending = await load_pending(connection, which)
        self._directory.apply(stored)
        for tenant_id in (each.tenant.tenant_id for each in stored):
            self._begin(tenant_id, models.get(tenant_id, []), first)
        self._validator.consider(pending)
        self._seen(generation)

    def _begin(self, tenant_id: UUID, models: list[ModelRoute], first: bool) -> None:
        """Applies the tenant's routes when its versions are open, beside the others: a slow model holds up no other tenant.

        The first picture is applied at once: there is none before it to go on with, and a request waits for its model's loading.
        """
        older = self._applying.pop(tenant_id, None)
        if older is not None:
            older.cancel()
        routes = [route for model in models for route in model.versions.values() if route.status is VersionStatus.READY]
        ready = {(route.model_id, route.number): RoutedVersion.of(route) for route in routes}
        if first:
            self._table.apply(tenant_id, TenantRoutes.of(models, ready))
        task = asyncio.create_task(self._apply(tenant_id, models, ready))
        self._applying[tenant_id] = task
        task.add_done_callback(lambda done: self._applied(tenant_id, done))

    def _applied(self, tenant_id: UUID, done: asyncio.Task[None]) -> None:
        if self._applying.get(tenant_id) is done:
            del self._applying[tenant_id]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("routes_not_applied", exc_info=(type(error), error, error.__traceback__))

    def _seen(self, generation: int) -> None:
        self._table.generation = generation
        self.refreshed_at = self._clock.monotonic()

    async def _apply(self, tenant_id: UUID, models: list[ModelRoute], ready: dict[tuple[UUID, int], RoutedVersion]) -> None:
        try:
            async with asyncio.timeout(_WARM_WITHIN_S):
                await self._pool.warm(tenant_id, [routed.route for routed in ready.values()])
        except TimeoutError:
            log.warning("versions_still_cold", tenant_id=str(tenant_id))
        self._table.apply(tenant_id, TenantRoutes.of(models, ready))
        self._pool.keep(frozenset(key_of(each, route) for each, _, route in self._table.versions()))
