"""`make bench-scale`: what it costs to serve many tenants, beside the same with two of them on the same machine.

    python -m tools.bench_scale [--tenants 2000] [--models 10]

One serving process. By turns, with two tenants and then with all of them: the time to start and the memory, the processor time of one
prediction in the serving process, the time from a promotion's commit until it is served, and of lists' pages. Figures of ten thousand
tenants are in docs/performance.md; two thousand show a growth with the number of tenants as well, and take a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from tools import bench_promotion
from tools.bench import service as bench

REQUESTS, PROMOTIONS, PAGES, ROUNDS = 2_000, 40, 60, 3
IDLE_S = 10.0
LISTS = {
    "tenants": "{ tenants(first: 100) { edges { node { id name status } } pageInfo { endCursor hasNextPage } } }",
    "models": "{ models(first: 100) { edges { node { name aliases { name version { number } } } } pageInfo { endCursor } } }",
    "auditLog": "{ auditLog(first: 100) { edges { node { action subject } } pageInfo { endCursor } } }",
}


@dataclass(frozen=True)
class Figures:
    """Of one number of tenants. Times in milliseconds, memory in MiB."""

    start_s: float
    memory_mib: float
    request_cpu_ms: float
    idle_cpu_percent: float
    promotion_ms: float
    pages_ms: dict[str, float]


def serving(service: subprocess.Popen[str]) -> int:
    """The serving process's id."""
    for line in subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines():
        pid, parent, arguments = line.split(None, 2)
        if "app.main" in arguments and parent == str(service.pid):
            return int(pid)
    sys.exit("there is no serving process")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")) / 1024


async def many(port: int, request: bytes, count: int, expected: bytes) -> float:
    """The seconds of each, half of them faster."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    while len(times) < count:
        _, connection = await loop.create_connection(
            lambda: bench.Connection(request, time.perf_counter() + 1.0, expected), "127.0.0.1", port
        )
        await connection.done
        if connection.errors:
            sys.exit(f"{connection.errors} answers were not as expected")
        times += connection.times
    return statistics.median(times)


def request_cpu_ms(pid: int, port: int, request: bytes) -> float:
    """Of one prediction; the least of three rounds, for other programs can only add to it."""
    found = []
    for _ in range(ROUNDS):
        before, count = cpu_s(pid), 0

        async def run() -> int:
            until = time.perf_counter() + 3.0
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: bench.Connection(request, until, b'"label"'), "127.0.0.1", port)
            await connection.done
            return len(connection.times)

        count = asyncio.run(run())
        found.append(1000 * (cpu_s(pid) - before) / count)
    return min(found)


async def promotion_ms(url: str, port: int, token: str) -> float:
    """From hearing of the commit until the serving process wrote down that it serves the change; the median."""
    taken = []
    async with bench_promotion.listening(url) as (ear, _):
        for turn in range(PROMOTIONS):
            done = (await bench_promotion.ask(port, token, bench_promotion.PROMOTE, version=2 - turn % 2))["promote"]
            last = max(datetime.fromisoformat(ack["appliedAt"]).timestamp() for ack in done["appliedBy"])
            taken.append(1000 * (last - ear.at))
            await asyncio.sleep(0.02)
    return statistics.median(taken)


def figures(service: subprocess.Popen[str], port: int, home: Path, start_s: float, row: dict[str, float]) -> Figures:
    pid, server = serving(service), EmbeddedPostgres(home, die_with_parent=False)
    server.join()
    tokens = {
        role: bench.run(bench.turnout(home, "token", "--subject", "bench", "--tenant", bench.TENANT, "--role", role))
        for role in ("ADMIN", "OPERATOR")
    }
    predict = bench.predict_request(home, row)
    asyncio.run(many(port, predict, 200, b'"label"'))
    before, began = cpu_s(pid), time.perf_counter()
    time.sleep(IDLE_S)
    idle = 100 * (cpu_s(pid) - before) / (time.perf_counter() - began)
    pages = {}
    for name, document in LISTS.items():
        token = tokens["OPERATOR" if name == "tenants" else "ADMIN"]
        request = bench.request_bytes("/graphql", json.dumps({"query": document}).encode(), token)
        pages[name] = 1000 * asyncio.run(many(port, request, PAGES, b'"edges"'))
    cpu = request_cpu_ms(pid, port, predict)
    promotion = asyncio.run(promotion_ms(server.url(DatabaseRole.RUNTIME), port, tokens["ADMIN"]))
    return Figures(start_s, memory_mib(pid), cpu, idle, promotion, pages)


def start(home: Path) -> tuple[subprocess.Popen[str], int, float]:
    """The service; its seconds until it was ready."""
    began = time.perf_counter()
    service, port = bench.start_service(home)
    return service, port, time.perf_counter() - began


def stop(service: subprocess.Popen[str]) -> None:
    service.send_signal(signal.SIGINT)
    service.wait(60)


def show(tenants: str, found: Figures) -> None:
    pages = "   ".join(f"{name} {ms:.1f} ms" for name, ms in found.pages_ms.items())
    print(
        f"{tenants:>7} tenants   start {found.start_s:.1f} s   memory {found.memory_mib:.0f} MiB   idle {found.idle_cpu_percent:.1f} %   "
        f"a prediction {found.request_cpu_ms:.3f} ms of processor   a promotion {found.promotion_ms:.1f} ms   pages: {pages}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=2_000)
    parser.add_argument("--models", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        service, port, _ = start(home)
        try:
            bench.make_tenant(home, port)
            bench.make_tenant(home, port, "bench-other")
            row = bench.make_model(home)
            artifact, sample = str(home / f"{bench.KEY}.joblib"), str(home / "sample.json")
            options = ["--model", "tumour", "--tenant", bench.TENANT, "--task", "classification", "--sample", sample, "--wait"]
            bench.run(bench.turnout(home, "model", "register", artifact, *options, "--description", "again"))
            stop(service)
            service, port, start_s = start(home)
            few = figures(service, port, home, start_s, row)
            show("2", few)
            like, size = f"{bench.TENANT}/tumour", ["--tenants", str(given.tenants), "--models", str(given.models)]
            seeding = [sys.executable, "-m", "tools.seed_tenants", "--home", str(home), "--like", like, *size]
            print(bench.run(seeding), flush=True)
            stop(service)
            service, port, start_s = start(home)
            lots = figures(service, port, home, start_s, row)
            show(f"{given.tenants:,}", lots)
            print(f"a prediction costs {lots.request_cpu_ms / few.request_cpu_ms:.2f} times as much, ", end="")
            print(f"a promotion {lots.promotion_ms / few.promotion_ms:.2f} times, ", end="")
            print(f"a model {1024 * (lots.memory_mib - few.memory_mib) / (given.tenants * given.models):.1f} KiB")
        finally:
            stop(service)


if __name__ == "__main__":
    main()
