"""Queries of the registry: row in, value out. Each runs in the caller's transaction, under row-level security."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import bindparam, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.errors import Conflict, InvalidInput, NotFound
from app.kernel.names import folded
from app.kernel.proof import Proof
from app.kernel.signature import Column, Signature, Task
from app.registry.artifact_store import stamp_of
from app.registry.rows import AliasRow, ArtifactRow, ModelRow, ModelVersionRow, PromotionRow
from app.registry.types import (
    Alias,
    Artifact,
    Fallback,
    Lineage,
    Model,
    ModelVersion,
    Origin,
    Promotion,
    RuntimeKind,
    VersionEnvironment,
    VersionStatus,
)

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.inspection import InspectionReport
    from app.kernel.paging import PageRequest
    from app.kernel.proof import Compiled
    from app.registry.signing import TrustedKeys
    from app.registry.types import VersionRegistration

UNREAD = {"artifact": "refused"}  # the environment of a version whose bytes nobody opened
Keyed = list[tuple[tuple[str | int, ...], Any]]


def model_value(row: ModelRow) -> Model:
    fallback = None if row.fallback is None else Fallback.from_json(row.fallback)
    return Model(row.model_id, row.name, Task(row.task), row.description, fallback, row.cache_seconds)


def version_value(row: ModelVersionRow, model: str) -> ModelVersion:
    inspected = None if row.signature is None else Signature.from_json(row.signature)
    given = tuple(Column.from_json(c) for c in row.given_columns or ())
    return ModelVersion(
        model_id=row.model_id,
        model=model,
        number=row.number,
        status=VersionStatus(row.status),
        status_reason=row.status_reason,
        artifact_digest=row.artifact_digest,
        size_bytes=row.size_bytes,
        runtime=None if row.runtime is None else RuntimeKind(row.runtime),
        columns=given if inspected is None else inspected.columns,
        inspected=inspected,
        classes=None if row.classes is None else tuple(row.classes),
        metrics=row.metrics,
        tags=row.tags,
        description=row.description,
        created_at=row.created_at,
        created_by=row.created_by,
        lineage=None if row.lineage is None else Lineage.from_json(row.lineage),
        environment=None if row.environment is None else VersionEnvironment.from_json(row.environment),
        warning=row.warning,
        artifact_deleted_at=row.artifact_deleted_at,
        proof=None if row.proof is None else Proof.from_json(row.proof),
        origin=None if row.origin is None else Origin.from_json(row.origin),
    )


def promotion_value(row: PromotionRow, model: str) -> Promotion:
    return Promotion(
        model, row.alias, row.number, row.previous_number, row.revision, row.at, row.by, row.reason, row.model_id, row.generation
    )


_MODEL = select(ModelRow).where(ModelRow.tenant_id == bindparam("tenant"), ModelRow.name == bindparam("name"))
_MODEL_HELD = _MODEL.with_for_update()


async def find_model(session: AsyncSession, tenant_id: UUID, name: str, *, lock: bool = False) -> ModelRow:
    """The model's row, held until the transaction ends where `lock`; raises NotFound."""
    query = _MODEL_HELD if lock else _MODEL
    row = (await session.execute(query, {"tenant": tenant_id, "name": name})).scalar_one_or_none() if is_name(name) else None
    if row is None:
        raise no_model(name)
    return row


async def find_version(session: AsyncSession, model: ModelRow, number: int) -> ModelVersionRow:
    """The version's row; raises NotFound."""
    known = known_number(number)
    row = None if known is None else await session.get(ModelVersionRow, (model.tenant_id, model.model_id, known))
    if row is None:
        raise no_version(model.name, number)
    return row


def is_name(text: str) -> bool:
    """Whether a model may have it: PostgreSQL has no way to write a NUL, and refuses to be asked for one."""
    return "\0" not in text


def known_number(number: int) -> int | None:
    """None where no version can have it, for the database could not be asked."""
    return number if -(2**31) < number < 2**31 else None


def no_model(name: str) -> NotFound:
    return NotFound(f"There is no model named {name!r}.")


def no_version(model: str, number: int) -> NotFound:
    return NotFound(f"There is no version {number} of the model {model!r}.")


async def list_models(session: AsyncSession, tenant_id: UUID, page: PageRequest) -> Keyed:
    """Models by name."""
    query = select(ModelRow).where(ModelRow.tenant_id == tenant_id).order_by(ModelRow.name).limit(page.first + 1)
    if (after := page.after_text()) is not None:
        query = query.where(ModelRow.name > after)
    return [((row.name,), model_value(row)) for row in (await session.execute(query)).scalars()]


async def list_versions(session: AsyncSession, tenant_id: UUID, model: Model, page: PageRequest) -> Keyed:
    """A model's versions, highest number first."""
    query = select(ModelVersionRow).where(ModelVersionRow.tenant_id == tenant_id, ModelVersionRow.model_id == model.model_id)
    if (after := page.after_number()) is not None:
        query = query.where(ModelVersionRow.number < after)
    rows = await session.execute(query.order_by(ModelVersionRow.number.desc()).limit(page.first + 1))
    return [((row.number,), version_value(row, model.name)) for row in rows.scalars()]


async def versions_by_key(session: AsyncSession, tenant_id: UUID, keys: list[tuple[UUID, int]]) -> dict[tuple[UUID, int], ModelVersion]:
    """The versions of these (model, number) pairs, in one query."""
    query = (
        select(ModelVersionRow, ModelRow.name)
        .join(ModelRow, (ModelRow.tenant_id == ModelVersionRow.tenant_id) & (ModelRow.model_id == ModelVersionRow.model_id))
        .where(ModelVersionRow.tenant_id == tenant_id, tuple_(ModelVersionRow.model_id, ModelVersionRow.number).in_(keys))
    )
    return {(row.model_id, row.number): version_value(row, name) for row, name in await session.execute(query)}


async def aliases_of(session: AsyncSession, tenant_id: UUID, models: list[UUID]) -> dict[UUID, list[Alias]]:
    """Each model's aliases by name, in one query."""
    query = (
        select(AliasRow, ModelRow.name)
        .join(ModelRow, (ModelRow.tenant_id == AliasRow.tenant_id) & (ModelRow.model_id == AliasRow.model_id))
        .where(AliasRow.tenant_id == tenant_id, AliasRow.model_id.in_(models))
        .order_by(AliasRow.name)
    )
    found: dict[UUID, list[Alias]] = {model: [] for model in models}
    for row, name in await session.execute(query):
        found[row.model_id].append(Alias(row.model_id, name, row.name, row.number, row.revision))
    return found


async def list_promotions(session: AsyncSession, tenant_id: UUID, alias: Alias, page: PageRequest) -> Keyed:
    """An alias's history, newest first."""
    query = select(PromotionRow).where(
        PromotionRow.tenant_id == tenant_id, PromotionRow.model_id == alias.model_id, PromotionRow.alias == alias.name
    )
    if (after := page.after_number()) is not None:
        query = query.where(PromotionRow.revision < after)
    rows = await session.execute(query.order_by(PromotionRow.revision.desc()).limit(page.first + 1))
    return [((row.revision,), promotion_value(row, alias.model)) for row in rows.scalars()]


async def open_model(session: AsyncSession, tenant_id: UUID, registration: VersionRegistration, max_models: int) -> ModelRow:
    """The model's row under lock, made where it is the first version; raises Conflict for a clashing name or task, or one too many."""
    name = registration.model
    made = pg_insert(ModelRow).values(
        tenant_id=tenant_id, model_id=uuid4(), name=name, folded_name=folded(name), task=registration.task.value
    )
    is_new = (await session.execute(made.on_conflict_do_nothing().returning(ModelRow.model_id))).scalar_one_or_none() is not None
    query = select(ModelRow).where(ModelRow.tenant_id == tenant_id)
    row = (await session.execute(query.where(ModelRow.name == name).with_for_update())).scalar_one_or_none()
    if row is None:
        other = (await session.execute(query.where(ModelRow.folded_name == folded(name)))).scalar_one()
        raise Conflict(f"The name {name!r} clashes with your model {other.name!r}: they differ by hyphens alone.")
    if row.task != registration.task.value:
        raise Conflict(f"The model {name!r} is for {row.task}; register a {registration.task} model under another name.")
    if is_new:
        count = (await session.execute(select(func.count()).select_from(ModelRow).where(ModelRow.tenant_id == tenant_id))).scalar_one()
        if count > max_models:
            raise Conflict(f"Your tenant has {max_models} models, which is its limit.")
    return row


async def same_registration(session: AsyncSession, model: ModelRow, fingerprint: str) -> ModelVersionRow | None:
    """The version that this registration made before; one whose bytes were refused unread is none."""
    query = select(ModelVersionRow).where(
        ModelVersionRow.tenant_id == model.tenant_id,
        ModelVersionRow.model_id == model.model_id,
        ModelVersionRow.registration_hash == fingerprint,
        func.coalesce(ModelVersionRow.environment["artifact"].astext != UNREAD["artifact"], True),
    )
    return (await session.execute(query)).scalars().first()


async def registered(session: AsyncSession, tenant_id: UUID, model: str, fingerprint: str) -> ModelVersionRow | None:
    """As `same_registration`, of a model that may not be there; none where retention deleted its bytes."""
    query = select(ModelRow).where(ModelRow.tenant_id == tenant_id, ModelRow.name == model)
    row = (await session.execute(query)).scalar_one_or_none()
    found = None if row is None else await same_registration(session, row, fingerprint)
    return None if found is None or found.artifact_deleted_at is not None else found


async def find_artifact(session: AsyncSession, tenant_id: UUID, digest: str, keys: TrustedKeys) -> Artifact:
    """The uploaded artifact, whose bytes stay until the transaction ends; raises NotFound, or InvalidInput for want of a signature.

    Both say how to upload it.
    """
    row = await session.get(ArtifactRow, (tenant_id, digest), with_for_update={"read": True})
    if row is None:
        raise NotFound(f"There is no artifact {digest}: upload the file with POST /artifacts first.")
    if row.removed_at is not None:
        gone = f"The bytes of {digest} were deleted on {row.removed_at:%Y-%m-%d}, by retention"
        raise NotFound(f"{gone}: upload the file with POST /artifacts again.")
    if refusal := keys.refusal(digest, stamp_of(row)):
        raise InvalidInput(refusal)
    return Artifact(row.digest, row.size_bytes)


async def add_version(
    session: AsyncSession, model: ModelRow, registration: VersionRegistration, artifact: Artifact, fingerprint: str, by: str, at: datetime
) -> ModelVersionRow:
    """The new version's row with the next number; the caller holds the model's lock."""
    row = ModelVersionRow(
        tenant_id=model.tenant_id,
        model_id=model.model_id,
        number=model.next_number,
        status=VersionStatus.VALIDATING.value,
        artifact_digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        registration_hash=fingerprint,
        given_columns=None if registration.columns is None else [c.to_json() for c in registration.columns],
        sample=pack_sample(registration.sample),
        metrics=registration.metrics,
        tags=registration.tags,
        description=registration.description,
        lineage=None if registration.lineage is None else registration.lineage.to_json(),
        origin=None if registration.origin is None else registration.origin.to_json(),
        created_at=at,
        created_by=by,
    )
    model.next_number += 1
    session.add(row)
    await session.flush()
    return row


def pack_sample(rows: tuple[Any, ...]) -> Any:
    """The sample for a jsonb column, which forgets the order of keys: they are kept beside the rows."""
    if not rows:
        return None
    keys = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)
    return {"keys": list(keys), "rows": list(rows)}


def unpack_sample(stored: Any) -> tuple[Any, ...]:
    """The sample's rows as they were sent, keys in their order."""
    if stored is None:
        return ()
    keys = stored["keys"]
    return tuple({k: row[k] for k in keys if k in row} if isinstance(row, dict) else row for row in stored["rows"])


@dataclass(frozen=True, slots=True)
class AliasState:
    """An alias as it stands, under the model's lock. Revision 0: it points at nothing yet."""

    number: int | None
    revision: int


async def alias_state(session: AsyncSession, model: ModelRow, alias: str) -> AliasState:
    row = await session.get(AliasRow, (model.tenant_id, model.model_id, alias))
    return AliasState(None, 0) if row is None else AliasState(row.number, row.revision)


async def promotion_at(session: AsyncSession, model: ModelRow, alias: str, revision: int) -> PromotionRow | None:
    return await session.get(PromotionRow, (model.tenant_id, model.model_id, alias, revision))


async def aliases_serving(session: AsyncSession, model: ModelRow, number: int) -> list[str]:
    """The names of the aliases that point at this version."""
    query = select(AliasRow.name).where(
        AliasRow.tenant_id == model.tenant_id, AliasRow.model_id == model.model_id, AliasRow.number == number
    )
    return list((await session.execute(query.order_by(AliasRow.name))).scalars())


async def claim_validation(
    session: AsyncSession, tenant_id: UUID, model_id: UUID, number: int, now: datetime, lease: timedelta
) -> tuple[ModelVersionRow, str, str] | None:
    """(version, model name, task) where this caller may inspect it now; None where another does or it is done."""
    claim = (
        update(ModelVersionRow)
        .where(
            ModelVersionRow.tenant_id == tenant_id,
            ModelVersionRow.model_id == model_id,
            ModelVersionRow.number == number,
            ModelVersionRow.status == VersionStatus.VALIDATING.value,
            ModelVersionRow.claimed_until.is_(None) | (ModelVersionRow.claimed_until < now),
        )
        .values(claimed_until=now + lease)
        .returning(ModelVersionRow)
    )
    row = (await session.execute(claim)).scalar_one_or_none()
    if row is None:
        return None
    model = (
        await session.execute(select(ModelRow.name, ModelRow.task).where(ModelRow.tenant_id == tenant_id, ModelRow.model_id == model_id))
    ).one()
    return row, model.name, model.task


async def waits_for_validation(session: AsyncSession, tenant_id: UUID, model_id: UUID, number: int) -> bool:
    """Whether the version is still VALIDATING, claimed or not."""
    row = await session.get(ModelVersionRow, (tenant_id, model_id, number))
    return row is not None and row.status == VersionStatus.VALIDATING


async def finish_validation(
    session: AsyncSession,
    tenant_id: UUID,
    model_id: UUID,
    number: int,
    report: InspectionReport,
    compiled: Compiled | None = None,
    digest: str | None = None,
) -> bool:
    """Writes READY or FAILED; False where the version is no longer VALIDATING (withdrawn meanwhile).

    `compiled`: the verdict, None where there was nothing to compile. `digest`: of the graph that serves, None for none.
    """
    ready = report.failure is None and report.signature is not None
    found = {"status": VersionStatus.FAILED.value, "status_reason": report.failure, "retired_at": func.now()}
    done = (
        update(ModelVersionRow)
        .where(
            ModelVersionRow.tenant_id == tenant_id,
            ModelVersionRow.model_id == model_id,
            ModelVersionRow.number == number,
            ModelVersionRow.status == VersionStatus.VALIDATING.value,
        )
        .values(
            warning=" ".join(report.warnings) or None,
            environment={**report.environment, "estimator": report.estimator},
            claimed_until=None,
            **(_served_so(report, compiled, digest) if ready else found),
        )
        .returning(ModelVersionRow.number)
    )
    return (await session.execute(done)).scalar_one_or_none() is not None


def _served_so(report: InspectionReport, compiled: Compiled | None, digest: str | None) -> dict[str, Any]:
    """What a READY version is served by, and how."""
    graph = None if compiled is None or digest is None else compiled.graph
    return {
        "status": VersionStatus.READY.value,
        "runtime": (RuntimeKind.SKLEARN if graph is None else RuntimeKind.ONNX).value,
        "proof": None if compiled is None else compiled.proof.to_json(),
        "compiled_digest": digest,
        "compiled_size_bytes": None if graph is None else len(graph),
        "signature": None if report.signature is None else report.signature.to_json(),
        "classes": None if report.classes is None else list(report.classes),
    }


async def release_validation(session: AsyncSession, tenant_id: UUID, model_id: UUID, number: int) -> None:
    """Gives a claim back: nothing was found out."""
    await session.execute(
        update(ModelVersionRow)
        .where(ModelVersionRow.tenant_id == tenant_id, ModelVersionRow.model_id == model_id, ModelVersionRow.number == number)
        .values(claimed_until=None)
    )
