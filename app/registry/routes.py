"""What serving needs of the registry, read across tenants by the sync role: versions that aliases or others need, and what waits."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, select, union

from app.errors import ModelUnavailable, NotFound
from app.kernel.signature import Signature, Task
from app.registry import store
from app.registry.fallbacks import fallback_of, named_fallbacks, previous_versions
from app.registry.rows import AliasRow, ModelRow, ModelVersionRow
from app.registry.types import ModelRoute, PendingValidation, RuntimeKind, VersionRoute, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from sqlalchemy import Select

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
_POINTED_AT = (
    (AliasRow.tenant_id == ModelVersionRow.tenant_id)
    & (AliasRow.model_id == ModelVersionRow.model_id)
    & (AliasRow.number == ModelVersionRow.number)
)
_WATCHED = (VersionStatus.VALIDATING.value, VersionStatus.WITHDRAWN.value)
# A proved graph that is served no more: a live answer of it was not scikit-learn's.
_DISTRUSTED = and_(ModelVersionRow.compiled_digest.is_not(None), ModelVersionRow.runtime == RuntimeKind.SKLEARN.value)
_ROUTABLE = (VersionStatus.READY.value, VersionStatus.WITHDRAWN.value)


def route_queries(of: Select[UUID] | None, also: Select[UUID, UUID, int] | None = None) -> dict[str, Select[*tuple[Any, ...]]]:
    """What `models_of`, `pending_of`, `withdrawn_of` and `distrusted_of` read: of the tenants that `of` selects, or of all.

    `also`: (tenant, model, number) of versions that somebody needs although no alias points at them, of the same tenants. What models
    fall back on is read besides.
    """
    models = select(ModelRow.tenant_id, ModelRow.model_id, ModelRow.name, ModelRow.task, ModelRow.cache_seconds, ModelRow.fallback)
    aliases = select(AliasRow.tenant_id, AliasRow.model_id, AliasRow.name, AliasRow.number)
    versions = select(*_VERSION_COLUMNS).join(AliasRow, _POINTED_AT).where(ModelVersionRow.status.in_(_ROUTABLE))
    others = select(ModelVersionRow.tenant_id, ModelVersionRow.model_id, ModelVersionRow.number, ModelVersionRow.status)
    others = others.add_columns(_DISTRUSTED.label("distrusted")).where(ModelVersionRow.status.in_(_WATCHED) | _DISTRUSTED)
    if of is not None:
        models, aliases = models.where(ModelRow.tenant_id.in_(of)), aliases.where(AliasRow.tenant_id.in_(of))
        versions, others = versions.where(ModelVersionRow.tenant_id.in_(of)), others.where(ModelVersionRow.tenant_id.in_(of))
    previous = previous_versions(of)
    needed = [
        named_fallbacks(of),
        previous.with_only_columns(*(previous.selected_columns[name] for name in ("tenant_id", "model_id", "number"))),
    ]
    return {
        "models": models,
        "aliases": aliases,
        "versions": versions,
        "others": others,
        "previous": previous,
        "also": _also([*needed, *([] if also is None else [also])]),
    }


def _also(needed: list[Select[UUID, UUID, int]]) -> Select[*tuple[Any, ...]]:
    named = union(*needed).subquery()
    tenant_id, model_id, number = named.columns
    these = and_(tenant_id == ModelVersionRow.tenant_id, model_id == ModelVersionRow.model_id, number == ModelVersionRow.number)
    return select(*_VERSION_COLUMNS).join(named, these).where(ModelVersionRow.status.in_(_ROUTABLE))


def models_of(rows: Mapping[str, Iterable[Any]]) -> dict[UUID, list[ModelRoute]]:
    """Each tenant's models with their aliases, the versions that these point at, and those that somebody needs besides."""
    pointed: dict[UUID, dict[str, int]] = defaultdict(dict)
    for row in rows["aliases"]:
        pointed[row.model_id][row.name] = row.number
    models = list(rows["models"])
    tasks = {row.model_id: Task(row.task) for row in models}
    routed: dict[UUID, dict[int, VersionRoute]] = defaultdict(dict)
    for row in chain(rows["versions"], rows.get("also", ())):
        if row.signature is not None and row.model_id in tasks:
            routed[row.model_id][row.number] = route_of(row, tasks[row.model_id])
    previous: dict[UUID, dict[str, int]] = defaultdict(dict)
    for row in rows.get("previous", ()):
        previous[row.model_id][row.alias] = row.number
    found: dict[UUID, list[ModelRoute]] = defaultdict(list)
    for row in models:
        route = ModelRoute(
            row.model_id,
            row.name,
            tasks[row.model_id],
            pointed.get(row.model_id, {}),
            routed.get(row.model_id, {}),
            row.cache_seconds,
            fallback_of(row.fallback),
            previous.get(row.model_id, {}),
        )
        found[row.tenant_id].append(route)
    return found


def needed_of(rows: Mapping[str, Iterable[Any]]) -> set[tuple[UUID, int]]:
    """(model, number) of the versions that somebody needs besides aliases, and that are there."""
    return {(row.model_id, row.number) for row in rows.get("also", ())}


def pending_of(rows: Mapping[str, Iterable[Any]]) -> list[PendingValidation]:
    """Versions that wait for validation."""
    return [PendingValidation(row.tenant_id, row.model_id, row.number) for row in rows["others"] if row.status == VersionStatus.VALIDATING]


def withdrawn_of(rows: Mapping[str, Iterable[Any]]) -> set[tuple[UUID, int]]:
    """(model, number) of the versions that no request may reach, whatever an alias says."""
    return {(row.model_id, row.number) for row in rows["others"] if row.status == VersionStatus.WITHDRAWN}


def distrusted_of(rows: Mapping[str, Iterable[Any]]) -> set[tuple[UUID, int]]:
    """(model, number) of the versions whose graph answered otherwise than their estimator, and must answer nobody any more."""
    return {(row.model_id, row.number) for row in rows["others"] if row.distrusted}


class VersionLookup:
    """A version that no alias points at, for requests that pin it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: UUID, model: ModelRoute, number: int) -> VersionRoute:
        """The version's route; raises NotFound, and ModelUnavailable where it is there and cannot serve."""
        async with self._database.tenant_tx(tenant_id) as session:
            row = await store.find_version(session, await store.find_model(session, tenant_id, model.name), number)
            if row.status == VersionStatus.READY and row.signature is not None:
                return route_of(row, model.task)
            if row.status == VersionStatus.VALIDATING:
                raise ModelUnavailable(f"Version {number} of {model.name!r} is still being validated.", retry_after_ms=1000)
            raise NotFound(f"There is no version {number} of the model {model.name!r} that can serve: it is {row.status}.")


def route_of(row: Any, task: Task) -> VersionRoute:
    """Of a ModelVersionRow, or of a row with its columns."""
    proof = row.proof or {}
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
        tolerance=proof.get("tolerance") or 0.0,
        middle=proof.get("middle") or 0.0,
    )
