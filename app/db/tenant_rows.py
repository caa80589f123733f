"""Every row of a tenant, in whatever tables there are: listed from the catalog, so that a new one cannot be forgotten."""

from __future__ import annotations

from collections import defaultdict
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from sqlalchemy import Uuid, bindparam, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from app.db.session import Database

# What stays of an erased tenant: that it was, what was done to it, and what keeps its late records, and its callers, out.
KEPT = frozenset({"tenants", "tenant_names", "audit_entries", "audit_heads", "tombstones", "outbox"})
_BATCH = 2_000
_TABLES = text("""
select c.relname, array(select quote_ident(a.attname) from unnest(k.conkey) with ordinality n (number, place)
                        join pg_attribute a on a.attrelid = c.oid and a.attnum = n.number order by n.place) as key
from pg_class c join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)""")
_REFERENCES = text("""
select c.relname as child, p.relname as parent
from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_class p on p.oid = k.confrelid
where k.contype = 'f' and k.conrelid <> k.confrelid and c.relnamespace = 'public'::regnamespace and not c.relispartition""")
_PLAN = text("select set_config('enable_seqscan', 'off', true)")


async def delete_rows(database: Database, tenant_id: UUID) -> AsyncIterator[int]:
    """How many rows went, a batch at a time, until the tenant has none left but in the tables that are KEPT.

    `database` is the owner's. Raises Unavailable.
    """
    async with database.tenant_tx(tenant_id) as session:
        keys = {str(name): list(key) for name, key in await session.execute(_TABLES)}
        parents: defaultdict[str, set[str]] = defaultdict(set)
        for child, parent in await session.execute(_REFERENCES):
            parents[parent].add(child)
    order = [name for name in TopologicalSorter({name: parents[name] for name in sorted(keys)}).static_order() if name in keys]
    for table in order:
        if table in KEPT:
            continue
        columns = ", ".join(keys[table])
        matches = " and ".join(f"t.{column} = gone.{column}" for column in keys[table])
        batch = f"select {columns} from {table} where tenant_id = :tenant limit {_BATCH}"  # noqa: S608  names from the catalog
        delete = text(f"delete from {table} t using ({batch}) gone where {matches}")  # noqa: S608
        delete = delete.bindparams(bindparam("tenant", type_=Uuid()))
        rows = _BATCH
        while rows >= _BATCH:
            async with database.tenant_tx(tenant_id) as session:
                await session.execute(_PLAN)
                rows = (await session.execute(delete, {"tenant": tenant_id})).rowcount  # type: ignore[attr-defined]
            if rows:
                yield rows
