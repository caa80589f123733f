"""What it takes until the last of four serving processes serves a promotion, or decides by a changed flag, beside an empty NOTIFY and
a read of the same run.

By turns, first idle, then while clients keep all serving processes busy:
- promotion: a promotion, as its answer tells it;
- flag: a running experiment ramped up or down: flags are compiled, tested on fixed units and swapped;
- empty: a change of a tenant without models, at the same serving processes: a NOTIFY and a read that find nothing to do;
- floor: four processes that do nothing but listen and read one number: the least that any service can take that learns of a change
  from PostgreSQL, on a machine that has time for it.
Time begins when this process, which does nothing else, hears of the commit; what a replica wrote down about itself ends it.
`--idle` leaves out the busy half.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from tools.bench import service as bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WORKERS = 4
TIMES = 100
CONNECTIONS = 32
FLOOR_CHANNEL = "bench_floor"
EMPTY = "bench-empty"
PROMOTE = """mutation($version: Int!) { promote(model: "tumour", version: $version) {
  appliedEverywhere appliedBy { appliedAt } } }"""

CREATE = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }"
START = 'mutation { startExperiment(key: "bench") { key } }'
RAMP = 'mutation($rollout: Float!) { rampExperiment(key: "bench", rollout: $rollout) { rollout } }'
EXPERIMENT = {
    "key": "bench",
    "model": "tumour",
    "variants": [{"name": "control", "version": 1, "control": True}, {"name": "treatment", "version": 2}],
    "primaryMetric": {"name": "cured", "kind": "PROPORTION"},
}

ANNOUNCE = """
    with raised as (update routing_generation set generation = generation + 1 returning generation),
         told as (insert into outbox (generation, tenant_id) select generation, $1 from raised)
    select generation from raised, lateral (select pg_notify('turnout_routing', generation::text)) told"""

FLOOR = f"""
import asyncio, asyncpg, sys, time, uvloop
async def main():
    connection = await asyncpg.connect(sys.argv[1])
    async def read(payload):
        await connection.fetchval("select generation from routing_generation")
        print(payload, time.time(), flush=True)
    tasks = set()
    await connection.add_listener("{FLOOR_CHANNEL}", lambda *told: tasks.add(asyncio.create_task(read(told[3]))))
    print("up", flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""


class Floor:
    """Processes that listen and read."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-c", FLOOR, url]
        self._processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
        for line in self._lines():
            assert line == "up"

    def last(self, payload: str) -> float:
        """When the last of them had read after hearing `payload`; seconds since the epoch."""
        told = [line.split() for line in self._lines()]
        assert {word for word, _ in told} == {payload}
        return max(float(at) for _, at in told)

    def _lines(self) -> Iterator[str]:
        for process in self._processes:
            assert process.stdout
            yield process.stdout.readline().strip()

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(10)


class Ear:
    """Hears commits: when the last was heard, seconds since the epoch, and what was said."""

    def __init__(self) -> None:
        self.at, self.said = 0.0, ""

    def heard(self, *told: Any) -> None:
        self.at, self.said = time.time(), told[-1]


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Ear, asyncpg.Connection]]:
    connection = await asyncpg.connect(url)
    ear = Ear()
    for channel in ("turnout_routing", FLOOR_CHANNEL):
        await connection.add_listener(channel, ear.heard)
    try:
        yield ear, connection
    finally:
        await connection.close()


async def take_turns(url: str, full: UUID, empty: UUID, port: int, token: str, floor: Floor) -> dict[str, list[float]]:
    """Milliseconds from the commit to the last process, by turns."""
    taken: dict[str, list[float]] = {"promotion": [], "flag": [], "empty": [], "floor": []}
    speaker = await asyncpg.connect(url)
    async with listening(url) as (ear, _):
        for turn in range(TIMES):
            done = (await ask(port, token, PROMOTE, version=2 - turn % 2))["promote"]
            assert done["appliedEverywhere"], done
            assert len(done["appliedBy"]) == WORKERS, done
            last = max(datetime.fromisoformat(ack["appliedAt"]).timestamp() for ack in done["appliedBy"])
            taken["promotion"].append(1000 * (last - ear.at))
            await asyncio.sleep(0.02)
            await ask(port, token, RAMP, rollout=100 - 50 * (turn % 2))
            last = await acknowledged(speaker, full, int(ear.said))
            taken["flag"].append(1000 * (last - ear.at))
            await asyncio.sleep(0.02)
            last = await acknowledged(speaker, empty, await change_nothing(speaker, empty))
            taken["empty"].append(1000 * (last - ear.at))
            await asyncio.sleep(0.02)
            await speaker.execute(f"notify {FLOOR_CHANNEL}, '{turn}'")
            last = await asyncio.to_thread(floor.last, str(turn))
            taken["floor"].append(1000 * (last - ear.at))
            await asyncio.sleep(0.02)
    await speaker.close()
    return taken


async def ask(port: int, token: str, document: str, **variables: Any) -> dict[str, Any]:
    body = json.dumps({"query": document, "variables": variables}).encode()
    answer = json.loads(await bench.ask(port, bench.request_bytes("/graphql", body, token)))
    if "errors" in answer:
        sys.exit(f"the service refuses: {answer['errors']}")
    return dict(answer["data"])


async def tenant_id(url: str, name: str) -> UUID:
    connection = await asyncpg.connect(url)
    try:
        return UUID(int=(await connection.fetchval("select tenant_id from tenants where id = $1", name)).int)
    finally:
        await connection.close()


async def change_nothing(speaker: asyncpg.Connection, tenant: UUID) -> int:
    """The generation of a change of a tenant in which there is nothing."""
    async with speaker.transaction():
        await speaker.execute("select set_config('app.tenant_id', $1, true)", str(tenant))
        return int(await speaker.fetchval(ANNOUNCE, tenant))


async def acknowledged(speaker: asyncpg.Connection, tenant: UUID, generation: int) -> float:
    """When the last serving process served the tenant as of this generation; seconds since the epoch."""
    while True:
        async with speaker.transaction():
            await speaker.execute("select set_config('app.tenant_id', $1, true)", str(tenant))
            acks = await speaker.fetch("select at from replica_acks where tenant_id = $1 and generation >= $2", tenant, generation)
        if len(acks) == WORKERS:
            return float(max(ack["at"].timestamp() for ack in acks))
        await asyncio.sleep(0.004)


def keep_busy(port: int, request: bytes) -> None:
    """Clients that ask without a pause, until this process is ended."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: bench.Connection(request, float("inf"), b'"label"'), "127.0.0.1", port)
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in made))

    asyncio.run(run())


def show(when: str, taken: dict[str, list[float]]) -> None:
    halves, tails = {}, {}
    for name, times in taken.items():
        times.sort()
        halves[name], tails[name] = statistics.median(times), times[int(len(times) * 0.99)]
        print(f"{when:5} {name:10} commit to the last of {WORKERS} processes: p50 {halves[name]:6.2f} ms   p99 {tails[name]:6.2f} ms")
    for what in ("promotion", "flag"):
        for beside in ("empty", "floor"):
            ratios = [of[what] / of[beside] for of in (halves, tails)]
            print(f"{when:5} a {what} takes {ratios[0]:.2f} times the {beside} one (p99: {ratios[1]:.2f} times)")
    print()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        home = Path(folder) / "home"
        print(f"starting the service with {WORKERS} serving processes, training and registering two versions", flush=True)
        service, port = bench.start_service(home, "--workers", str(WORKERS))
        try:
            bench.make_tenant(home, port)
            row = bench.make_model(home)
            artifact, sample = str(home / f"{bench.KEY}.joblib"), str(home / "sample.json")
            options = ["--model", "tumour", "--tenant", bench.TENANT, "--task", "classification", "--sample", sample, "--wait"]
            bench.run(bench.turnout(home, "model", "register", artifact, *options, "--description", "again"))
            measure(home, port, bench.predict_request(home, row))
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(30)


def measure(home: Path, port: int, request: bytes) -> None:
    server = EmbeddedPostgres(home, die_with_parent=False)
    server.start()  # joins the one that runs
    url = server.url(DatabaseRole.RUNTIME)
    bench.make_tenant(home, port, EMPTY)
    full, empty = (asyncio.run(tenant_id(server.url(DatabaseRole.SYNC), name)) for name in (bench.TENANT, EMPTY))
    token = bench.run(bench.turnout(home, "token", "--subject", "bench", "--tenant", bench.TENANT, "--role", "ADMIN"))
    asyncio.run(ask(port, token, CREATE, input=EXPERIMENT))
    asyncio.run(ask(port, token, START))
    floor = Floor(url)
    busy = multiprocessing.Process(target=keep_busy, args=(port, request))
    try:
        asyncio.run(take_turns(url, full, empty, port, token, floor))  # a first round, so that everything has been done once
        show("idle", asyncio.run(take_turns(url, full, empty, port, token, floor)))
        if "--idle" in sys.argv:
            return
        busy.start()
        time.sleep(1.0)
        show("busy", asyncio.run(take_turns(url, full, empty, port, token, floor)))
    finally:
        if busy.is_alive():
            busy.terminate()
        floor.stop()


if __name__ == "__main__":
    main()
