"""Which replicas there are, for operators: names and heartbeats, nothing of any tenant. Without SQLAlchemy, for the doctor's sake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SILENT_AFTER_S = 6.0  # three heartbeats: stopped, cut off or dead; the list keeps it until ten minutes have passed
_LISTED = """
    select name, extract(epoch from now() - seen_at)::float8 as silent_s from replicas
    where left_at is null and seen_at > now() - interval '10 minutes' order by name"""

_MACHINES = f"""
    select count(distinct split_part(name, '/', 1)) from replicas
    where left_at is null and seen_at > now() - interval '{SILENT_AFTER_S} seconds'"""  # noqa: S608  a number of ours


@dataclass(frozen=True, slots=True)
class Listed:
    """A replica that promotions count. `silent_s`: seconds since its last heartbeat."""

    name: str
    silent_s: float

    @property
    def silent(self) -> bool:
        return self.silent_s > SILENT_AFTER_S


async def listed_replicas(connection: Any) -> list[Listed]:
    """Those that neither left nor were silent for ten minutes; over a connection of the driver (asyncpg) as the sync role."""
    if await connection.fetchval("select to_regclass('replicas')") is None:  # a database that was not migrated yet
        return []
    return [Listed(row["name"], row["silent_s"]) for row in await connection.fetch(_LISTED)]


async def live_machines(connection: Any) -> int:
    """How many machines serve: distinct first parts of the names of replicas that were heard of in the last seconds."""
    return int(await connection.fetchval(_MACHINES) or 0)
