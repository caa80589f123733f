"""What serving needs of the registry, read across tenants by the sync role: aliased versions, and versions that wait for validation."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from app.errors import ModelUnavailable, NotFound
from app.kernel.signature import Signature, Task
from app.registry import store
from app.registry.rows import AliasRow, ModelRow, ModelVersionRow
from app.registry.types import ModelRoute, PendingValidation, RuntimeKind, VersionRoute, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.db.session import Database

_VERSION_COLUMNS = (
    ModelVersionRow.tenant_id,
    ModelVersionRow.model_id,
    ModelVersionRow.number,
    ModelVersionRow.status,
    ModelVersionRow.artifact_digest,
    ModelVersionRow.size_bytes,
    ModelVersionRow.signature,
    ModelVersionRow.classes,
    ModelVersionRow.runtime,
    ModelVersionRow.compiled_digest,
    ModelVersionRow.compiled_size_bytes,
    ModelVersionRow.proof,
)
_ROUTABLE = (VersionStatus.READY.value, VersionStatus.WITHDRAWN.value)


async def load_routes(connection: AsyncConnection, tenants: Collection[UUID] | None) -> dict[UUID, list[ModelRoute]]:
    """Each tenant's models with their aliases and the versions these point at; all tenants for None."""
    models = select(ModelRow.tenant_id, ModelRow.model_id, ModelRow.name, ModelRow.task, ModelRow.cache_seconds)
    aliases = select(AliasRow.tenant_id, AliasRow.model_id, AliasRow.name, AliasRow.number)
    versions = (
        select(*_VERSION_COLUMNS)
        .join(
            AliasRow,
            (AliasRow.tenant_id == ModelVersionRow.tenant_id)
            & (AliasRow.model_id == ModelVersionRow.model_id)
            & (AliasRow.number == ModelVersionRow.number),
        )
        .where(ModelVersionRow.status.in_(_ROUTABLE))
    )
    if tenants is not None:
        models = models.where(ModelRow.tenant_id.in_(tenants))
        aliases = aliases.where(AliasRow.tenant_id.in_(tenants))
        versions = versions.where(ModelVersionRow.tenant_id.in_(tenants))
    pointed: dict[UUID, dict[str, int]] = defaultdict(dict)
    for _, model_id, alias, number in (await connection.execute(aliases)).tuples():
        pointed[model_id][alias] = number
    model_rows = list((await connection.execute(models)).tuples())
    tasks = {model_id: Task(task) for _, model_id, _, task, _ in model_rows}
    routed: dict[UUID, dict[int, VersionRoute]] = defaultdict(dict)
    for row in await connection.execute(versions):
        if row.signature is not None and row.model_id in tasks:
            routed[row.model_id][row.number] = _route(row, tasks[row.model_id])
    found: dict[UUID, list[ModelRoute]] = defaultdict(list)
    for tenant_id, model_id, name, _, cache_seconds in model_rows:
        aliased, of_model = pointed.get(model_id, {}), routed.get(model_id, {})
        found[tenant_id].append(ModelRoute(model_id, name, tasks[model_id], aliased, of_model, cache_seconds))
    return found


async def load_pending(connection: AsyncConnection, tenants: Collection[UUID] | None) -> list[PendingValidation]:
    """Versions that wait for validation."""
    query = select(ModelVersionRow.tenant_id, ModelVersionRow.model_id, ModelVersionRow.number)
    query = query.where(ModelVersionRow.status == VersionStatus.VALIDATING.value)
    if tenants is not None:
        query = query.where(ModelVersionRow.tenant_id.in_(tenants))
    return [PendingValidation(row.tenant_id, row.model_id, row.number) for row in await connection.execute(query)]


class VersionLookup:
    """A version that no alias points at, for requests that pin it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: UUID, model: ModelRoute, number: int) -> VersionRoute:
        """The version's route; raises NotFound, and ModelUnavailable where it is there and cannot serve."""
        async with self._database.tenant_tx(tenant_id) as session:
            row = await store.find_version(session, await store.find_model(session, tenant_id, model.name), number)
            if row.status == VersionStatus.READY and row.signature is not None:
                return _route(row, model.task)
            if row.status == VersionStatus.VALIDATING:
                raise ModelUnavailable(f"Version {number} of {model.name!r} is still being validated.", retry_after_ms=1000)
            raise NotFound(f"There is no version {number} of the model {model.name!r} that can serve: it is {row.status}.")


def _route(row: Any, task: Task) -> VersionRoute:
    """Of a ModelVersionRow, or of a row with its columns."""
    return VersionRoute(
        model_id=row.model_id,
        number=row.number,
        task=task,
        status=VersionStatus(row.status),
        artifact_digest=str(row.artifact_digest),
        size_bytes=row.size_bytes or 0,
        signature=Signature.from_json(row.signature),
        classes=None if row.classes is None else tuple(row.classes),
        runtime=RuntimeKind.SKLEARN if row.runtime is None else RuntimeKind(row.runtime),
        compiled_digest=row.compiled_digest,
        compiled_size_bytes=row.compiled_size_bytes or 0,
        tolerance=None if row.proof is None else row.proof.get("tolerance"),
    )
