"""What a promotion asks and writes: of versions only what decides, for a version's row may hold megabytes that nobody asks for here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, Uuid, bindparam, select, text
from sqlalchemy.orm import aliased

from app.db.base import Bigint
from app.db.statement import Statement
from app.registry import store
from app.registry.rows import AliasRow, ModelRow, ModelVersionRow
from app.registry.types import VersionStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.reading import Reading
    from app.registry.types import Promotion


def _is_of_model(row: Any) -> Any:
    return (row.tenant_id == ModelRow.tenant_id) & (row.model_id == ModelRow.model_id)


_candidate, _serving = aliased(ModelVersionRow), aliased(ModelVersionRow)
_is_candidate = _is_of_model(_candidate) & (_candidate.number == bindparam("number"))
_BYTES = Statement(
    select(_candidate.status, _candidate.artifact_digest)
    .select_from(ModelRow)
    .outerjoin(_candidate, _is_candidate)
    .where(ModelRow.tenant_id == bindparam("tenant"), ModelRow.name == bindparam("name"))
)
_STANDING = Statement(
    select(
        AliasRow.number,
        AliasRow.revision,
        _candidate.status,
        *(column.label(f"candidate_{column.key}") for column in (_candidate.signature, _candidate.classes)),
        *(column.label(f"serving_{column.key}") for column in (_serving.signature, _serving.classes)),
    )
    .select_from(ModelRow)
    .outerjoin(AliasRow, _is_of_model(AliasRow) & (AliasRow.name == bindparam("alias")))
    .outerjoin(_candidate, _is_candidate)
    .outerjoin(_serving, _is_of_model(_serving) & (_serving.number == AliasRow.number))
    .where(ModelRow.tenant_id == bindparam("tenant"), ModelRow.model_id == bindparam("model"))
)
_MOVE = Statement(
    text("""
    with told as (
      insert into promotions (tenant_id, model_id, alias, revision, number, previous_number, parent_revision, at, by, reason, generation)
      values (:tenant_id, :model_id, :alias, :revision, :number, :previous_number, :parent_revision, :at, :by, :reason, :generation))
    insert into aliases (tenant_id, model_id, name, number, revision) values (:tenant_id, :model_id, :alias, :number, :revision)
    on conflict (tenant_id, model_id, name) do update set number = excluded.number, revision = excluded.revision
""").bindparams(
        *(bindparam(name, type_=Uuid()) for name in ("tenant_id", "model_id")),
        bindparam("at", type_=DateTime(timezone=True)),
        bindparam("generation", type_=Bigint),
    )
)


@dataclass(frozen=True, slots=True)
class Found:
    """What validation found out about a version, as JSON; None where nothing is known."""

    signature: Any
    classes: list[str] | None


@dataclass(frozen=True, slots=True)
class Standing:
    """An alias, a version that it may be pointed at, and the one that it serves; None where that is nothing yet."""

    state: store.AliasState
    number: int
    status: VersionStatus
    candidate: Found
    serving: Found | None


async def bytes_of(session: AsyncSession | Reading, tenant_id: UUID, model: str, number: int) -> tuple[VersionStatus, str | None]:
    """The version's status and its artifact's digest; raises NotFound."""
    known = store.known_number(number)
    row = await _BYTES.row(session, tenant=tenant_id, name=model, number=known) if store.is_name(model) else None
    if row is None:
        raise store.no_model(model)
    if row.status is None:
        raise store.no_version(model, number)
    return VersionStatus(row.status), row.artifact_digest


async def standing(session: AsyncSession, model: ModelRow, alias: str, number: int) -> Standing:
    """How things stand now; raises NotFound for the version. It is not to change meanwhile where the caller holds the model's lock."""
    known = store.known_number(number)
    row = await _STANDING.row(session, tenant=model.tenant_id, model=model.model_id, alias=alias, number=known)
    if row is None or row.status is None:  # None: the model went away since it was found
        raise store.no_version(model.name, number)
    state = store.AliasState(None, 0) if row.number is None else store.AliasState(row.number, row.revision)
    serving = None if row.number is None else Found(row.serving_signature, row.serving_classes)
    return Standing(state, number, VersionStatus(row.status), Found(row.candidate_signature, row.candidate_classes), serving)


async def point_alias(session: AsyncSession, model: ModelRow, promotion: Promotion, parent_revision: int | None) -> None:
    """Writes the history row and moves the alias to it, in one journey."""
    await _MOVE.rows(
        session,
        tenant_id=model.tenant_id,
        model_id=model.model_id,
        alias=promotion.alias,
        revision=promotion.revision,
        number=promotion.version,
        previous_number=promotion.previous_version,
        parent_revision=parent_revision,
        at=promotion.at,
        by=promotion.by,
        reason=promotion.reason,
        generation=promotion.generation,
    )
