"""What serving knows of tenants, routes and experiments: what changed in one statement, all of it in portions; of one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ARRAY, Uuid, bindparam, func, select

from app.db.frozen import FrozenRows
from app.db.outbox import changed_tenants, is_told, news
from app.db.together import Together
from app.experiments.running import needed_versions, running_of, running_queries
from app.registry.routes import distrusted_of, models_of, needed_of, pending_of, route_queries, withdrawn_of
from app.tenancy.directory import tenant_ids, tenant_queries, tenants_of
from app.tenancy.documents.store import FOR_ALL, document_queries, shelf_for_all, shelves_of
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from uuid import UUID

    from sqlalchemy import Select

    from app.db.frozen import Plain
    from app.experiments.types import RunningExperiment
    from app.registry.types import ModelRoute, PendingValidation
    from app.tenancy.documents.types import Shelf
    from app.tenancy.types import StoredTenant

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """Some tenants, or all of them, as they were at `generation`. Of an erased one nothing is served, whatever is left of it."""

    generation: int
    tenants: list[StoredTenant]
    models: dict[UUID, list[ModelRoute]]  # by tenant; a tenant without models is not in it
    pending: list[PendingValidation]
    withdrawn: set[tuple[UUID, int]]  # (model, number)
    distrusted: set[tuple[UUID, int]]  # (model, number) whose graph was found to be wrong
    changed: set[UUID]  # tenants that changed since the generation asked for
    running: dict[UUID, list[RunningExperiment]]  # by tenant; the service's own
    needed: set[tuple[UUID, int]]  # (model, number) of versions that a running experiment may ask
    documents: dict[UUID, Shelf]  # by tenant; the registered ones
    documents_for_all: Shelf | None  # None: not changed
    whole: bool = False  # whether these are all tenants that there are

    def take_in(self, other: Picture) -> None:
        """Other tenants, as they were at the same moment."""
        self.tenants.extend(other.tenants)
        self.pending.extend(other.pending)
        self.withdrawn.update(other.withdrawn)
        self.distrusted.update(other.distrusted)
        self.needed.update(other.needed)
        self.models.update(other.models)
        self.running.update(other.running)
        self.documents.update(other.documents)


def _queries(of: Select[UUID]) -> dict[str, Select[*tuple[Any, ...]]]:
    told = {**tenant_queries(of), **document_queries(of)}
    return {**told, **route_queries(of, needed_versions(of)), **running_queries(of)}


_TENANTS_AT_ONCE = 200  # some megabytes of rows, and far below the time that a statement may take
_NEWS = {"news": news(), "changed": changed_tenants()}
# As an array, of which the planner expects a handful: of rows it would expect many, and read the tables of all tenants from end to end.
_FEW: Select[UUID] = select(func.unnest(func.array(changed_tenants().scalar_subquery()), type_=Uuid))
_CHANGED = Together({**_NEWS, **_queries(_FEW)})
_MARK = "select string_agg(tenant_id || ' ' || extract(epoch from at), ',' order by tenant_id) from outbox where generation = $1"
_HEAD = Together({**_NEWS, "all": tenant_ids()})
_PORTION = Together(_queries(select(func.unnest(bindparam("portion", [], type_=ARRAY(Uuid))))))


async def read_picture(connection: Any, since: int, *, whole: bool) -> Picture:
    """What changed after generation `since`, or everything where `whole` or where the outbox does not tell all of it.

    Over a connection of the driver (asyncpg) as the sync role.
    """
    if whole:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read_whole(connection, since)
    rows = await _CHANGED.read(connection, since=since)
    ((generation, told),) = rows["news"]
    if not is_told(generation, told, since):
        return await read_picture(connection, since, whole=True)
    changed = {row.tenant_id for row in rows["changed"]}
    return _picture(generation, changed, rows, for_all=FOR_ALL in changed)


async def _read_whole(connection: Any, since: int) -> Picture:
    """In the caller's transaction, which sees one state. Many tenants at once would be more than one value of PostgreSQL can hold."""
    head = await _HEAD.read(connection, since=since)
    ((generation, told),) = head["news"]
    tenants = [row.tenant_id for row in head["all"]]
    changed = {row.tenant_id for row in head["changed"]} if is_told(generation, told, since) else set(tenants)
    rows = await _PORTION.read(connection, portion=[FOR_ALL, *tenants[:_TENANTS_AT_ONCE]])
    picture = _picture(generation, changed, rows, for_all=True, whole=True)
    for start in range(_TENANTS_AT_ONCE, len(tenants), _TENANTS_AT_ONCE):
        rows = await _PORTION.read(connection, portion=tenants[start : start + _TENANTS_AT_ONCE])
        picture.take_in(_picture(generation, changed, rows, for_all=False))
    return picture


@dataclass(frozen=True, slots=True)
class RawNews:
    """What the database says of some tenants, as rows. `whose`: all of them, also those of which there are no rows."""

    generation: int
    whose: list[UUID]
    rows: Mapping[str, list[Any]]


async def read_changed_rows(connection: Any, since: int) -> RawNews | None:
    """Of the tenants that changed after generation `since`; None where the outbox does not tell all of it."""
    rows = await _CHANGED.read(connection, since=since)
    ((generation, told),) = rows["news"]
    return RawNews(generation, [row.tenant_id for row in rows["changed"]], rows) if is_told(generation, told, since) else None


async def read_all_rows(connection: Any, at_once: int) -> AsyncIterator[RawNews]:
    """Of all tenants by id, `at_once` at a time, and of what is for all of them; of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        head = await _HEAD.read(connection, since=0)
        ((generation, _told),) = head["news"]
        everybody = [FOR_ALL, *sorted(row.tenant_id for row in head["all"])]
        for start in range(0, len(everybody), at_once):
            portion = everybody[start : start + at_once]
            yield RawNews(generation, portion, await _PORTION.read(connection, portion=portion))


async def read_mark(connection: Any, generation: int) -> str:
    """What the outbox says of this generation; "" where it says nothing. Two pasts of a database differ in it."""
    return str(await connection.fetchval(_MARK, generation) or "")


FROZEN = FrozenRows(_queries(_FEW), "tenant_id", FOR_ALL)


def picture_of(generation: int, kept: Iterable[Plain]) -> Picture:
    """The picture of rows that were kept: of all tenants, none of which counts as changed. Raises ValueError, TypeError or KeyError."""
    return _picture(generation, set(), FROZEN.thaw(kept), for_all=True, whole=True)


def _picture(generation: int, changed: set[UUID], rows: Mapping[str, list[Any]], *, for_all: bool, whole: bool = False) -> Picture:
    tenants = tenants_of(rows)
    erased = {stored.tenant.tenant_id for stored in tenants if stored.tenant.status is TenantStatus.ERASED}
    return Picture(
        generation,
        tenants,
        _without(erased, models_of(rows)),
        [pending for pending in pending_of(rows) if pending.tenant_id not in erased],
        withdrawn_of(rows),
        distrusted_of(rows),
        changed,
        _without(erased, running_of(rows)),
        needed_of(rows),
        _without(erased, shelves_of(rows)),
        shelf_for_all(rows) if for_all else None,
        whole,
    )


def _without(erased: set[UUID], by_tenant: dict[UUID, T]) -> dict[UUID, T]:
    return {tenant_id: found for tenant_id, found in by_tenant.items() if tenant_id not in erased} if erased else by_tenant
