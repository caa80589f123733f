"""The runtime role's database: transactions that belong to one tenant, and no other kind."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.breaker import NoBreaker
from app.db.engine import Timeouts, is_outage, make_engine, translated
from app.db.reading import Reading, is_lost
from app.db.retrying import retried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sqlalchemy import Connection

    from app.db.breaker import DatabaseBreaker

_SET_TENANT = "select set_config('app.tenant_id', $1, true)"


class TenantSession(Session):
    """The synchronous half of a session; its transactions name their tenant to the database or do not begin."""


@event.listens_for(TenantSession, "after_begin")
def _name_tenant(session: Session, _transaction: Any, connection: Connection) -> None:
    """Runs with every transaction, also with the second one of a session: the setting ends with the transaction that made it."""
    tenant_id = session.info.get("tenant_id")
    if not isinstance(tenant_id, UUID):
        raise TypeError("a transaction was begun without a tenant")  # ours to repair, so no AppError
    connection.exec_driver_sql(_SET_TENANT, (str(tenant_id),))


class Database:
    """PostgreSQL as the runtime role sees it; one a process."""

    def __init__(
        self,
        url: str,
        timeouts: Timeouts | None = None,
        *,
        pool_size: int = 5,
        max_overflow: int = 5,
        info: Mapping[str, Any] | None = None,
        breaker: DatabaseBreaker | None = None,
    ) -> None:
        """`info`: what rooms find in `session.info`, each under a key of its own. `breaker`: of this process, as in SyncDatabase."""
        timeouts = timeouts or Timeouts()
        self._breaker = breaker or NoBreaker()
        self._patient = timeouts.command_s > Timeouts().command_s
        self._info = dict(info or {})
        self._engine = make_engine(
            url,
            timeouts,
            breaker=breaker,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=timeouts.pool_s,
            pool_recycle=1800,
        )
        self._session = async_sessionmaker(self._engine, sync_session_class=TenantSession, expire_on_commit=False)

    @asynccontextmanager
    async def tenant_tx(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        """One transaction in which nothing but this tenant's rows exist; committed at exit, rolled back where an exception leaves it.

        Raises Unavailable where the database is away, overloaded or too slow; whether a commit cut off in the middle counted is
        then unknown, as with every database.
        """
        with self._breaker.watch(), translated():
            async with self._breaker.while_it_answers() if self._patient else nullcontext():
                session = await self._begin(tenant_id)
                try:
                    yield session
                    await session.commit()  # gives the connection back, too: nothing is left to close
                except BaseException:
                    async with session:
                        raise

    @asynccontextmanager
    async def tenant_read(self, tenant_id: UUID) -> AsyncIterator[Reading]:
        """As `tenant_tx`, for statements that read: a fraction of what a session costs."""
        with self._breaker.watch(), translated():
            async with self._breaker.while_it_answers() if self._patient else nullcontext():
                reading = await retried("begin a transaction", lambda: self._reading(tenant_id), when=is_lost)
                try:
                    yield reading
                except Exception:
                    await reading.end()
                    raise
                except BaseException:
                    reading.cut()
                    raise
                await reading.end()

    async def close(self) -> None:
        """Closes the pool's connections."""
        await self._engine.dispose()

    async def _begin(self, tenant_id: UUID) -> AsyncSession:
        """A session whose transaction has begun. A pooled connection may have died unseen: nothing was asked yet, so once more."""
        return await retried("begin a transaction", lambda: self._begun(tenant_id), when=_is_lost)

    async def _reading(self, tenant_id: UUID) -> Reading:
        pooled = await self._engine.raw_connection()
        reading = Reading(pooled)
        try:
            await reading.begin(tenant_id)
        except Exception as error:
            if is_lost(error):  # those that wait in the pool were lost with it, as a rule: each would cost a caller its one more try
                self._engine.sync_engine.pool._invalidate(pooled, error)  # noqa: SLF001  as SQLAlchemy does for its own statements
            raise
        return reading

    async def _begun(self, tenant_id: UUID) -> AsyncSession:
        session = self._session(info={**self._info, "tenant_id": tenant_id})
        try:
            await session.connection()
        except BaseException:
            await session.close()
            raise
        return session


def _is_lost(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and is_outage(error)
