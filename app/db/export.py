"""Everything that the database holds of one tenant, table by table: read as the runtime role, so that row-level security is the filter."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app.db.driver import connect, translated
from app.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

# The catalogue is asked, so that no table can be forgotten. Partitions come with their parents.
_TABLES = """
select c.relname as name, array_agg(quote_ident(a.attname) order by a.attnum) as columns
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and has_table_privilege(c.oid, 'SELECT')
  and exists (select from pg_attribute t where t.attrelid = c.oid and t.attname = 'tenant_id' and not t.attisdropped)
group by c.relname order by c.relname"""
_SECRETS = {("tenants", "wrapped_secret")}
_AT_ONCE = 20  # rows: an artifact's pieces are large


class TenantRows:
    """One tenant as of one moment."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def tables(self) -> dict[str, list[str]]:
        """The columns of each table that holds rows of tenants, quoted, without secrets."""
        found = await self._connection.fetch(_TABLES)
        return {row["name"]: [column for column in row["columns"] if (row["name"], column) not in _SECRETS] for row in found}

    async def wrapped_secret(self) -> bytes:
        """The tenant's secret, under the master key."""
        return bytes(await self._connection.fetchval("select wrapped_secret from tenants"))

    async def rows(self, table: str, columns: list[str]) -> AsyncIterator[str]:
        """Each row as a JSON object: bytes as hex digits with a backslash and an x before them, times as ISO 8601."""
        statement = f'select row_to_json(r)::text from (select {", ".join(columns)} from "{table}") r'  # noqa: S608  the catalogue's names
        with translated():
            async for (row,) in self._connection.cursor(statement, prefetch=_AT_ONCE):
                yield row


async def tenant_named(sync_url: str, slug: str) -> UUID:
    """The tenant's key in all tables. Raises NotFound, Unavailable."""
    connection = await connect(sync_url)
    try:
        with translated():
            tenant_id: UUID | None = await connection.fetchval("select tenant_id from tenants where id = $1 and status <> 'ERASED'", slug)
    finally:
        await connection.close()
    if tenant_id is None:
        raise NotFound("There is no such tenant.")
    return tenant_id


@asynccontextmanager
async def tenant_rows(runtime_url: str, tenant_id: UUID) -> AsyncIterator[TenantRows]:
    """The tenant's rows as they are now, whatever is written meanwhile. Raises Unavailable."""
    connection = await connect(runtime_url, server_settings={"timezone": "UTC", "search_path": "public"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute("select set_config('app.tenant_id', $1, true)", str(tenant_id))
            yield TenantRows(connection)
    finally:
        await connection.close()
