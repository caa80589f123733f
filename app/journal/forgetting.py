"""Forgetting in the log, as the owner: answers lose their unit, what was computed or kept beside them goes; a bounded slice at a time.

The log is ordered by time and knows no unit by an index, which each answer would pay for. So a sweep reads a tenant's log once, for all
units that wait, in slices of time that are longer where there is little.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, Integer, Text, Uuid, bindparam, text

from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database

_FIRST_SLICE, _SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(milliseconds=100), timedelta(days=64)
_QUICK_S, _SLOW_S = 0.1, 0.4
_BATCH = 2_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _typed(sql: str, **kinds: Any) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, type_=kind) for name, kind in {"tenant": Uuid(), **kinds}.items()))


_AT = DateTime(timezone=True)
_UNITS = "g as (select * from unnest(:hashes, :untils) as g (hash, until))"
_ARRAYS = {"hashes": ARRAY(Text()), "untils": ARRAY(_AT)}
_SLICE = _typed(
    f"""
with {_UNITS},
  answers as (
    update predictions p set unit_hash = null from g
    where p.tenant_id = :tenant and p.at >= :start and p.at < :stop and p.unit_hash = g.hash and p.at <= g.until returning g.hash
  ),
  beside as (
    delete from shadow_answers s using g
    where s.tenant_id = :tenant and s.prediction_id >= :first and s.prediction_id < :last and s.unit_hash = g.hash and s.at <= g.until
    returning g.hash
  )
select hash, count(*) from (select hash from answers union all select hash from beside) gone group by hash""",  # noqa: S608  constants
    **_ARRAYS, start=_AT, stop=_AT, first=Uuid(), last=Uuid(),
)  # fmt: skip
_INPUTS = _typed(
    f"""
with {_UNITS},
  gone as (
    delete from captured_inputs i using g where i.tenant_id = :tenant and i.unit_hash = g.hash and i.at <= g.until returning g.hash
  )
select hash, count(*) from gone group by hash""",  # noqa: S608  constants
    **_ARRAYS,
)
_OLDEST = _typed("""
select least((select at from predictions where tenant_id = :tenant order by at limit 1),
             (select at from shadow_answers where tenant_id = :tenant order by prediction_id limit 1))""")
_EXPIRE = _typed(
    """
with answers as (
    delete from predictions p using (
      select id, at from predictions where tenant_id = :tenant and at < :before order by at limit :batch) old
    where p.tenant_id = :tenant and p.id = old.id and p.at = old.at returning 1
  ),
  beside as (
    delete from shadow_answers s using (
      select prediction_id, kind, variant, row from shadow_answers
      where tenant_id = :tenant and prediction_id < :first order by prediction_id limit :batch) old
    where s.tenant_id = :tenant and s.prediction_id = old.prediction_id and s.kind = old.kind and s.variant = old.variant
      and s.row = old.row returning 1
  ),
  inputs as (
    delete from captured_inputs i using (
      select prediction_id from captured_inputs
      where tenant_id = :tenant and prediction_id < :first order by prediction_id limit :batch) old
    where i.tenant_id = :tenant and i.prediction_id = old.prediction_id returning 1
  )
select (select count(*) from answers), (select count(*) from beside), (select count(*) from inputs)""",
    before=_AT, first=Uuid(), batch=Integer(),
)  # fmt: skip


def first_id_at(at: datetime) -> UUID:
    """Before every id that was made at `at` or later, behind all that were made earlier, to the millisecond."""
    return UUID(int=((at - _EPOCH) // timedelta(milliseconds=1)) << 80)


async def forget_units(database: Database, tenant_id: UUID, units: Mapping[str, datetime]) -> AsyncIterator[Counter[str]]:
    """Rows that changed or went, by pseudonym, a slice at a time. `units`: pseudonym and until when what is told of it goes.

    `database` is the owner's. Raises Unavailable where even the shortest slice does not get done.
    """
    named = {"tenant": tenant_id, "hashes": list(units), "untils": list(units.values())}
    async with database.tenant_tx(tenant_id) as session:
        yield await _counted(session, _INPUTS, named)
        oldest: datetime | None = (await session.execute(_OLDEST, {"tenant": tenant_id})).scalar_one()
    start, end, length = oldest, max(units.values()) + timedelta(milliseconds=1), _FIRST_SLICE
    while start is not None and start < end:
        stop, began = min(start + length, end), time.monotonic()
        slice_ = {"start": start, "stop": stop, "first": first_id_at(start), "last": first_id_at(stop + timedelta(milliseconds=1))}
        try:
            async with database.tenant_tx(tenant_id) as session:
                rows = await _counted(session, _SLICE, {**named, **slice_})
        except Unavailable:
            if length <= _SHORTEST:
                raise
            length = max(length / 16, _SHORTEST)
            continue
        start, length = stop, _next_length(length, time.monotonic() - began)
        yield rows


async def expire(session: AsyncSession, tenant_id: UUID, before: datetime, batch: int = _BATCH) -> tuple[int, bool]:
    """How many rows of the tenant from before `before` went, and whether there may be more: at most `batch` of each table go at once."""
    given = {"tenant": tenant_id, "before": before, "first": first_id_at(before), "batch": batch}
    counts = [int(count) for count in (await session.execute(_EXPIRE, given)).one()]
    return sum(counts), max(counts) >= batch


async def _counted(session: AsyncSession, statement: TextClause, given: Mapping[str, Any]) -> Counter[str]:
    return Counter({unit: int(count) for unit, count in await session.execute(statement, given)})


def _next_length(length: timedelta, took_s: float) -> timedelta:
    if took_s < _QUICK_S:
        return min(2 * length, _LONGEST)
    return max(length / 2, _SHORTEST) if took_s > _SLOW_S else length
