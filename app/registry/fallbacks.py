"""What models fall back on, read across tenants by the sync role: versions that they name, and what their aliases pointed at before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Integer, cast, false, literal, null, select

from app.registry.rows import AliasRow, ModelRow, ModelVersionRow, PromotionRow
from app.registry.types import Fallback, FallbackKind, VersionStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import CTE, Select


def named_fallbacks(of: Select[UUID] | None) -> Select[UUID, UUID, int]:
    """(tenant, model, number) of the versions that models name as their fallback: of the tenants that `of` selects, or of all."""
    number = cast(ModelRow.fallback["version"].astext, Integer)
    query = select(ModelRow.tenant_id, ModelRow.model_id, number.label("number")).where(_falls_back(FallbackKind.VERSION))
    return query if of is None else query.where(ModelRow.tenant_id.in_(of))


def previous_versions(of: Select[UUID] | None) -> Select[UUID, UUID, str, int]:
    """(tenant, model, alias, number) of what each alias would be rolled back to, of the models that fall back on that.

    Down the history from each alias's present revision, to the first version that can serve: as `aliases.previous` goes.
    """
    present = _present()
    steps = (present if of is None else present.where(AliasRow.tenant_id.in_(of))).cte("steps", recursive=True)
    found = steps.union_all(_further(steps))
    return select(found.c.tenant_id, found.c.model_id, found.c.alias, found.c.number).where(found.c.serves)


def fallback_of(data: dict[str, Any] | None) -> Fallback | None:
    """As the model's row has it; None where nothing answers in a failed version's place."""
    fallback = None if data is None else Fallback.from_json(data)
    return None if fallback is None or fallback.kind is FallbackKind.NONE else fallback


def _present() -> Select[UUID, UUID, str, int, int | None, int, bool]:
    """Where each alias is, as a step of which the version does not count."""
    of_alias = (PromotionRow.tenant_id == AliasRow.tenant_id) & (PromotionRow.model_id == AliasRow.model_id)
    of_alias &= (PromotionRow.alias == AliasRow.name) & (PromotionRow.revision == AliasRow.revision)
    columns = (
        AliasRow.tenant_id,
        AliasRow.model_id,
        AliasRow.name.label("alias"),
        cast(null(), Integer).label("number"),
        PromotionRow.parent_revision.label("parent"),
        AliasRow.number.label("present"),
        literal(False).label("serves"),
    )
    of_model = (ModelRow.tenant_id == AliasRow.tenant_id) & (ModelRow.model_id == AliasRow.model_id)
    return select(*columns).join(ModelRow, of_model).join(PromotionRow, of_alias).where(_falls_back(FallbackKind.PREVIOUS))


def _further(steps: CTE) -> Select[UUID, UUID, str, int, int | None, int, bool]:
    """One step down from where nothing was found that serves."""
    down = (PromotionRow.tenant_id == steps.c.tenant_id) & (PromotionRow.model_id == steps.c.model_id)
    down &= (PromotionRow.alias == steps.c.alias) & (PromotionRow.revision == steps.c.parent)
    of_version = (ModelVersionRow.tenant_id == PromotionRow.tenant_id) & (ModelVersionRow.model_id == PromotionRow.model_id)
    of_version &= ModelVersionRow.number == PromotionRow.number
    columns = (
        PromotionRow.tenant_id,
        PromotionRow.model_id,
        PromotionRow.alias,
        PromotionRow.number,
        PromotionRow.parent_revision,
        steps.c.present,
        (ModelVersionRow.status == VersionStatus.READY.value) & (ModelVersionRow.number != steps.c.present),
    )
    return select(*columns).join(steps, down).join(ModelVersionRow, of_version).where(steps.c.serves == false())


def _falls_back(kind: FallbackKind) -> ColumnElement[bool]:
    matches: ColumnElement[bool] = ModelRow.fallback["kind"].astext == kind.value
    return matches
