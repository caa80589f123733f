"""Statements that are said once and then asked of the driver itself, in a tenant's transaction.

What SQLAlchemy does for each execution takes several times as long as the driver's part, and requests wait meanwhile. For the
statements of changes that come often: whatever is asked rarely, or is another one each time, goes through the session.
"""

from __future__ import annotations

import json
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.db.reading import Reading

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Statement:
    """`said`: a query, or an insert, update or delete; its parameters have names, and no list that is written out (IN)."""

    def __init__(self, said: Any) -> None:
        compiled = said.compile(dialect=PGDialect_asyncpg())  # type: ignore[no-untyped-call]
        self._sql = str(compiled)
        self._places: list[str] = list(compiled.positiontup or ())
        self._values: dict[str, Any] = dict(compiled.params)
        self._documents = {name for name, bind in compiled.binds.items() if isinstance(bind.type, JSONB)}
        columns = getattr(said, "selected_columns", ())
        self._row: Any = namedtuple("Row", [str(column.key) for column in columns])  # type: ignore[misc]  # noqa: PYI024  known at run time

    async def rows(self, session: AsyncSession | Reading, **parameters: Any) -> list[Any]:
        """Named tuples, fields named as the statement's columns; JSON as Python's values. What the session holds back is written before.

        Errors are the driver's, which `tenant_tx` translates as it does the session's.
        """
        values = self._values | parameters
        for name in self._documents:
            values[name] = None if values[name] is None else json.dumps(values[name])  # read, it comes decoded: SQLAlchemy saw to that
        found = await _fetched(session, self._sql, [values[name] for name in self._places])
        return [self._row._make(record) for record in found] if self._row._fields else []

    async def row(self, session: AsyncSession | Reading, **parameters: Any) -> Any:
        """The one row, or None. Raises ValueError where there are more."""
        found = await self.rows(session, **parameters)
        if len(found) > 1:
            raise ValueError(f"{len(found)} rows where one was asked for")
        return found[0] if found else None


async def _fetched(session: AsyncSession | Reading, sql: str, values: list[Any]) -> list[Any]:
    if isinstance(session, Reading):
        return await session.fetch(sql, values)
    held = session.sync_session
    if held.new or held.dirty or held.deleted:
        await session.flush()
    connection = held.connection()  # the one of the transaction that has begun
    driver: Any = connection.connection.driver_connection
    try:
        found: list[Any] = await driver.fetch(sql, *values)
    except asyncpg.PostgresError:
        raise  # the server spoke: it can be asked to roll back
    except BaseException as error:  # late, lost or given up: what it would answer next is not known
        driver.terminate()
        connection.invalidate(error)
        raise
    return found
