"""How fast the drain empties a backlog, and what each record costs whom: `python -m tools.bench_drain [RECORDS]`.

An embedded PostgreSQL of its own with its common settings, triggers on, half of the records of an experiment, four tenants.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID, uuid4

from app.db import migrate
from app.db.driver import connect, run_blocking
from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.journal.codec import encode
from app.journal.drain import Drain, collect_seldom
from app.journal.layout import LOCK
from app.journal.partitions import ensure_partitions
from app.journal.sink import PostgresSink
from app.journal.types import PredictionRecord
from app.kernel.clock import SystemClock
from app.kernel.ids import IdMint
from app.observability.logs import configure

_A_SEGMENT = 80_000
_TICKS = os.sysconf("SC_CLK_TCK")


def main(records: int) -> None:
    """Prints one line of figures."""
    configure("error", "bench")
    collect_seldom()
    home = Path(tempfile.mkdtemp(prefix="turnout-drain-"))
    home.chmod(0o711)
    server = EmbeddedPostgres(home)
    try:
        server.start()
        migrate.upgrade(server.url(DatabaseRole.OWNER))
        run_blocking(ensure_partitions(server.url(DatabaseRole.OWNER), SystemClock(), days_ahead=1))
        _fill(home / "spool" / "1-1-bench", records)
        began, cpu = time.perf_counter(), time.process_time()
        theirs = asyncio.run(_empty(home / "spool", server.url(DatabaseRole.LOG)))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        landed = run_blocking(_landed(server.url(DatabaseRole.SYNC)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{records:,} records in {took:.1f} s: {records / took:,.0f} a second; a record costs the drain {cpu / records * 1e6:.1f} us "
            f"and PostgreSQL {theirs / records * 1e6:.1f} us; peak memory {peak:.0f} MB; tenants with usage {landed}"
        )
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def _fill(folder: Path, records: int) -> None:
    """The spool of a writer that died with `records` in it."""
    folder.mkdir(parents=True, mode=0o700)
    (folder / LOCK).touch()
    mint, tenants = IdMint(SystemClock()), [uuid4() for _ in range(4)]
    for number, first in enumerate(range(0, records, _A_SEGMENT), 1):
        with (folder / f"{number}.sealed").open("wb") as file:
            file.writelines(encode(_record(mint, tenants, n)) for n in range(first, min(first + _A_SEGMENT, records)))


def _record(mint: IdMint, tenants: list[UUID], number: int) -> PredictionRecord:
    of_experiment = bool(number % 2)
    return PredictionRecord(
        id=mint.mint(bytes(32)), tenant_id=tenants[number % 4], unit_hash=os.urandom(16).hex(), key_generation=1, model="churn", version=3,
        reason="EXPERIMENT" if of_experiment else "ALIAS", experiment="colour" if of_experiment else None,
        variant=("blue" if number % 3 else "green") if of_experiment else None, propensity=0.5 if of_experiment else None,
        flag_revision=7 if of_experiment else None, rows=1, compute_us=random.randrange(20, 900), score=random.random(), degraded=False,
    )  # fmt: skip


async def _empty(spool: Path, log_url: str) -> float:
    """How many seconds of CPU the drain's connection took in the server."""
    sink = PostgresSink(log_url)
    drain = Drain(spool, sink, SystemClock())
    await sink.erased((), ())
    before = _of_log_role()
    while await drain.step():
        pass
    took = _of_log_role() - before
    await sink.close()
    return took


def _of_log_role() -> float:
    """Seconds of CPU of all of this machine's PostgreSQL processes that the log role is connected to."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"postgres: {DatabaseRole.LOG} ".encode() in (process / "cmdline").read_bytes():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return ticks / _TICKS


async def _landed(sync_url: str) -> int:
    connection = await connect(sync_url)
    try:
        return int(await connection.fetchval("select count(distinct tenant_id) from usage_deltas"))
    finally:
        await connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
