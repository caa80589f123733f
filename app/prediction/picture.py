"""What serving knows of tenants, routes and experiments, read as one statement and so of one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from app.db.outbox import changed_tenants, is_told, news
from app.db.together import Together
from app.experiments.running import needed_versions, running_of, running_queries
from app.registry.routes import distrusted_of, models_of, needed_of, pending_of, route_queries, withdrawn_of
from app.tenancy.directory import tenant_queries, tenants_of
from app.tenancy.documents.store import FOR_ALL, document_queries, shelf_for_all, shelves_of
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Select

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


def _together(of: Select[UUID] | None) -> Together:
    told = {"news": news(), "changed": changed_tenants(), **tenant_queries(of), **document_queries(of)}
    return Together({**told, **route_queries(of, needed_versions(of)), **running_queries(of)})


_CHANGED, _WHOLE = _together(changed_tenants()), _together(None)


async def read_picture(connection: Any, since: int, *, whole: bool) -> Picture:
    """What changed after generation `since`, or everything where `whole` or where the outbox does not tell all of it.

    Over a connection of the driver (asyncpg) as the sync role.
    """
    rows = await (_WHOLE if whole else _CHANGED).read(connection, since=since)
    ((generation, told),) = rows["news"]
    if not whole and not is_told(generation, told, since):
        return await read_picture(connection, since, whole=True)
    tenants = tenants_of(rows)
    erased = {stored.tenant.tenant_id for stored in tenants if stored.tenant.status is TenantStatus.ERASED}
    changed = {row.tenant_id for row in rows["changed"]}
    if not is_told(generation, told, since):
        changed = {stored.tenant.tenant_id for stored in tenants}
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
        shelf_for_all(rows) if whole or FOR_ALL in changed else None,
    )


def _without(erased: set[UUID], by_tenant: dict[UUID, T]) -> dict[UUID, T]:
    return {tenant_id: found for tenant_id, found in by_tenant.items() if tenant_id not in erased} if erased else by_tenant
