"""Waiting for those who write: once they are gone, everybody sees what was committed before, and nobody was held up."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection

_LOOK_EVERY_S = 0.02
# Who inserts takes this lock before the snapshot that the statement sees, and lets go of it at the end of the transaction.
_WRITERS = """
select virtualtransaction from pg_locks
where mode = 'RowExclusiveLock' and granted and pid <> pg_backend_pid()
  and database = (select oid from pg_database where datname = current_database())
  and relation = any ($1::text[]::regclass[]::oid[])"""


async def writers_gone(connection: Any, tables: Collection[str], patience_s: float = 20.0) -> None:
    """Returns when every transaction has ended that was writing one of `tables` at the call; raises Unavailable after `patience_s`.

    Over a connection of the driver (asyncpg), outside any transaction. Who begins meanwhile is not waited for: it takes its snapshot
    behind its lock, so it sees what was committed before the call. Source: how CREATE INDEX CONCURRENTLY waits, in PostgreSQL.
    """
    end = time.monotonic() + patience_s
    waiting = {row[0] for row in await connection.fetch(_WRITERS, list(tables))}
    while waiting:
        if time.monotonic() >= end:
            raise Unavailable("Somebody has been writing for too long.", retry_after_ms=1000)
        await asyncio.sleep(_LOOK_EVERY_S)
        waiting &= {row[0] for row in await connection.fetch(_WRITERS, list(tables))}
