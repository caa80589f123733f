"""Tombstones: what says that somebody was erased, for all who find something of them later."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.errors import InvalidInput
from app.journal.types import ERASURE_GRACE, WHOLE_TENANT
from app.tenancy.rows import TenantRow, TombstoneRow
from app.tenancy.types import TenantSettings, TenantStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.tenancy.types import Erasure

# For the driver, as the owner, who asks often. Oldest first: what was promised first is done first.
UNSWEPT = "select tenant_id, unit_hash, id, at from tombstones where swept_at is null order by at, id limit 1000"
WAITING = "select count(*) as erasures, min(at) as oldest from tombstones where swept_at is null"
SINCE = "select tenant_id, unit_hash, id, at from tombstones where at >= $1 order by at, id"
PRESENT = """
select t.id is not null as there from unnest($1::uuid[], $2::text[], $3::uuid[]) as g (tenant_id, unit_hash, id)
left join tombstones t using (tenant_id, unit_hash, id)"""
TENANTS = f"""
select tenant_id, status, settings::text as settings from tenants n
where status <> 'ERASED' or exists (
  select from tombstones t where t.tenant_id = n.tenant_id and t.unit_hash = '{WHOLE_TENANT}' and t.at > $1)
order by tenant_id"""  # noqa: S608  a constant


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One erased unit, by one of its pseudonyms; with WHOLE_TENANT the tenant itself."""

    tenant_id: UUID
    unit_hash: str
    id: UUID  # of the erasure
    at: datetime

    @property
    def until(self) -> datetime:
        """What happened to the unit up to here goes; later is a new life, which no old tombstone touches."""
        return self.at + ERASURE_GRACE

    @property
    def of_tenant(self) -> bool:
        return self.unit_hash == WHOLE_TENANT


async def stones_of(connection: Any, query: str, *given: Any) -> list[Tombstone]:
    """What UNSWEPT or SINCE finds, over a connection of the driver (asyncpg)."""
    return [Tombstone(row["tenant_id"], row["unit_hash"], row["id"], row["at"]) for row in await connection.fetch(query, *given)]


async def all_present(connection: Any, stones: Sequence[Tombstone]) -> bool:
    """Whether each of `stones` stands in the database."""
    columns = [stone.tenant_id for stone in stones], [stone.unit_hash for stone in stones], [stone.id for stone in stones]
    return all(row["there"] for row in await connection.fetch(PRESENT, *columns))


async def tenants_to_tend(connection: Any, since: datetime) -> list[tuple[UUID, TenantSettings | None]]:
    """Every tenant with what it wants kept, None where it was erased after `since`; one whose settings cannot be read is left alone."""
    found: list[tuple[UUID, TenantSettings | None]] = []
    for row in await connection.fetch(TENANTS, since):
        if row["status"] == TenantStatus.ERASED.value:
            found.append((row["tenant_id"], None))
            continue
        stored = json.loads(row["settings"])
        with suppress(InvalidInput):
            wanted = {name: stored[name] for name in ("retentionDays", "outcomeWindowDays") if name in stored}
            found.append((row["tenant_id"], TenantSettings.from_json(wanted)))
    return found


async def bury(session: AsyncSession, tenant_id: UUID, hashes: Collection[str], erasure: Erasure) -> None:
    """Adds the unit's stones, in the transaction that erases; `erasure.rows` are gone by its end."""
    first = {"tenant_id": tenant_id, "id": erasure.id, "at": erasure.at}
    rows: list[dict[str, Any]] = [{**first, "unit_hash": each, "rows": 0} for each in hashes]
    rows[0]["rows"] = erasure.rows
    await session.execute(insert(TombstoneRow).values(rows))


async def progress(session: AsyncSession, tenant_id: UUID, erasure_id: UUID) -> tuple[int, bool]:
    """How many rows are gone, and whether that is all."""
    row = TombstoneRow
    query = select(func.coalesce(func.sum(row.rows), 0), func.bool_and(row.swept_at.is_not(None)))
    rows, swept = (await session.execute(query.where(row.tenant_id == tenant_id, row.id == erasure_id))).one()
    return int(rows), bool(swept)


async def mark_swept(session: AsyncSession, stones: Iterable[Tombstone], rows: Mapping[str, int], now: datetime) -> None:
    """Notes that nothing of these is left, and how many more rows went, by pseudonym. As the owner."""
    row = TombstoneRow
    for stone in stones:
        these = (row.tenant_id == stone.tenant_id, row.unit_hash == stone.unit_hash, row.id == stone.id)
        values = {"swept_at": now, "rows": row.rows + rows.get(stone.unit_hash, 0)}
        await session.execute(update(row).where(*these).values(values))


async def restore(session: AsyncSession, tenant_id: UUID, stones: Collection[Tombstone]) -> int:
    """How many of the tenant's stones were missing and stand again, unswept: the database is older than they are. As the owner."""
    tenant = (await session.execute(select(TenantRow).where(TenantRow.tenant_id == tenant_id).with_for_update())).scalar_one_or_none()
    if tenant is None:
        return 0
    if any(stone.of_tenant for stone in stones):
        tenant.status, tenant.wrapped_secret, tenant.name, tenant.limits, tenant.settings = TenantStatus.ERASED.value, b"", "", {}, {}
    rows = [{"tenant_id": stone.tenant_id, "unit_hash": stone.unit_hash, "id": stone.id, "at": stone.at} for stone in stones]
    added = pg_insert(TombstoneRow).values(rows).on_conflict_do_nothing().returning(TombstoneRow.id)
    return len((await session.execute(added)).all())
