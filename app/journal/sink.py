"""Where records go for good: the `predictions` table, as the role that may insert there and do nothing else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from app.db.driver import connect
from app.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from app.journal.types import PredictionRecord

_CONNECT_S = 3.0
_COMMAND_S = 15.0  # a frozen server is given up after this; the server itself cancels before
_SERVER = {"application_name": "turnout-drain", "timezone": "UTC", "statement_timeout": "12000", "lock_timeout": "3000"}
_COLUMNS = {
    "tenant_id": "uuid", "id": "uuid", "at": "timestamptz", "model": "text", "version": "int4", "reason": "text", "unit_hash": "text",
    "key_generation": "int4", "experiment": "text", "variant": "text", "propensity": "float8", "flag_revision": "int8", "rows": "int4",
    "compute_us": "int4", "score": "float8", "degraded": "bool",
}  # fmt: skip
_INSERT = "INSERT INTO predictions ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING".format(  # noqa: S608  constants
    names=", ".join(_COLUMNS), arrays=", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_COLUMNS.values(), 1))
)
# SQLSTATE classes that are about the values: data exceptions and violated constraints.
# Source: PostgreSQL documentation, appendix A.
_ABOUT_VALUES = ("22", "23")
_CHECK_VIOLATION = "23514"  # also that of a row for which there is no partition, then without a constraint's name


class SinkUnavailable(Exception):
    """Not now: the database is away, too slow, or not ready for us. The text says which; it holds no record."""


class PartitionMissing(Exception):
    """At least one of the records falls on a day that has no partition. Nothing was inserted."""


class RecordsRefused(Exception):
    """At least one of the records breaks a rule of the table and always will. Nothing was inserted."""


class Sink(Protocol):
    """Takes records exactly once, however often they are given."""

    async def insert(self, records: Sequence[PredictionRecord]) -> None:
        """Returns when all `records` are committed. Raises SinkUnavailable, PartitionMissing, RecordsRefused."""

    async def close(self) -> None: ...


class PostgresSink:
    """The `predictions` table over one connection of the log role, made when it is needed and thrown away at the first doubt."""

    def __init__(self, log_url: str, *, command_timeout_s: float = _COMMAND_S) -> None:
        self._url, self._command_timeout_s = log_url, command_timeout_s
        self._connection: Any = None

    async def insert(self, records: Sequence[PredictionRecord]) -> None:
        columns = _as_columns(records)
        async with self._translated():
            connection = await self._connected()
            await connection.execute(_INSERT, *columns)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            connection = await connect(self._url, timeout_s=_CONNECT_S, command_timeout=self._command_timeout_s, server_settings=_SERVER)
            # The spool is deleted once the database says "committed": that word must not be given before the disk has it.
            if await connection.fetchval("SHOW synchronous_commit") == "off":
                await connection.execute("SET synchronous_commit = on")
            self._connection = connection
        return self._connection

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (Unavailable, ConfigurationError) as error:
            raise SinkUnavailable(error.message if isinstance(error, Unavailable) else str(error)) from error
        except asyncpg.PostgresError as error:
            state = str(error.sqlstate)
            if state == _CHECK_VIOLATION and not error.constraint_name:
                raise PartitionMissing from error
            if state.startswith(_ABOUT_VALUES):
                raise RecordsRefused(f"{type(error).__name__} {error.constraint_name or ''}".strip()) from error
            await self.close()
            raise SinkUnavailable(f"{type(error).__name__} ({state})") from error
        except asyncpg.DataError as error:  # the driver's own: a number that the column cannot hold
            raise RecordsRefused(type(error).__name__) from error
        except (asyncpg.InterfaceError, OSError, TimeoutError) as error:
            await self.close()
            raise SinkUnavailable(type(error).__name__) from error
        except asyncio.CancelledError:
            await self.close()
            raise


def _as_columns(records: Sequence[PredictionRecord]) -> list[list[Any]]:
    return [[getattr(record, name) for record in records] for name in _COLUMNS]
