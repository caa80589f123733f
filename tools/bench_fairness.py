"""What one tenant that asks too much costs the others.

    python -m tools.bench_fairness [--seconds 8] [--rounds 3] [--workers 1]

A quiet tenant asks for forty predictions a second; beside it, by turns, nobody and a tenant that asks for twenty times its limit, that
has slow models, that sends a new document with each request, or that sends batches of 10,000 rows. Told are the quiet tenant's median
and p99, and how many times the p99 is that beside nobody; the rounds take turns, and at the end all of them are taken together.
Both clients run in processes of their own, the loud one at a lower priority, for a client of ours is not what is measured.
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
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from tools.bench import service as bench

QUIET_PER_S, CONNECTIONS = 40, 4
LOUD = "loud"
LOUD_LIMITS = {"requestsPerSecond": 50, "burst": 50}
BATCH = "query($m: FeatureMatrix!) { predictBatch(model: %s, matrix: $m) { rowCount } }"
KINDS = {  # how many connections the loud tenant has, and how many requests a second it tries
    "20 times its limit": (8, 1_000),
    "slow models": (8, 1_000),
    "unseen documents": (8, 1_000),
    "batches of 10,000 rows": (2, 1_000),
}
WARM_UP_S = 1.0


async def paced(port: int, requests: Any, connections: int, per_s: float, seconds: float) -> tuple[list[float], Counter[int]]:
    """Milliseconds from when each request was due to its answer, and the statuses; a slow answer makes the next one late, and counts."""
    times: list[float] = []
    statuses: Counter[int] = Counter()
    began = time.perf_counter()

    async def client(which: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024 * 1024)
        due = began + which / per_s
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0]))
            times.append(1000 * (time.perf_counter() - due))
            statuses[int(head.split(b" ", 2)[1])] += 1
            due = max(due + connections / per_s, time.perf_counter() - 1.0)
        writer.close()

    await asyncio.gather(*(client(which) for which in range(connections)))
    return times, statuses


def endless(*requests: bytes) -> Any:
    while True:
        yield from requests


def unseen(token: str) -> Any:
    number = 0
    while True:
        number += 1
        body = json.dumps({"query": "{ " + " ".join(f"a{number}x{each}: viewer {{ tenant roles }}" for each in range(5)) + " }"})
        yield bench.request_bytes("/graphql", body.encode(), token)


def be_loud(port: int, kind: str, folder: Path, seconds: float) -> None:
    """The loud tenant's client, a process of its own."""
    with suppress(OSError):
        os.nice(10)
    connections, per_s = KINDS[kind]
    token = (folder / "token").read_text()
    requests = {
        "20 times its limit": lambda: endless((folder / "one").read_bytes()),
        "slow models": lambda: endless((folder / "slow").read_bytes(), (folder / "slow2").read_bytes(), (folder / "slow3").read_bytes()),
        "unseen documents": lambda: unseen(token),
        "batches of 10,000 rows": lambda: endless((folder / "batch").read_bytes()),
    }[kind]()
    _, statuses = asyncio.run(paced(port, requests, connections, per_s, seconds))
    print(json.dumps(statuses))


def prepare(home: Path, port: int, folder: Path) -> bytes:
    """Both tenants with their models; the quiet tenant's request."""
    bench.make_tenant(home, port)
    row = bench.make_model(home)
    bench.make_tenant(home, port, LOUD)
    token = bench.run(bench.turnout(home, "token", "--subject", "bench", "--tenant", LOUD, "--role", "ADMIN"))
    rng = np.random.default_rng(7)
    wide, answers = rng.normal(size=(20_000, 20)), rng.integers(0, 2, 20_000)
    sample = folder / "sample.json"
    sample.write_text(json.dumps(wide[:8].tolist()))
    for name in ("slow", "slow2", "slow3"):
        joblib.dump(KNeighborsClassifier(algorithm="brute", n_neighbors=5).fit(wide, answers), folder / f"{name}.joblib")
        serve(home, folder, name, sample)
        rows = {"m": {"data": rng.normal(size=(300, 20)).tolist()}}
        body = json.dumps({"query": BATCH % json.dumps(name), "variables": rows}).encode()
        (folder / name).write_bytes(bench.request_bytes("/graphql", body, token))
    bench.run([sys.executable, "-P", "-m", "app.cli.demo_models", str(folder), bench.KEY])
    given = json.loads((folder / f"{bench.KEY}.json").read_text())["sample"]
    sample.write_text(json.dumps(given))
    (folder / f"{bench.KEY}.joblib").rename(folder / "many.joblib")
    serve(home, folder, "many", sample)
    names = list(given[0])
    many = {"m": {"columns": names, "data": [[given[0][name] for name in names]] * 10_000}}
    body = json.dumps({"query": BATCH % '"many"', "variables": many}).encode()
    (folder / "batch").write_bytes(bench.request_bytes("/graphql", body, token))
    (folder / "one").write_bytes(bench.request_bytes("/graphql", json.dumps({"query": "{ viewer { tenant } }"}).encode(), token))
    (folder / "token").write_text(token)
    bench.limit_tenant(home, port, LOUD, LOUD_LIMITS)
    return bench.predict_request(home, row)


def serve(home: Path, folder: Path, name: str, sample: Path) -> None:
    options = ["--tenant", LOUD, "--task", "classification", "--sample", str(sample), "--wait", "--json"]
    bench.run(bench.turnout(home, "model", "register", str(folder / f"{name}.joblib"), "--model", name, *options))
    bench.run(bench.turnout(home, "model", "promote", name, "1", "--tenant", LOUD, "--json"))


def beside(port: int, request: bytes, kind: str | None, folder: Path, seconds: float) -> tuple[list[float], str]:
    """The quiet tenant's times, and what the loud one was answered."""
    loud = None
    if kind is not None:
        command = [sys.executable, "-m", "tools.bench_fairness", "--loud", kind, "--port", str(port), "--folder", str(folder)]
        command += ["--seconds", str(seconds + 2 * WARM_UP_S)]
        loud = subprocess.Popen(command, cwd=bench.ROOT, stdout=subprocess.PIPE, text=True)
        time.sleep(2 * WARM_UP_S)  # its imports, and its first second
    times, statuses = asyncio.run(paced(port, endless(request), CONNECTIONS, QUIET_PER_S, seconds))
    if set(statuses) != {200}:
        sys.exit(f"the quiet tenant was refused: {statuses}")
    return times, "" if loud is None else loud.communicate(timeout=60)[0].strip()


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def measure(port: int, request: bytes, folder: Path, seconds: float, rounds: int) -> None:
    asyncio.run(paced(port, endless(request), CONNECTIONS, QUIET_PER_S, 2.0))  # warm
    for kind in KINDS:
        alone, with_it = [], []
        for _ in range(rounds):
            quiet, _ = beside(port, request, None, folder, seconds)
            loud, answered = beside(port, request, kind, folder, seconds)
            alone += quiet
            with_it += loud
            print(
                f"{kind:24} alone p50 {statistics.median(quiet):6.2f} p99 {p99(quiet):7.2f} ms   "
                f"beside p50 {statistics.median(loud):6.2f} p99 {p99(loud):7.2f} ms   times {p99(loud) / p99(quiet):5.2f}   "
                f"load {os.getloadavg()[0]:.1f}   {answered}",
                flush=True,
            )
        medians = statistics.median(with_it) / statistics.median(alone)
        print(
            f"{kind:24} all rounds: p50 {medians:.2f} times, p99 {p99(with_it) / p99(alone):.2f} times, of {len(alone):,} each", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1")
    parser.add_argument("--loud", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.loud:
        be_loud(given.port, given.loud, given.folder, given.seconds)
        return
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        service, port = bench.start_service(folder / "home", "--workers", given.workers)
        try:
            measure(port, prepare(folder / "home", port, folder), folder, given.seconds, given.rounds)
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(30)


if __name__ == "__main__":
    main()
