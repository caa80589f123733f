"""How many bytes of artifacts a tenant keeps, and for how long: what storage costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from datetime import date, datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_HELD = text("""
    select coalesce(sum(size_bytes) filter (where removed_at is null or removed_at >= :end), 0)::bigint as bytes,
      coalesce(sum(size_bytes * (1000000 * (extract(epoch from least(removed_at, :end))
        - extract(epoch from greatest(created_at, :start))))::numeric), 0)::numeric as byte_us
    from artifacts where tenant_id = :tenant and created_at < :end and (removed_at is null or removed_at > :start)""")
# An artifact of several versions counts for the first by name and number, so that the sum is what is kept.
_BY_DAY = text("""
    with bound as (
      select distinct on (v.artifact_digest) v.artifact_digest as digest, m.name, v.number from model_versions v
      join models m on m.tenant_id = v.tenant_id and m.model_id = v.model_id
      where v.tenant_id = :tenant and v.artifact_digest is not null order by v.artifact_digest, m.name, v.number),
    days as (
      select day::date as day, least((day + interval '1 day') at time zone 'UTC', :now) as moment
      from generate_series(cast(:first as timestamp), cast(:last as timestamp), interval '1 day') as day)
    select d.day, b.name, b.number, sum(a.size_bytes)::bigint as bytes
    from days d join artifacts a on a.created_at < d.moment and (a.removed_at is null or a.removed_at >= d.moment)
    left join bound b on b.digest = a.digest
    where a.tenant_id = :tenant group by 1, 2, 3 order by 1, 2, 3""")


@dataclass(frozen=True, slots=True)
class Held:
    """`size_bytes` at the end of a time, and the sum over it of bytes times microseconds."""

    size_bytes: int
    byte_us: int


@dataclass(frozen=True, slots=True)
class HeldByVersion:
    """At the end of one UTC day. `model` and `version` are None for uploads that no version was registered from."""

    day: date
    model: str | None
    version: int | None
    size_bytes: int


async def held_between(session: AsyncSession, tenant_id: UUID, start: datetime, end: datetime) -> Held:
    """What the tenant kept from `start` to `end`, which is not after now; bytes that went by retention count until they went."""
    row = (await session.execute(_HELD, {"tenant": tenant_id, "start": start, "end": end})).one()
    return Held(row.bytes, int(row.byte_us))


async def held_by_version(session: AsyncSession, tenant_id: UUID, first: date, last: date, now: datetime) -> list[HeldByVersion]:
    """What was kept at the end of each UTC day from `first` to `last`, of today: now."""
    rows = await session.execute(_BY_DAY, {"tenant": tenant_id, "first": first, "last": last, "now": now})
    return [HeldByVersion(row.day, row.name, row.number, row.bytes) for row in rows]
