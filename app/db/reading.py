"""A tenant's transaction that reads by statements alone: what is asked often need not carry what only writers use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from sqlalchemy.util.concurrency import greenlet_spawn

from app.db.driver import not_now

if TYPE_CHECKING:
    from collections.abc import Sequence


class Reading:
    """Of one caller, over a connection of the pool, which `end` gives back."""

    def __init__(self, pooled: Any) -> None:
        self._pooled = pooled
        self._driver = pooled.driver_connection

    async def begin(self, tenant_id: UUID) -> None:
        """In one journey with the tenant's name, without which nothing is seen. Where it raises there is nothing to end."""
        try:
            if not isinstance(tenant_id, UUID):
                raise TypeError("a transaction was begun without a tenant")  # ours to repair, so no AppError
            await self._driver.execute(f"begin read only; select set_config('app.tenant_id', '{tenant_id}', true)")
        except BaseException:
            self.cut()
            raise

    async def fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """The driver's records."""
        try:
            found: list[Any] = await self._driver.fetch(sql, *values)
        except asyncpg.PostgresError:
            raise  # the server spoke: it can be asked to roll back
        except BaseException:  # late, lost or given up
            self.cut()
            raise
        return found

    async def end(self) -> None:
        """Nothing was written, so it ends alike however it went, and a connection that cannot say so is no loss."""
        if not self._pooled.is_valid:
            return
        try:
            await self._driver.execute("rollback")
            await greenlet_spawn(self._pooled.close)
        except BaseException as error:
            self.cut()
            if not isinstance(error, Exception):
                raise

    def cut(self) -> None:
        """For a connection of which nobody knows what it would answer next."""
        if self._pooled.is_valid:
            self._driver.terminate()
            self._pooled.invalidate()


def is_lost(error: Exception) -> bool:
    """Whether the connection was found to be none: the same may succeed over another one."""
    return isinstance(error, asyncpg.InterfaceError) or not_now(error)
