"""Keeps this process's picture of tenants and routes fresh: it hears of a change at the commit, looks each second all the same, and
reads only what changed.

A tenant's new routes are applied when its versions are open, so that no request waits for a model to load. Where a version cannot
be loaded, what its alias served before goes on serving, and the change is not acknowledged. A graph that was found to be wrong is the
exception: it answers nobody from the moment it is heard of, and requests wait for the version's estimator.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from app.errors import AppError
from app.prediction.changes import Cold, TenantChange, version_of, with_what_served
from app.prediction.picture import read_picture
from app.prediction.pool import NoRoom, key_of
from app.prediction.routing import RoutedVersion, TenantRoutes
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from app.db.line import Line
    from app.db.sync import SyncDatabase
    from app.kernel.clock import Clock
    from app.prediction.flags import ServedFlags
    from app.prediction.last_good.reading import Kept
    from app.prediction.picture import Picture
    from app.prediction.ports import FlagMaker, Models, StateKeeper, Validations
    from app.prediction.routing import RoutingTable
    from app.registry.replicas import Replica
    from app.registry.types import ModelRoute, VersionRoute
    from app.tenancy.directory import TenantDirectory

POLL_S = 1.0
_WARM_WITHIN_S = 20.0
_MOST_WARMED = 1_000  # versions at start: some milliseconds each, more where their files must be made
_CATCH_UP_WITHIN_S = 2.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_TIDY_AFTER_S = 0.05
_PROVE_AFTER_S = 0.2
STALE_AFTER_S = 600.0  # without the database, answers say that they are by what was last known
_VERSIONS_WITHIN_S = 2.0  # so long flags that a flag server changed wait for versions that they name for the first time
log = structlog.get_logger()


class Refresher:
    """One a serving process. `wake` asks for a look now; `caught_up` waits until it is served."""

    def __init__(
        self,
        line: Line,
        database: SyncDatabase,
        directory: TenantDirectory,
        table: RoutingTable,
        pool: Models,
        validator: Validations,
        replica: Replica,
        flags: FlagMaker,
        clock: Clock,
        keeper: StateKeeper | None = None,
    ) -> None:
        """`keeper`: who writes down what this machine would serve by without a database."""
        self._line = line
        self._database = database
        self._directory = directory
        self._table = table
        self._pool = pool
        self._validator = validator
        self._replica = replica
        self._flags = flags
        self._clock = clock
        self._keeper = keeper
        self._wake = asyncio.Event()
        self._begun = self._ended = 0  # looks
        self._looked = asyncio.Condition()
        self._applying: dict[UUID, asyncio.Task[None]] = {}
        self._retrying: dict[UUID, asyncio.Task[None]] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self._reflagging: dict[UUID, asyncio.TimerHandle] = {}
        self._proving: asyncio.TimerHandle | None = None
        self._whole = True  # the next look reads everything
        self._untidied: set[UUID] = set()  # tenants of which the pool does not know yet what they need
        self._warmed, self._warmed_share = 0, 0.0  # of the first picture: versions, and their part of the memory
        self._line_was_up = False
        self.refreshed_at: float | None = None  # monotonic seconds at which the database last said that things are so
        self.from_disk = False  # whether no look has succeeded as yet, and the last good state serves
        self.pictured, self.looked = asyncio.Event(), asyncio.Event()  # there is a picture; the database was heard

    def wake(self) -> None:
        """Look now rather than at the next poll; many calls, one look."""
        self._wake.set()

    def heard(self, _generation: str) -> None:
        """A change was committed. What the number is does not matter: the look asks the database, so nobody can tell us wrong."""
        self._wake.set()

    def line_up(self) -> None:
        """The line is up. After it was lost, another server may answer that never saw what we saw: everything is read again."""
        if self._line_was_up:
            self._whole = True
            if self._keeper is not None:
                self._keeper.another_database()
        self._line_was_up = True
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

    def reflag(self) -> None:
        """The flag server said something new: flags of the tenants whom that concerns are built anew, and decide from now on.

        Versions that they chose never before are being fetched with the next change of the tenant: they are waited for a while.
        """
        for tenant_id, flags in self._flags.again():
            before = self._table.tenant(tenant_id)
            known = frozenset() if before.flags is None else before.flags.needed
            if flags is None or all(before.has(model, number) for model, number in flags.needed - known):
                self._put_flags(tenant_id, flags)
            elif tenant_id not in self._reflagging:
                self._reflagging[tenant_id] = asyncio.get_running_loop().call_later(_VERSIONS_WITHIN_S, self._put_newest_flags, tenant_id)
        self._prove_soon()

    async def start(self) -> None:
        """The first picture, whole; its versions go on opening. Raises Unavailable where the database does not answer."""
        await self.look()

    async def settled(self) -> None:
        """Returns when the versions that are being opened now are open, or could not be."""
        await asyncio.gather(*self._applying.values(), return_exceptions=True)

    async def run(self) -> None:
        """Looks when woken and each second, until cancelled. A failure keeps the picture as it is."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                self._wake.clear()
                self._begun += 1
                try:
                    await self.look()
                except AppError as error:
                    log.warning("routing_not_refreshed", code=error.code)
                except Exception:
                    log.exception("routing_refresh_broke")
                self._tell_age()
                async with self._looked:
                    self._ended = self._begun
                    self._looked.notify_all()
        finally:
            for task in (*self._applying.values(), *self._retrying.values()):
                task.cancel()

    async def look(self) -> None:
        """One look; routes whose versions are open are applied when this returns. Raises Unavailable."""
        first = self._table.generation < 0
        whole, self._whole = self._whole, False
        try:
            picture = await self._read(whole=whole)
        except BaseException:
            self._whole = self._whole or whole
            raise
        self._take_in(picture, first=first)
        self._validator.consider(picture.pending)
        self.refreshed_at, self.from_disk = self._clock.monotonic(), False
        self._tell_age()
        self._replica.heard(picture.generation)
        self.looked.set()
        if self._keeper is not None:
            self._keeper.confirmed(picture.generation)

    async def adopt(self, kept: Kept) -> None:
        """Serves by what was last good, until the database is heard; then everything is read from there."""
        self._take_in(kept.picture, first=True)
        self.refreshed_at, self.from_disk = self._clock.monotonic() - kept.age_s, True
        self._tell_age()
        log.warning("serving_by_last_good_state", generation=kept.picture.generation, age_s=round(kept.age_s))

    def _tell_age(self) -> None:
        self._table.stale = self.refreshed_at is not None and self._clock.monotonic() - self.refreshed_at > STALE_AFTER_S

    def _take_in(self, picture: Picture, *, first: bool) -> None:
        if picture.whole and not first:
            self._forget_others({stored.tenant.tenant_id for stored in picture.tenants})
        self._directory.apply(picture.tenants)
        tenants = [stored.tenant.tenant_id for stored in picture.tenants]
        self._directory.documents.apply(tenants, picture.documents, picture.documents_for_all)
        for stored in picture.tenants:
            tenant_id = stored.tenant.tenant_id
            distrusted = self._table.distrust(tenant_id, picture.distrusted)
            if distrusted and not first:
                self._untidied.add(tenant_id)
                self._tidy()  # requests wait for the estimators as for what an alias points at
            told = not first and tenant_id in picture.changed
            self._begin(picture, tenant_id, first=first, told=told, distrusted=distrusted)
            if stored.tenant.status is TenantStatus.ERASED and not first:
                self._pool.shut(tenant_id)
        if first:
            self._tidy()  # what the first picture needs is waited for from the first request on
            log.info("first_picture", tenants=len(tenants), opening=self._warmed)
        self._table.generation = picture.generation
        self.pictured.set()

    def _forget_others(self, there: set[UUID]) -> None:
        """A tenant that the database does not have: it is another one than before, or an older state of it."""
        for tenant_id in {*self._directory.forget_others(there), *self._table.others(there)}:
            self._table.apply(tenant_id, TenantRoutes.of([], {}))
            self._pool.shut(tenant_id)

    async def _read(self, *, whole: bool) -> Picture:
        since = max(self._table.generation, 0)
        if self._line.is_up:
            async with self._line.use() as connection:
                return await read_picture(connection, since, whole=whole)
        async with self._database.driver_connection() as connection:
            return await read_picture(connection, since, whole=whole)

    def _begin(self, picture: Picture, tenant_id: UUID, *, first: bool, told: bool, distrusted: bool) -> None:
        """Applies the tenant's routes: at once where its versions are open, else beside the others, for a slow model holds up no other.

        The first picture is applied at once: there is none before it to go on with, and a request waits for its model's loading.
        What was routed to before and is closed, because others took its place in the memory, goes on waiting for a request.
        """
        unfinished = distrusted
        for tasks in (self._applying, self._retrying):
            older = tasks.pop(tenant_id, None)
            if older is not None:
                older.cancel()
                unfinished = True
        change = TenantChange(picture, tenant_id, self._table.tenant(tenant_id), told)
        closed = [route for route in change.routes if self._pool.opened(tenant_id, route) is None]
        if first:
            closed = self._warmed_at_start(closed)
        elif not unfinished:
            closed = [route for route in closed if not change.before.leads_to(route)]
        if first or not closed:
            self._apply(change, [])
        if not closed:
            return
        task = asyncio.create_task(self._open_and_apply(change, closed))
        self._applying[tenant_id] = task
        task.add_done_callback(lambda done: _forget(self._applying, tenant_id, done))

    def _warmed_at_start(self, closed: list[VersionRoute]) -> list[VersionRoute]:
        """Those that are opened before anybody asks: as many as fit, and as a start can wait for."""
        chosen = []
        for route in closed:
            share = self._pool.share_of([route])
            if self._warmed >= _MOST_WARMED or self._warmed_share + share > 1:
                break
            self._warmed, self._warmed_share = self._warmed + 1, self._warmed_share + share
            chosen.append(route)
        return chosen

    async def _open_and_apply(self, change: TenantChange, closed: Collection[VersionRoute]) -> None:
        cold = await self._open(change.tenant_id, closed)
        self._apply(change, cold)
        if any(each.for_want_of_room for each in cold):
            cold = await self._in_the_place_of_the_old(change, cold)
        if cold:
            task = asyncio.create_task(self._retry(change, cold))
            self._retrying[change.tenant_id] = task
            task.add_done_callback(lambda done: _forget(self._retrying, change.tenant_id, done))

    async def _in_the_place_of_the_old(self, change: TenantChange, cold: list[Cold]) -> list[Cold]:
        """Who is still cold, now that nothing needs what served before, which is closed for those that had no room beside it."""
        self._tidy()
        others = [each for each in cold if not each.for_want_of_room]
        still = others + await self._open(change.tenant_id, [each.route for each in cold if each.for_want_of_room])
        if still != cold:
            self._apply(change, still)
        return still

    async def _retry(self, change: TenantChange, cold: list[Cold]) -> None:
        """Tries again what could not be loaded, for as long as no other change of the tenant takes its place."""
        wait_s = _FIRST_RETRY_S
        while cold:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_RETRY_S)
            found = await self._open(change.tenant_id, [each.route for each in cold])
            # What was tried and failed has no claim on the place of what serves in its stead.
            failed = {version_of(each.route) for each in cold if not each.for_want_of_room}
            still = [replace(each, for_want_of_room=each.for_want_of_room and version_of(each.route) not in failed) for each in found]
            if still != cold:
                self._apply(change, still)
            cold = still

    async def _open(self, tenant_id: UUID, routes: Collection[VersionRoute]) -> list[Cold]:
        """Those that could not be opened in time, or for want of memory."""
        try:
            async with asyncio.timeout(_WARM_WITHIN_S):
                return [Cold(route, isinstance(error, NoRoom)) for route, error in await self._pool.warm(tenant_id, routes)]
        except TimeoutError:
            log.warning("versions_still_cold", tenant_id=str(tenant_id))
            return [Cold(route) for route in routes if self._pool.opened(tenant_id, route) is None]

    def _prove_soon(self) -> None:
        if self._proving is None and not self._flags.proved:
            self._proving = asyncio.get_running_loop().call_later(_PROVE_AFTER_S, self._prove_flags)

    def _prove_flags(self) -> None:
        """Only a few units are waited for when flags change: a test on all of them would hold up each process of a busy machine."""
        self._proving = None
        for tenant_id, flags in self._flags.prove():
            self._put_flags(tenant_id, flags)
        self._prove_soon()

    def _put_newest_flags(self, tenant_id: UUID) -> None:
        self._put_flags(tenant_id, self._flags.newest(tenant_id))

    def _put_flags(self, tenant_id: UUID, flags: ServedFlags | None) -> None:
        if (waiting := self._reflagging.pop(tenant_id, None)) is not None:
            waiting.cancel()
        self._table.reflag(tenant_id, flags)

    def _apply(self, change: TenantChange, cold: list[Cold]) -> None:
        tenant_id = change.tenant_id
        models: list[ModelRoute] = change.models
        kept: list[RoutedVersion] = []
        if held := {version_of(each.route) for each in cold if not each.for_want_of_room}:
            models, kept = with_what_served(change, held)
        # What no alias points at here is not needed, and must displace nobody when it is tried again; nor must an arm that is cold, for
        # production answers in its stead.
        pointed = {(model.model_id, number) for model in models for number in model.aliases.values()}
        pointed |= change.needed - {version_of(each.route) for each in cold}
        ready = {version_of(route): RoutedVersion(route) for route in change.routes if version_of(route) in pointed}
        ready |= {version_of(routed.route): routed for routed in kept}
        flags = self._flags.of(tenant_id, change.running, change.generation)
        self._prove_soon()
        self._table.apply(tenant_id, TenantRoutes.of(models, ready, flags))
        self._untidied.add(tenant_id)
        if (waiting := self._reflagging.pop(tenant_id, None)) is not None:
            waiting.cancel()
        if change.told:
            self._replica.applied(tenant_id, change.generation, frozenset(version_of(each.route) for each in cold))
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(_TIDY_AFTER_S, self._tidy)

    def _tidy(self) -> None:
        """Tells the pool which versions are needed: once a burst of changes, after those have been served."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        of, self._untidied = self._untidied, set()
        self._pool.keep(frozenset(key_of(tenant_id, route) for tenant_id, _, route in self._table.versions(of)), of)


def _forget(tasks: dict[UUID, asyncio.Task[None]], tenant_id: UUID, done: asyncio.Task[None]) -> None:
    if tasks.get(tenant_id) is done:
        del tasks[tenant_id]
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("routes_not_applied", exc_info=(type(error), error, error.__traceback__))
