"""What a version's life depends on elsewhere: fallbacks that name it, versions that come from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from app.errors import Conflict, InvalidInput, NotFound
from app.kernel.signature import Task
from app.registry import rules, store
from app.registry.rows import AliasRow, ModelVersionRow
from app.registry.types import FallbackKind, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.registry.rows import ModelRow
    from app.registry.types import Fallback, VersionRegistration


async def check_fallback(session: AsyncSession, model: ModelRow, fallback: Fallback) -> None:
    """Returns where the fallback could answer for the model now; raises NotFound or InvalidInput."""
    status = None
    if fallback.version is not None:
        status = VersionStatus((await store.find_version(session, model, fallback.version)).status)
    rules.check_fallback_fits(fallback, Task(model.task), await _classes_known(session, model), status)


async def check_parent(session: AsyncSession, model: ModelRow, registration: VersionRegistration) -> None:
    """Returns where the version that this one comes from is there; raises InvalidInput."""
    parent = None if registration.lineage is None else registration.lineage.parent_version
    if parent is None:
        return
    try:
        await store.find_version(session, model, parent)
    except NotFound:
        raise InvalidInput(f"lineage.parentVersion is {parent}, and the model {model.name!r} has no such version.") from None


async def check_unused(session: AsyncSession, model: ModelRow, number: int) -> None:
    """Returns where nothing needs the version; raises Conflict that names what does. The caller holds the model's lock."""
    if users := await store.aliases_serving(session, model, number):
        raise Conflict(f"Version {number} of {model.name!r} serves {', '.join(users)}: promote another version there first.")
    fallback = model.fallback or {}
    if fallback.get("kind") == FallbackKind.VERSION and fallback.get("version") == number:
        raise Conflict(f"Version {number} of {model.name!r} is the model's fallback: name another with updateModel first.")


def check_no_experiment(model: ModelRow, number: int, using: Sequence[tuple[str, str]]) -> None:
    """Returns where `using`, (key, status) of experiments with the version, is empty; raises Conflict that names them."""
    if using:
        named = ", ".join(f"{key!r} ({status})" for key, status in using)
        raise Conflict(
            f"Version {number} of {model.name!r} is a variant of the experiment {named}: stop or conclude what runs, and conclude or"
            " change what is a draft, first."
        )


async def _classes_known(session: AsyncSession, model: ModelRow) -> frozenset[str] | None:
    """The labels of the versions that aliases point at; where there is none, of the newest READY version."""
    of_model = (ModelVersionRow.tenant_id == model.tenant_id) & (ModelVersionRow.model_id == model.model_id)
    aliased = select(AliasRow.number).where(AliasRow.tenant_id == model.tenant_id, AliasRow.model_id == model.model_id)
    labels = select(ModelVersionRow.classes).where(of_model, ModelVersionRow.classes.is_not(None))
    found = list((await session.execute(labels.where(ModelVersionRow.number.in_(aliased)))).scalars())
    if not found:
        newest = labels.where(ModelVersionRow.status == VersionStatus.READY.value).order_by(ModelVersionRow.number.desc()).limit(1)
        found = list((await session.execute(newest)).scalars())
    return frozenset(label for labels in found for label in labels) if found else None
