"""One process at a time does what any of them could: who has the lock leads, and loses it with its connection."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.db.sync import SyncDatabase


@asynccontextmanager
async def leading(sync: SyncDatabase, lock: int) -> AsyncIterator[Any]:
    """A connection of the driver that holds the advisory `lock` inside the block, outside any transaction; None: another process has it.

    Raises Unavailable.
    """
    async with sync.driver_connection() as connection:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", lock):
            yield None
            return
        try:
            yield connection
        finally:
            with suppress(Unavailable):
                await connection.fetchval("select pg_advisory_unlock($1)", lock)
