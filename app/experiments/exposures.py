"""Who saw what: queued predictions become first exposures, and these the tallies of each arm. Statements of the fold.

All run in the transaction of one tenant under the fold's lock, so nobody else writes these tables meanwhile. A unit's first exposure is
the one with the least (time, prediction id), in whatever order they arrive; a unit that was seen under two variants counts in that
of its first. Each statement takes the old state of the units at hand off the tallies and puts the new one on.
What a fallback answered is an exposure of the arm that was to answer (intention to treat): units on which an arm fails are not left out
of it, or it would be judged by those that it can serve. Its score is another version's, so that it is nobody's covariate.
An experiment ends at its planned units: those that come after them are served and not counted, or the last look could be repeated
until it says what somebody would like to hear.

Numbers become numeric by their shortest decimal that reads back as the same float, of up to 17 digits. Sums, squares and products of
those are exact, so taking away undoes adding, and no order of arrival shows in a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Integer, Uuid, bindparam, text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncSession


def statement(sql: str) -> TextClause:
    """`sql` with the parameter :tenant, and :batch where it has one."""
    typed = text(sql).bindparams(bindparam("tenant", type_=Uuid()))
    return typed.bindparams(bindparam("batch", type_=Integer())) if ":batch" in sql else typed


def _usable(score: str) -> str:
    """A covariate so large or small that its square leaves what floats can hold is as good as none."""
    return f"case when {score} = 0 or abs({score}) between 1e-100 and 1e100 then {score} end"


def _told(prediction: str) -> str:
    """What control said of the input of a prediction that another arm answered."""
    return f"""(
      select {_usable("a.score")} from shadow_answers a
      where a.tenant_id = :tenant and a.prediction_id = {prediction} and a.kind = 'COVARIATE' and a.row = 0 and a.score is not null
      order by a.variant limit 1)"""  # noqa: S608  constants


# `moves` has a row with sign -1 for what no longer counts and one with +1 for what does.
INTO_TALLIES = """
  insert into exposure_tallies as t (tenant_id, experiment, variant, units, requests, covered, cov_total, cov_squares, fell_back)
  select :tenant, experiment, variant, sum(sign), sum(sign * requests), coalesce(sum(sign) filter (where x is not null), 0),
    trim_scale(coalesce(sum(sign * x), 0)), trim_scale(coalesce(sum(sign * x * x), 0)), coalesce(sum(sign) filter (where fallbacks > 0), 0)
  from (select experiment, variant, sign, requests, fallbacks, covariate::text::numeric as x from moves) exact
  group by experiment, variant
  on conflict (tenant_id, experiment, variant) do update set
    units = t.units + excluded.units, requests = t.requests + excluded.requests, covered = t.covered + excluded.covered,
    cov_total = trim_scale(t.cov_total + excluded.cov_total), cov_squares = trim_scale(t.cov_squares + excluded.cov_squares),
    fell_back = t.fell_back + excluded.fell_back"""
_CONTROLS = """
  controls as materialized (
    select k.key as experiment,
      (select v ->> 'name' from jsonb_array_elements(k.variants) v where (v ->> 'control')::boolean limit 1) as control
    from experiments k where k.tenant_id = :tenant
  )"""
_COUNT_EXPOSURES = statement(f"""
with taken as (
    delete from exposure_queue where tenant_id = :tenant
      and id in (select id from exposure_queue where tenant_id = :tenant order by id limit :batch)
    returning id, at, experiment, variant, version, unit_hash, propensity, score, fell_back
  ),
  seen as (
    select distinct on (experiment, unit_hash) *, count(*) over (partition by experiment, unit_hash) as requests,
      count(*) filter (where fell_back) over (partition by experiment, unit_hash) as fallbacks
    from taken order by experiment, unit_hash, at, id
  ),
  {_CONTROLS},
  known as materialized (
    select s.*, o.variant as old_variant, o.requests as old_requests, o.fallbacks as old_fallbacks, o.covariate as old_covariate,
      o.unit_hash is null as is_new,
      o.unit_hash is null or (s.at, s.id) < (o.first_at, o.prediction_id) as leads,
      row_number() over (partition by s.experiment, o.unit_hash is null order by s.at, s.id) as place
    from seen s left join exposures o on o.tenant_id = :tenant and o.experiment = s.experiment and o.unit_hash = s.unit_hash
  ),
  room as materialized (
    select k.key as experiment, k.planned_units - coalesce(
      (select sum(t.units) from exposure_tallies t where t.tenant_id = :tenant and t.experiment = k.key), 0) as units
    from experiments k where k.tenant_id = :tenant and k.planned_units is not null
  ),
  state as materialized (
    select k.* from known k left join room r using (experiment) where not k.is_new or r.units is null or k.place <= r.units
  ),
  units as materialized (
    select s.*, case when s.leads
      then coalesce(case when s.variant = c.control then {_usable("s.score")} end, {_told("s.id")}) else s.old_covariate end as covariate
    from state s left join controls c using (experiment)
  ),
  added as (
    insert into exposures
      (tenant_id, experiment, unit_hash, variant, version, first_at, prediction_id, requests, propensity, covariate, fallbacks)
    select :tenant, experiment, unit_hash, variant, version, at, id, requests, propensity, covariate, fallbacks from units where is_new
  ),
  again as (
    update exposures e set requests = e.requests + u.requests, fallbacks = e.fallbacks + u.fallbacks
    from units u where not u.leads and e.tenant_id = :tenant and e.experiment = u.experiment and e.unit_hash = u.unit_hash
  ),
  earlier as (
    update exposures e set requests = e.requests + u.requests, fallbacks = e.fallbacks + u.fallbacks, variant = u.variant,
      version = u.version, first_at = u.at, prediction_id = u.id, propensity = u.propensity, covariate = u.covariate
    from units u where u.leads and not u.is_new and e.tenant_id = :tenant and e.experiment = u.experiment and e.unit_hash = u.unit_hash
  ),
  moves as (
    select experiment, case when leads then variant else old_variant end as variant, 1 as sign,
      requests + coalesce(old_requests, 0) as requests, fallbacks + coalesce(old_fallbacks, 0) as fallbacks, covariate from units
    union all
    select experiment, old_variant, -1, old_requests, old_fallbacks, old_covariate from units where not is_new
  ),
  counted as ({INTO_TALLIES}),
  marked as (
    insert into stale_units (tenant_id, unit_hash)
    select :tenant, unit_hash from units u
    where leads and exists (select from outcomes o where o.tenant_id = :tenant and o.unit_hash = u.unit_hash)
    group by unit_hash
  )
select count(*) from taken""")  # noqa: S608  constants

# A covariate whose exposure is not there yet is found when that comes: only late ones are looked for here.
_COUNT_COVARIATES = statement(f"""
with taken as (
    delete from covariate_queue where tenant_id = :tenant
      and prediction_id in (select prediction_id from covariate_queue where tenant_id = :tenant order by prediction_id limit :batch)
    returning prediction_id, experiment, unit_hash
  ),
  late as materialized (
    select e.experiment, e.unit_hash, e.variant, e.requests, e.fallbacks, {_told("e.prediction_id")} as covariate
    from taken q join exposures e on e.tenant_id = :tenant and e.experiment = q.experiment and e.unit_hash = q.unit_hash
      and e.prediction_id = q.prediction_id and e.covariate is null
  ),
  written as (
    update exposures e set covariate = l.covariate
    from late l where l.covariate is not null and e.tenant_id = :tenant and e.experiment = l.experiment and e.unit_hash = l.unit_hash
  ),
  moves as (
    select experiment, variant, 1 as sign, requests, fallbacks, covariate from late where covariate is not null
    union all
    select experiment, variant, -1, requests, fallbacks, null from late where covariate is not null
  ),
  counted as ({INTO_TALLIES}),
  marked as (
    insert into stale_units (tenant_id, unit_hash)
    select :tenant, unit_hash from late l
    where covariate is not null and exists (select from outcomes o where o.tenant_id = :tenant and o.unit_hash = l.unit_hash)
    group by unit_hash
  )
select count(*) from taken""")  # noqa: S608  constants

_FILL_COVARIATES = statement(f"""
with {_CONTROLS}
update exposures e set covariate = found.covariate
from (
  select m.experiment, m.unit_hash,
    coalesce(case when m.variant = c.control and p.reason = 'EXPERIMENT' then {_usable("p.score")} end, {_told("m.prediction_id")})
      as covariate
  from exposures m left join controls c using (experiment)
    left join predictions p on p.tenant_id = :tenant and p.id = m.prediction_id and p.at = m.first_at
  where m.tenant_id = :tenant and m.covariate is null
) found
where found.covariate is not null and e.tenant_id = :tenant and e.experiment = found.experiment and e.unit_hash = found.unit_hash
""")  # noqa: S608  constants
_EMPTY_TALLIES = statement("""
update exposure_tallies set units = 0, requests = 0, covered = 0, cov_total = 0, cov_squares = 0, fell_back = 0
where tenant_id = :tenant""")
_TALLY_ANEW = statement(f"""
with moves as (select experiment, variant, 1 as sign, requests, fallbacks, covariate from exposures where tenant_id = :tenant)
{INTO_TALLIES}""")  # noqa: S608  constants


async def count_exposures(session: AsyncSession, tenant_id: UUID, batch: int) -> int:
    """How many queued predictions were counted, at most `batch`."""
    taken: int = (await session.execute(_COUNT_EXPOSURES, {"tenant": tenant_id, "batch": batch})).scalar_one()
    return taken


async def count_covariates(session: AsyncSession, tenant_id: UUID, batch: int) -> int:
    """How many queued covariates were looked at, at most `batch`."""
    taken: int = (await session.execute(_COUNT_COVARIATES, {"tenant": tenant_id, "batch": batch})).scalar_one()
    return taken


async def tally_anew(session: AsyncSession, tenant_id: UUID) -> None:
    """All tallies from the exposures themselves, with covariates that are known by now and were not when their unit came."""
    for each in (_FILL_COVARIATES, _EMPTY_TALLIES, _TALLY_ANEW):
        await session.execute(each, {"tenant": tenant_id})
