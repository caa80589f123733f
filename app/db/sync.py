"""The sync role's database: reads, across tenants, what routing needs, and can do nothing else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app.db.breaker import NoBreaker
from app.db.engine import Timeouts, make_engine, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.db.breaker import DatabaseBreaker


class SyncDatabase:
    """PostgreSQL as the sync role sees it; one a process."""

    def __init__(self, url: str, timeouts: Timeouts | None = None, *, breaker: DatabaseBreaker | None = None) -> None:
        """`breaker`: of this process; left out, nobody else hears how the database is."""
        timeouts = timeouts or Timeouts()
        self._breaker = breaker or NoBreaker()
        self._engine = make_engine(
            url,
            timeouts,
            server_settings={"default_transaction_read_only": "on"},
            breaker=breaker,
            isolation_level="REPEATABLE READ",
            pool_size=1,
            max_overflow=2,
            pool_timeout=timeouts.pool_s,
            pool_recycle=1800,
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection inside one read-only transaction: all its reads see one state. Raises Unavailable."""
        with self._breaker.watch(), translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def driver_connection(self) -> AsyncIterator[Any]:
        """A connection of the driver (asyncpg), outside any transaction: each statement sees one state. Raises Unavailable."""
        with self._breaker.watch(), translated():
            async with self._engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                try:
                    yield driver
                except TimeoutError:
                    driver.terminate()  # what it would answer next is not known
                    raise

    async def close(self) -> None:
        """Closes the pool's connections."""
        await self._engine.dispose()
