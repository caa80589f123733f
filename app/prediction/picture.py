"""What serving knows of tenants, routes and experiments, read as one statement and so of one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.db.outbox import changed_tenants, is_told, news
from app.db.together import Together
from app.experiments.running import needed_versions, running_of, running_queries
from app.registry.routes import distrusted_of, models_of, needed_of, pending_of, route_queries, withdrawn_of
from app.tenancy.directory import stored_tenant, tenants_query

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Select

    from app.experiments.types import RunningExperiment
    from app.registry.types import ModelRoute, PendingValidation
    from app.tenancy.types import StoredTenant


@dataclass(frozen=True, slots=True)
class Picture:
    """Some tenants, or all of them, as they were at `generation`."""

    generation: int
    tenants: list[StoredTenant]
    models: dict[UUID, list[ModelRoute]]  # by tenant; a tenant without models is not in it
    pending: list[PendingValidation]
    withdrawn: set[tuple[UUID, int]]  # (model, number)
    distrusted: set[tuple[UUID, int]]  # (model, number) whose graph was found to be wrong
    changed: set[UUID]  # tenants that changed since the generation asked for
    running: dict[UUID, list[RunningExperiment]]  # by tenant; the service's own
    needed: set[tuple[UUID, int]]  # (model, number) of versions that a running experiment may ask


def _together(of: Select[UUID] | None) -> Together:
    told = {"news": news(), "changed": changed_tenants(), "tenants": tenants_query(of)}
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
    tenants = [stored_tenant(row) for row in rows["tenants"]]
    changed = {row.tenant_id for row in rows["changed"]}
    if not is_told(generation, told, since):
        changed = {stored.tenant.tenant_id for stored in tenants}
    return Picture(
        generation,
        tenants,
        models_of(rows),
        pending_of(rows),
        withdrawn_of(rows),
        distrusted_of(rows),
        changed,
        running_of(rows),
        needed_of(rows),
    )
