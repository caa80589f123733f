"""Where records go for good: the tables of the log, as the role that may insert there, read who was erased, and do nothing else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from app.db.driver import connect
from app.errors import ConfigurationError, Unavailable
from app.journal.types import ERASURE_GRACE, WHOLE_TENANT, InputRecord, PredictionRecord, ShadowRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from app.journal.types import Record

_OF_PREDICTIONS = {
    "tenant_id": "uuid", "id": "uuid", "at": "timestamptz", "model": "text", "version": "int4", "reason": "text", "unit_hash": "text",
    "key_generation": "int4", "experiment": "text", "variant": "text", "propensity": "float8", "flag_revision": "int8", "rows": "int4",
    "compute_us": "int4", "score": "float8", "degraded": "bool",
}  # fmt: skip
_OF_SHADOWS = {
    "tenant_id": "uuid", "prediction_id": "uuid", "kind": "text", "variant": "text", "row": "int4", "at": "timestamptz",
    "experiment": "text", "unit_hash": "text", "version": "int4", "served_variant": "text", "served_version": "int4",
    "served_label": "text", "served_score": "float8", "label": "text", "score": "float8", "compute_us": "int4",
}  # fmt: skip
_OF_INPUTS = {"tenant_id": "uuid", "prediction_id": "uuid", "at": "timestamptz", "unit_hash": "text", "sealed": "bytea"}
# Of a record `r`, in the statement that inserts it: nobody can be erased between the look and the row.
_ERASED_UNIT = f"""coalesce((SELECT max(t.at) FROM tombstones t WHERE t.tenant_id = r.tenant_id AND t.unit_hash = r.unit_hash)
  >= r.at - interval '{ERASURE_GRACE.total_seconds():.0f} seconds', false)"""  # noqa: S608  constants
_ERASED_TENANT = f"EXISTS (SELECT FROM tombstones t WHERE t.tenant_id = r.tenant_id AND t.unit_hash = '{WHOLE_TENANT}')"


@dataclass(frozen=True, slots=True)
class Patience:
    """Who writes, as the server's list of connections names it, and for how long the server is waited for."""

    name: str = "turnout-drain"
    connect_s: float = 3.0
    command_s: float = 15.0  # a frozen server is given up after this; the server itself cancels before
    statement_s: float = 12.0
    lock_s: float = 3.0

    def on_the_server(self) -> dict[str, str]:
        return {
            "application_name": self.name,
            "timezone": "UTC",
            "statement_timeout": f"{self.statement_s * 1000:.0f}",
            "lock_timeout": f"{self.lock_s * 1000:.0f}",
        }


class _Table:
    """One table of the log: what inserts into it, and the records as its columns. `names`: attributes of a record named otherwise.

    `anonymous`: what is left of an erased unit is kept without it; else it is left out.
    """

    def __init__(self, name: str, columns: dict[str, str], names: dict[str, str] | None = None, *, anonymous: bool = False) -> None:
        arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(columns.values(), 1))
        unit = f"CASE WHEN {_ERASED_UNIT} THEN NULL ELSE r.unit_hash END" if anonymous else "r.unit_hash"
        values = ", ".join(unit if column == "unit_hash" else f"r.{column}" for column in columns)
        left_out = _ERASED_TENANT if anonymous else f"{_ERASED_TENANT} OR {_ERASED_UNIT}"
        self.insert = f"""INSERT INTO {name} ({", ".join(columns)}) SELECT {values}
          FROM unnest({arrays}) AS r ({", ".join(columns)}) WHERE NOT ({left_out}) ON CONFLICT DO NOTHING"""  # noqa: S608  constants
        self._attributes = [(names or {}).get(column, column) for column in columns]

    def columns(self, records: Sequence[Record]) -> list[Sequence[Any]]:
        """The records, at least one and all of this table's kind, turned on their side."""
        fields: dict[str, Sequence[Any]] = dict(zip(records[0]._fields, zip(*records, strict=True), strict=True))
        fields["at"] = [record.at for record in records]
        return [fields[name] for name in self._attributes]


# In this order: what was answered before what was computed beside it. An answer is usage, whosever it was.
_TABLES: dict[type[Record], _Table] = {
    PredictionRecord: _Table("predictions", _OF_PREDICTIONS, anonymous=True),
    ShadowRecord: _Table("shadow_answers", _OF_SHADOWS, {"prediction_id": "id"}),
    InputRecord: _Table("captured_inputs", _OF_INPUTS, {"prediction_id": "id"}),
}
_ERASED = """
select tenant_id, unit_hash, max(at) as at from tombstones
where unit_hash = any ($1::text[]) or (tenant_id = any ($2::uuid[]) and unit_hash = $3) group by 1, 2"""
# SQLSTATE classes that are about the values: data exceptions and violated constraints.
# Source: PostgreSQL documentation, appendix A.
_ABOUT_VALUES = ("22", "23")
_CHECK_VIOLATION = "23514"  # also that of a row for which there is no partition, then without a constraint's name


class SinkUnavailable(Exception):
    """Not now: the database is away, too slow, or not ready for us. The text says which; it holds no record."""


class PartitionMissing(Exception):
    """At least one of the records falls on a day that has no partition; give all of them again."""


class RecordsRefused(Exception):
    """At least one of the records breaks a rule of its table and always will; give all the others again."""


class Sink(Protocol):
    """Takes records exactly once, however often they are given; of what was erased since, only what is not about anybody."""

    async def insert(self, records: Sequence[Record]) -> None:
        """Returns when all `records` are committed. Raises SinkUnavailable, PartitionMissing, RecordsRefused."""

    async def erased(self, tenants: Collection[UUID], hashes: Collection[str]) -> dict[tuple[UUID, str], datetime]:
        """When the tombstones of these pseudonyms, whosever they are, and of these tenants were set. Raises SinkUnavailable."""

    async def close(self) -> None: ...


class PostgresSink:
    """The log's tables over one connection of the log role, made when it is needed and thrown away at the first doubt.

    Who comes while another uses it waits: a connection that is busy would refuse, which looks as if the database were away.
    """

    def __init__(self, log_url: str, patience: Patience | None = None) -> None:
        self._url, self._patience = log_url, patience or Patience()
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def insert(self, records: Sequence[Record]) -> None:
        by_kind: dict[type[Record], list[Record]] = {kind: [] for kind in _TABLES}
        for record in records:
            by_kind[type(record)].append(record)
        async with self._turn, self._translated():
            connection = await self._connected()
            for kind, of in by_kind.items():
                if of:
                    await connection.execute(_TABLES[kind].insert, *_TABLES[kind].columns(of))

    async def erased(self, tenants: Collection[UUID], hashes: Collection[str]) -> dict[tuple[UUID, str], datetime]:
        async with self._turn, self._translated():
            rows = await (await self._connected()).fetch(_ERASED, list(hashes), list(tenants), WHOLE_TENANT)
        return {(row["tenant_id"], row["unit_hash"]): row["at"] for row in rows}

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            patience = self._patience
            connection = await connect(
                self._url, timeout_s=patience.connect_s, command_timeout=patience.command_s, server_settings=patience.on_the_server()
            )
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
