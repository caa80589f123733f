"""What serving needs of experiments, read across tenants by the sync role: those that run, and the versions that they need open."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Integer, cast, column, func, select

from app.db.base import Jsonb
from app.experiments.rows import ExperimentRow
from app.experiments.types import ExperimentSource, ExperimentStatus, RunningExperiment, TargetingRule, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from sqlalchemy import Select

_RUNS = ExperimentRow.status == ExperimentStatus.RUNNING.value
_OWN = ExperimentRow.source == ExperimentSource.TURNOUT.value


def running_queries(of: Select[UUID] | None) -> dict[str, Select[*tuple[Any, ...]]]:
    """What `running_of` reads: of the tenants that `of` selects, or of all. Only the service's own: Unleash's run by Unleash's word."""
    query = select(
        ExperimentRow.tenant_id,
        ExperimentRow.key,
        ExperimentRow.model,
        ExperimentRow.rollout,
        ExperimentRow.variants,
        ExperimentRow.layer,
        ExperimentRow.slots,
        ExperimentRow.targeting,
        ExperimentRow.overrides,
    ).where(_RUNS, _OWN)
    return {"experiments": query if of is None else query.where(ExperimentRow.tenant_id.in_(of))}


def running_of(rows: Mapping[str, Iterable[Any]]) -> dict[UUID, list[RunningExperiment]]:
    """Each tenant's running experiments by key, from the rows of `running_queries`; a tenant without one is not in it."""
    found: dict[UUID, list[RunningExperiment]] = defaultdict(list)
    for row in sorted(rows["experiments"], key=lambda row: str(row.key)):
        found[row.tenant_id].append(running_value(row))
    return dict(found)


def running_value(row: Any) -> RunningExperiment:
    """Of an ExperimentRow, or of a row of `running_queries`."""
    return RunningExperiment(
        key=row.key,
        model=row.model,
        rollout=row.rollout,
        variants=tuple(Variant.from_json(variant) for variant in row.variants),
        layer=row.layer,
        slots=tuple((start, end) for start, end in row.slots),
        targeting=tuple(TargetingRule.from_json(rule) for rule in row.targeting),
        overrides=tuple((unit_hash, variant) for unit_hash, variant in row.overrides),
    )


def needed_versions(of: Select[UUID] | None) -> Select[UUID, UUID, int]:
    """(tenant_id, model_id, number) of each version that a running experiment of either source may ask: shadows included.

    A variant that names an alias is not in it: what the alias points at is open anyway.
    """
    variant = func.jsonb_array_elements(ExperimentRow.variants).table_valued(column("value", Jsonb), joins_implicitly=True)
    number: ColumnElement[int] = cast(variant.c.value["version"].astext, Integer)
    query = select(ExperimentRow.tenant_id, ExperimentRow.model_id, number.label("number")).where(_RUNS, number.is_not(None))
    return (query if of is None else query.where(ExperimentRow.tenant_id.in_(of))).distinct()
