"""What counting experiments costs: the drain beside the trigger that queues exposures, the fold, and results over millions of exposures.

    python -m tools.bench_experiments [EXPOSURES]

A PostgreSQL of its own in a temporary folder, with the settings that the service gives it; removed afterwards. Ten million exposures
take some 5 GB and some minutes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from app.db import migrate
from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.experiments import store
from app.experiments.exposures import tally_anew
from app.experiments.folding import ROOMY, Folder
from app.experiments.results import ResultsService
from app.journal.partitions import ensure_partitions
from app.journal.sink import PostgresSink
from app.journal.types import PredictionRecord
from app.kernel.clock import Deadline, SystemClock
from app.kernel.context import Action, RequestContext, Role
from app.kernel.ids import IdMint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

EXPOSURES = 10_000_000
RECORDS, BATCH = 100_000, 5_000  # of the drain
_ARMS = [
    {"name": name, "version": number, "alias": None, "weight": 1, "control": number == 1, "shadow": False}
    for number, name in enumerate(("control", "blue"), 1)
]
_SEED = (
    """insert into exposures select $1, 'bench', lpad(to_hex(1000000 + n), 32, '0'),
         case n % 2 when 0 then 'control' else 'blue' end, 1 + n % 2, now()
         - interval '1 hour', gen_random_uuid(), 1, 0.5, n % 1000 / 1000.0 from generate_series(1, $2::int) n""",
    """insert into outcomes (tenant_id, id, metric, value, occurred_at, unit_hash, pending, dedup_key)
         select $1, gen_random_uuid(), 'spent', n % 100 + n % 7 / 10.0, now(), lpad(to_hex(1000000 + n), 32, '0'), false, n::text
         from generate_series(1, $2::int / 10) n""",
    "insert into stale_units (tenant_id, unit_hash) select $1, lpad(to_hex(1000000 + n), 32, '0') from generate_series(1, $2::int / 10) n",
)


class Tenancy:
    """What the tenancy room answers elsewhere."""

    def outcome_window_days(self, _tenant_id: UUID) -> int:
        return 30

    async def classes(self, _session: AsyncSession, _tenant_id: UUID, _model: str, _version: int) -> tuple[str, ...] | None:
        return None


async def timed(what: str, work: Awaitable[Any], rows: int | None = None) -> None:
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    print(f"{what:<64} {seconds * 1000:>10,.0f} ms" + (f" {rows / seconds:>12,.0f} rows/s" if rows else ""), flush=True)


async def plant(server: EmbeddedPostgres, tenant_id: UUID) -> Any:
    """A connection that may do anything, and a tenant with a running experiment."""
    connection = await asyncpg.connect(server._superuser_url("turnout"))  # noqa: SLF001  planting what no role could
    await connection.execute("insert into tenants (tenant_id, id, name, wrapped_secret) values ($1, 'bench', 'Bench', '')", tenant_id)
    model_id = uuid4()
    await connection.execute(
        "insert into models (tenant_id, model_id, name, folded_name, task) values ($1, $2, 'm', 'm', 'REGRESSION')", tenant_id, model_id
    )
    await connection.execute("insert into metrics values ($1, 'spent', 'MEAN', 'INCREASE', 'SUM')", tenant_id)
    await connection.execute(
        """insert into experiments (tenant_id, key, model_id, model, status, source, rollout, variants, primary_metric, secondary_metrics,
             guardrails, planned_looks, slots, targeting, overrides, created_by)
           values ($1, 'bench', $2, 'm', 'RUNNING', 'TURNOUT', 100, $3, 'spent', '[]', '[]', 1, '[]', '[]', '[]', 'bench')""",
        tenant_id, model_id, json.dumps(_ARMS),
    )  # fmt: skip
    return connection


def records(tenant_id: UUID, experiment: str | None) -> Iterator[list[PredictionRecord]]:
    mint, arms = IdMint(SystemClock()), ("control", "blue")
    for start in range(0, RECORDS, BATCH):
        yield [
            PredictionRecord(
                mint.mint(bytes(32)), tenant_id, f"{n:032x}", 1, "m", 1, "EXPERIMENT" if experiment else "ALIAS", experiment,
                arms[n % 2] if experiment else None, 0.5, 1, 1, 9, 0.5, degraded=False,
            )
            for n in range(start, start + BATCH)
        ]  # fmt: skip


async def drained(sink: PostgresSink, batches: list[list[PredictionRecord]]) -> None:
    for batch in batches:
        await sink.insert(batch)


async def measure(server: EmbeddedPostgres, exposures: int) -> None:
    tenant_id, clock = uuid4(), SystemClock()
    await ensure_partitions(server.url(DatabaseRole.OWNER, "turnout"), clock, days_ahead=1)
    connection = await plant(server, tenant_id)
    url = server.url(DatabaseRole.RUNTIME, "turnout")
    database, sync = Database(url, ROOMY), SyncDatabase(server.url(DatabaseRole.SYNC, "turnout"))
    folder, sink = Folder(database, sync, Tenancy(), clock), PostgresSink(server.url(DatabaseRole.LOG, "turnout"))
    for turn in ("", ", again"):
        await connection.execute("alter table predictions disable trigger exposures_follow")
        await timed(f"drain: no trigger{turn}", drained(sink, list(records(tenant_id, None))), RECORDS)
        await connection.execute("alter table predictions enable trigger exposures_follow")
        await timed(f"drain: predictions of no experiment{turn}", drained(sink, list(records(tenant_id, None))), RECORDS)
        await timed(f"drain: every prediction an exposure{turn}", drained(sink, list(records(tenant_id, "bench"))), RECORDS)
        await timed(f"fold: {RECORDS:,} predictions{turn}", folder.fold(tenant_id, 600), RECORDS)
    for statement in _SEED:
        await connection.execute(statement, tenant_id, exposures)
    await connection.execute("vacuum analyze")

    async def tally() -> None:
        async with database.tenant_tx(tenant_id) as session:
            await tally_anew(session, tenant_id)

    await timed(f"rebuilding the tallies of {exposures:,} exposures", tally(), exposures)
    await timed(f"fold: outcomes of {exposures // 10:,} units", folder.fold(tenant_id, 600), exposures // 10)
    await read(database, folder, sink, tenant_id)
    for each in (connection, sink, database, sync):
        await each.close()


async def read(database: Database, folder: Folder, sink: PostgresSink, tenant_id: UUID) -> None:
    service = ResultsService(database, folder, Tenancy(), SystemClock())
    everything = frozenset(Action)
    ctx = RequestContext(tenant_id, "bench", "bench", frozenset({Role.ADMIN}), everything, None, "bench", Deadline.after(600))
    async with database.tenant_tx(tenant_id) as session:
        experiment = await store.value_of(session, await store.find(session, tenant_id, "bench"))
    for turn in ("the first", "the second", "the third"):
        await timed(f"results, {turn} time", service.results(ctx, [(experiment, None)]))
    for _ in range(2):
        await sink.insert(next(records(tenant_id, "bench")))
        await timed(f"results after {BATCH:,} more predictions", service.results(ctx, [(experiment, None)]))


def main() -> None:
    exposures = int(sys.argv[1]) if len(sys.argv) > 1 else EXPOSURES
    home = Path(tempfile.mkdtemp(prefix="turnout-bench-"))
    home.chmod(0o711)  # so that root's server, which runs as another user, may lie here
    server = EmbeddedPostgres(home)
    server.start()
    try:
        migrate.upgrade(server.url(DatabaseRole.OWNER, "turnout"))
        asyncio.run(measure(server, exposures))
    finally:
        server.stop()
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
