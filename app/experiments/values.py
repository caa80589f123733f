"""What happened afterwards: the outcomes of a unit become one value a metric, and these the sums of each arm. Statements of the fold.

As in `exposures`: one tenant, under the fold's lock, exact numerics, old state off and new state on. A unit's value is always computed
anew from all its outcomes between its first exposure and the end of the window, so no order of arrival and no repeat shows in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Integer, bindparam

from app.experiments.exposures import statement

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

# The time inside a prediction's id, which is the row's `at`: with it one partition is asked instead of all.
AT_OF = "timestamptz 'epoch' + ('x' || translate(left({0}::text, 13), '-', ''))::bit(48)::bigint * interval '1 millisecond'"

# What a token pinned to one unit said of another unit's prediction, or anybody of a row that the batch did not have, belongs to nothing.
_JOIN_PENDING = statement(f"""
with found as materialized (
    select o.id, p.unit_hash, (o.row is null or o.row < p.rows) and (o.unit_hash is null or o.unit_hash = p.unit_hash) as fits
    from outcomes o cross join lateral (
      select p.unit_hash, p.rows from predictions p
      where p.tenant_id = :tenant and p.id = o.prediction_id and p.at = {AT_OF.format("o.prediction_id")} limit 1
    ) p
    where o.tenant_id = :tenant and o.pending limit :batch
  ),
  joined as (
    update outcomes o set pending = false, unit_hash = case when f.fits then f.unit_hash end,
      prediction_id = case when f.fits then o.prediction_id end
    from found f where o.tenant_id = :tenant and o.id = f.id
    returning o.unit_hash
  ),
  marked as (
    insert into stale_units (tenant_id, unit_hash)
    select :tenant, unit_hash from joined where unit_hash is not null group by unit_hash
  )
select count(*) from found""")  # noqa: S608  constants

# `moves` has a row with sign -1 for what no longer counts and one with +1 for what does.
INTO_SUMS = """
  insert into metric_sums as s (tenant_id, experiment, metric, variant, counted, total, squares,
    both_counted, both_total, both_squares, both_cov_total, both_cov_squares, cross_products)
  select :tenant, experiment, metric, variant, sum(sign), trim_scale(sum(sign * y)), trim_scale(sum(sign * y * y)),
    coalesce(sum(sign) filter (where x is not null), 0),
    trim_scale(coalesce(sum(sign * y) filter (where x is not null), 0)),
    trim_scale(coalesce(sum(sign * y * y) filter (where x is not null), 0)),
    trim_scale(coalesce(sum(sign * x), 0)), trim_scale(coalesce(sum(sign * x * x), 0)), trim_scale(coalesce(sum(sign * x * y), 0))
  from moves group by experiment, metric, variant
  on conflict (tenant_id, experiment, metric, variant) do update set
    counted = s.counted + excluded.counted, total = trim_scale(s.total + excluded.total),
    squares = trim_scale(s.squares + excluded.squares), both_counted = s.both_counted + excluded.both_counted,
    both_total = trim_scale(s.both_total + excluded.both_total),
    both_squares = trim_scale(s.both_squares + excluded.both_squares),
    both_cov_total = trim_scale(s.both_cov_total + excluded.both_cov_total),
    both_cov_squares = trim_scale(s.both_cov_squares + excluded.both_cov_squares),
    cross_products = trim_scale(s.cross_products + excluded.cross_products)"""

# Sums and means are taken over exact decimals and rounded to a float once, so that the order of rows does not matter.
_COUNT_VALUES = statement(f"""
with taken as (
    delete from stale_units where tenant_id = :tenant and unit_hash in (
      select unit_hash from stale_units where tenant_id = :tenant group by unit_hash order by unit_hash limit :batch)
    returning unit_hash
  ),
  units as materialized (select unit_hash from taken group by unit_hash),
  places as materialized (
    select e.experiment, m.name as metric, m.aggregation, e.unit_hash, e.variant, e.covariate, e.first_at
    from units u
    join exposures e on e.tenant_id = :tenant and e.unit_hash = u.unit_hash
    left join experiments k on k.tenant_id = :tenant and k.key = e.experiment
    join metrics m on m.tenant_id = :tenant and (
      k.key is null or k.source = 'UNLEASH' or m.name = k.primary_metric
      or jsonb_exists(k.secondary_metrics, m.name) or jsonb_exists(k.guardrails, m.name))
  ),
  present as (
    select p.*, o.value from places p cross join lateral (
      select case p.aggregation
        when 'ANY' then max((o.value <> 0)::int)
        when 'SUM' then sum(o.value::text::numeric)::float8
        when 'MEAN' then sum(o.value::text::numeric)::float8 / count(*)
        else (array_agg(o.value order by o.occurred_at desc, o.id desc))[1] end as value
      from outcomes o
      where o.tenant_id = :tenant and o.unit_hash = p.unit_hash and o.metric = p.metric and not o.pending
        and o.occurred_at >= p.first_at and o.occurred_at <= p.first_at + make_interval(hours => 24 * :days)
    ) o
  ),
  changed as materialized (
    select p.experiment, p.metric, p.unit_hash, p.value, p.variant, p.covariate,
      v.value as old_value, v.variant as old_variant, v.covariate as old_covariate
    from present p left join unit_values v
      on v.tenant_id = :tenant and v.experiment = p.experiment and v.metric = p.metric and v.unit_hash = p.unit_hash
    where p.value is distinct from v.value
      or (p.value is not null and (p.variant, p.covariate) is distinct from (v.variant, v.covariate))
  ),
  written as (
    insert into unit_values as v (tenant_id, experiment, metric, unit_hash, variant, value, covariate)
    select :tenant, experiment, metric, unit_hash, variant, value, covariate from changed where value is not null
    on conflict (tenant_id, experiment, metric, unit_hash) do update set
      variant = excluded.variant, value = excluded.value, covariate = excluded.covariate
  ),
  removed as (
    delete from unit_values v using changed c
    where c.value is null and v.tenant_id = :tenant
      and v.experiment = c.experiment and v.metric = c.metric and v.unit_hash = c.unit_hash
  ),
  moves as (
    select experiment, metric, variant, 1 as sign, value::text::numeric as y, covariate::text::numeric as x
    from changed where value is not null
    union all
    select experiment, metric, old_variant, -1, old_value::text::numeric, old_covariate::text::numeric
    from changed where old_value is not null
  ),
  counted as ({INTO_SUMS})
select count(*) from units""").bindparams(bindparam("days", type_=Integer()))  # noqa: S608  constants

_FORGET_VALUES = statement("delete from unit_values where tenant_id = :tenant")
_EMPTY_SUMS = statement("""
update metric_sums set counted = 0, total = 0, squares = 0, both_counted = 0, both_total = 0, both_squares = 0, both_cov_total = 0,
  both_cov_squares = 0, cross_products = 0 where tenant_id = :tenant""")
_ALL_STALE = statement("""
insert into stale_units (tenant_id, unit_hash)
select :tenant, unit_hash from outcomes where tenant_id = :tenant and unit_hash is not null and not pending group by unit_hash""")


async def join_pending(session: AsyncSession, tenant_id: UUID, batch: int) -> int:
    """How many pending outcomes, at most `batch`, met their prediction."""
    found: int = (await session.execute(_JOIN_PENDING, {"tenant": tenant_id, "batch": batch})).scalar_one()
    return found


async def count_values(session: AsyncSession, tenant_id: UUID, window_days: int, batch: int) -> int:
    """How many stale units, at most `batch`, have their values computed anew."""
    units: int = (await session.execute(_COUNT_VALUES, {"tenant": tenant_id, "days": window_days, "batch": batch})).scalar_one()
    return units


async def forget_values(session: AsyncSession, tenant_id: UUID) -> None:
    """All sums at nothing and every unit with an outcome stale: `count_values` then makes them from the raw outcomes."""
    for each in (_FORGET_VALUES, _EMPTY_SUMS, _ALL_STALE):
        await session.execute(each, {"tenant": tenant_id})
