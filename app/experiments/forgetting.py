"""Forgetting units: their rows go, and with them exactly what they had added to the sums, so that these are what a rebuild gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, DateTime, Text, Uuid, bindparam

from app.experiments.exposures import INTO_TALLIES, statement
from app.experiments.folding import hold
from app.experiments.outcome_rules import first_outcome_id
from app.experiments.values import AT_OF, INTO_SUMS

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncSession

_BATCH = 2_000


def _of_units(sql: str) -> TextClause:
    """`sql` with :tenant, :hashes and :until."""
    typed = statement(sql).bindparams(bindparam("hashes", type_=ARRAY(Text())))
    return typed.bindparams(bindparam("until", type_=DateTime(timezone=True))) if ":until" in sql else typed


_QUEUED = _of_units(f"""
with exposures_too as (
    delete from exposure_queue where tenant_id = :tenant and unit_hash = any (:hashes) and at <= :until returning 1
  ),
  covariates_too as (
    delete from covariate_queue where tenant_id = :tenant and unit_hash = any (:hashes) and {AT_OF.format("prediction_id")} <= :until
    returning 1
  )
select (select count(*) from exposures_too) + (select count(*) from covariates_too)""")  # noqa: S608  constants

_VALUES = _of_units(f"""
with gone as (
    delete from unit_values v using exposures e, metrics m
    where e.tenant_id = :tenant and e.unit_hash = any (:hashes) and e.first_at <= :until and m.tenant_id = :tenant
      and v.tenant_id = :tenant and v.experiment = e.experiment and v.metric = m.name and v.unit_hash = e.unit_hash
    returning v.experiment, v.metric, v.variant, v.value, v.covariate
  ),
  moves as (select experiment, metric, variant, -1 as sign, value::text::numeric as y, covariate::text::numeric as x from gone),
  counted as ({INTO_SUMS})
select count(*) from gone""")  # noqa: S608  constants

_EXPOSURES = _of_units(f"""
with gone as (
    delete from exposures where tenant_id = :tenant and unit_hash = any (:hashes) and first_at <= :until
    returning experiment, variant, requests, fallbacks, covariate
  ),
  moves as (select experiment, variant, -1 as sign, requests, fallbacks, covariate from gone),
  counted as ({INTO_TALLIES})
select count(*) from gone""")  # noqa: S608  constants

_OUTCOMES = _of_units(f"""
with gone as (
    delete from outcomes where tenant_id = :tenant and unit_hash = any (:hashes)
      and least(occurred_at, recorded_at, {AT_OF.format("prediction_id")}) <= :until
    returning 1
  )
select count(*) from gone""")  # noqa: S608  constants

# A unit that came back since is counted anew from what is left of it.
_STALE = _of_units("delete from stale_units where tenant_id = :tenant and unit_hash = any (:hashes)")
_COUNT_AGAIN = _of_units("""
insert into stale_units (tenant_id, unit_hash)
select :tenant, unit_hash from exposures where tenant_id = :tenant and unit_hash = any (:hashes) group by unit_hash""")

_OVERRIDES = _of_units("""
with changed as (
    update experiments e set overrides = (
      select coalesce(jsonb_agg(o.pair order by o.n), '[]') from jsonb_array_elements(e.overrides) with ordinality o (pair, n)
      where o.pair ->> 0 <> all (:hashes))
    where e.tenant_id = :tenant
      and exists (select from jsonb_array_elements(e.overrides) o (pair) where o.pair ->> 0 = any (:hashes))
    returning 1
  )
select count(*) from changed""")


_EXPIRE = statement("""
with gone as (
    delete from outcomes o using (select id from outcomes where tenant_id = :tenant and id < :first order by id limit :batch) old
    where o.tenant_id = :tenant and o.id = old.id returning 1
  )
select count(*) from gone""").bindparams(bindparam("first", type_=Uuid()))


async def forget_units(session: AsyncSession, tenant_id: UUID, hashes: Collection[str], until: datetime) -> int:
    """How many rows went with the units of these pseudonyms: exposures, outcomes, values, what waits to be counted, overrides.

    Of what happened after `until` nothing goes: a unit that comes back begins anew. In the caller's transaction, which holds the
    tenant's fold from now on; the caller announces it, for overrides decide. Raises Unavailable where a fold takes too long.
    """
    await hold(session, tenant_id)
    units = {"tenant": tenant_id, "hashes": list(hashes)}
    rows = 0
    for each in (_QUEUED, _VALUES, _EXPOSURES, _OUTCOMES):  # values first: they are found by their exposures
        rows += int((await session.execute(each, {**units, "until": until})).scalar_one())
    await session.execute(_STALE, units)
    await session.execute(_COUNT_AGAIN, units)
    return rows + int((await session.execute(_OVERRIDES, units)).scalar_one())


async def expire_outcomes(session: AsyncSession, tenant_id: UUID, before: datetime, batch: int = _BATCH) -> tuple[int, bool]:
    """How many outcomes that were recorded before `before` went, and whether there may be more; at most `batch` at once.

    Nothing counts them any more, but all that they had added to the sums stays: a rebuild reaches back as far as outcomes do.
    """
    given = {"tenant": tenant_id, "first": first_outcome_id(before), "batch": batch}
    rows = int((await session.execute(_EXPIRE, given)).scalar_one())
    return rows, rows >= batch


class UnitForgetter:
    """`forget_units` as an object, for those who know it by their port alone."""

    async def forget_units(self, session: AsyncSession, tenant_id: UUID, hashes: Collection[str], until: datetime) -> int:
        return await forget_units(session, tenant_id, hashes, until)
