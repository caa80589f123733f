"""The owner's database: migrations and maintenance, in the parent process alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.pool import NullPool

from app.db.engine import Timeouts, make_engine, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

PATIENT = Timeouts(connect_s=5.0, statement_s=600.0, command_s=610.0, lock_s=5.0, idle_in_transaction_s=600.0)


@asynccontextmanager
async def owner_tx(owner_url: str, timeouts: Timeouts = PATIENT) -> AsyncIterator[AsyncConnection]:
    """One transaction as the owner over a connection of its own, committed at exit. Raises Unavailable, ConfigurationError.

    For those who have no event loop: `run_blocking(work())` of `app.db.engine`.
    """
    engine = make_engine(owner_url, timeouts, poolclass=NullPool)
    try:
        with translated():
            async with engine.begin() as connection:
                yield connection
    finally:
        await engine.dispose()
