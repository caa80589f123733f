"""The daily partitions of `predictions`: made ahead, dropped by age. The owner's work, done by the parent process."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from app.db.driver import connect, run_blocking, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from app.kernel.clock import Clock

_NAME = re.compile(r"predictions_(\d{4})(\d{2})(\d{2})")
_LOCK = 7_236_114_901  # advisory: one machine at a time makes and drops partitions
_BEHIND = 1  # days before today: midnight passes between an answer and its row
_TRIES = 5
_SERVER = {"application_name": "turnout-partitions", "timezone": "UTC", "statement_timeout": "20000", "lock_timeout": "1000"}
_CHILDREN = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('predictions') AND NOT i.inhdetachpending
"""
# A new table could carry default privileges; a partition with any of its own is a way round the parent's policies.
_GRANTEES = """
SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS name
FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1::regclass AND a.grantee <> c.relowner
"""


async def ensure_partitions(owner_url: str, clock: Clock, days_ahead: int = 14, also: Collection[date] = ()) -> list[date]:
    """The days that got a partition just now, so that yesterday to `days_ahead` days from today all have one, and `also`. Idempotent.

    Raises Unavailable where the database is away or somebody holds the table locked; call it again.
    """
    today = clock.now().astimezone(UTC).date()
    wanted = sorted({*(today + timedelta(days=n) for n in range(-_BEHIND, days_ahead + 1)), *also})
    async with _owner(owner_url) as connection:
        have = await _days(connection)
        return [day for day in wanted if day not in have and await _patiently(connection, _make, day)]


async def drop_expired(owner_url: str, retention_days: int, clock: Clock) -> list[date]:
    """The days that were dropped: those that ended more than `retention_days` days ago. Raises Unavailable."""
    first_kept = clock.now().astimezone(UTC).date() - timedelta(days=retention_days)
    async with _owner(owner_url) as connection:
        expired = sorted(day for day in await _days(connection) if day < first_kept)
        return [day for day in expired if await _patiently(connection, _drop, day)]


async def days_ahead(url: str, clock: Clock) -> int:
    """How many days after today have a partition, without a gap; -1 where today has none. Any role may ask. Raises Unavailable."""
    async with _owner(url) as connection:
        have = await _days(connection)
    day, ahead = clock.now().astimezone(UTC).date(), -1
    while day in have:
        day, ahead = day + timedelta(days=1), ahead + 1
    return ahead


def keep_partitions(owner_url: str, retention_days: int, clock: Clock) -> tuple[list[date], list[date]]:
    """What was made and what was dropped; for the supervisor, which has no event loop, at start and every hour. Raises Unavailable."""

    async def both() -> tuple[list[date], list[date]]:
        return await ensure_partitions(owner_url, clock), await drop_expired(owner_url, retention_days, clock)

    return run_blocking(both())


@asynccontextmanager
async def _owner(url: str) -> AsyncIterator[Any]:
    connection = await connect(url, command_timeout=25.0, server_settings=_SERVER)
    try:
        with translated():
            yield connection
    finally:
        connection.terminate()


async def _days(connection: Any) -> set[date]:
    return set(_parsed(row["relname"] for row in await connection.fetch(_CHILDREN)))


def _parsed(names: Iterable[str]) -> Iterable[date]:
    for name in names:
        if match := _NAME.fullmatch(name):
            yield date(*map(int, match.groups()))


async def _patiently(connection: Any, change: Any, day: date) -> bool:
    """Whether `change` had something to do; a lock that is not to be had within a second is tried again, not waited for in the queue."""
    for attempt in range(1, _TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                return bool(await change(connection, day))
        except asyncpg.LockNotAvailableError:
            if attempt == _TRIES:
                raise
    raise AssertionError("unreachable")


async def _make(connection: Any, day: date) -> bool:
    """CREATE and ATTACH rather than CREATE ... PARTITION OF, whose lock on the parent would stop the log."""
    name = f"predictions_{day:%Y%m%d}"
    if await connection.fetchval("SELECT to_regclass($1)", name):
        return False
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    await connection.execute(f"CREATE TABLE {name} (LIKE predictions INCLUDING ALL)")
    await connection.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    await connection.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
    for row in await connection.fetch(_GRANTEES, name):
        await connection.execute(f"REVOKE ALL ON {name} FROM {row['name']}")
    bounds = f"FROM ('{start.isoformat()}') TO ('{(start + timedelta(days=1)).isoformat()}')"
    await connection.execute(f"ALTER TABLE predictions ATTACH PARTITION {name} FOR VALUES {bounds}")
    return True


async def _drop(connection: Any, day: date) -> bool:
    await connection.execute(f"DROP TABLE IF EXISTS predictions_{day:%Y%m%d}")
    return True
