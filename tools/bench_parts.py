"""What one served prediction costs, part by part, in microseconds of the serving process.

    python -m tools.bench_parts [--guard | --write] [--keep HOME]

Everything is on: token, rate limit and budget of rows, a running experiment and a unit, histogram boosting by its compiled graph, DURABLE
log, metrics, service level. The real application runs in this process over a real service's database, is driven as ASGI, and each part is
timed where it is called; what the parts do not name is told as the remainder. Then the service itself over sockets, beside an application
that reads a body and answers a constant: what uvicorn takes is what that one takes.

`--guard` measures the application alone and ends with 1 where a request costs more than tools/bench_parts.json says: in processor time, by
the time of a loop that is measured in the same run, one request after the other and 32 under way together; in calls of functions; and,
where the machine counts them, in instructions. Times are held against those of the same kind of processor: of another, one loop may be
faster and the other not. `--write` writes what this machine's says. `--keep` sets a service up once and uses it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import pstats
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import uvloop

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.main import create_app
from app.observability import logs
from app.observability.exposition import METRICS_FOLDER
from app.observability.metrics import Telemetry
from app.settings import Settings
from app.web.serving import keep_what_is_there
from tools import bench_promotion, bench_runtime, bench_scale
from tools.bench import load, machine, processes, servers
from tools.bench import service as bench
from tools.instructions import counter
from tools.parts import PARTS, Driver, echo, watch_all
from tools.probes import Probes, without_probes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

FIGURES = Path(__file__).with_suffix(".json")
TOLERANCE = 0.15
REQUESTS, ROUNDS, UNITS = 64, 40, 64
CONNECTIONS, SECONDS, TURNS = 32, 3.0, 3
DOCUMENT = """query($row: FeatureRow!, $unit: ID!) { predict(model: "tumour", features: $row, unit: $unit) {
  id version variant reason label probability } }"""


@dataclass(frozen=True)
class Cost:
    """Of one request in the application. `calibrations`: processor time, by that of one turn of the loop below; `together`: so is
    that of one of several that are under way at once.
    """

    calibrations: float
    together: float
    calls: float
    kinstructions: float | None


# --- set-up


@contextlib.contextmanager
def prepared(kept: Path | None) -> Iterator[tuple[Path, int, subprocess.Popen[str], str]]:
    """A running service with two versions and a running experiment: home, port, process and a client's token."""
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        Path(folder).chmod(0o711)
        home = kept or Path(folder) / "home"
        fresh = not home.exists()
        service, port = bench.start_service(home)
        try:
            if fresh:
                fill(home, port)
            token = bench.run(bench.turnout(home, "token", "--subject", "b", "--tenant", bench.TENANT, "--role", "PREDICTOR"))
            yield home, port, service, token
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(30)


def fill(home: Path, port: int) -> None:
    bench.make_tenant(home, port)
    sample, artifact = home / "sample.json", home / "boosted.joblib"
    sample.write_text(json.dumps(np.random.default_rng(3).normal(size=(8, bench_runtime.COLUMNS)).tolist()))
    joblib.dump(bench_runtime.trained(), artifact)
    options = ["--model", "tumour", "--tenant", bench.TENANT, "--task", "classification", "--sample", str(sample), "--wait"]
    for description in ("first", "second"):
        bench.run(bench.turnout(home, "model", "register", str(artifact), *options, "--description", description))
    bench.run(bench.turnout(home, "model", "promote", "tumour", "1", "--tenant", bench.TENANT, "--json"))
    token = bench.run(bench.turnout(home, "token", "--subject", "bench", "--tenant", bench.TENANT, "--role", "ADMIN"))
    asyncio.run(bench_promotion.ask(port, token, bench_promotion.CREATE, input=bench_promotion.EXPERIMENT))
    asyncio.run(bench_promotion.ask(port, token, bench_promotion.START))


def bodies() -> list[bytes]:
    """One a unit, each with a row of its own."""
    rows = np.random.default_rng(3).normal(size=(UNITS, bench_runtime.COLUMNS)).round(4).tolist()
    return [json.dumps({"query": DOCUMENT, "variables": {"row": row, "unit": f"user-{n}"}}).encode() for n, row in enumerate(rows)]


@contextlib.asynccontextmanager
async def application(home: Path) -> AsyncIterator[Any]:
    """The service's application in this process, another replica on the same database, ready to answer."""
    server = EmbeddedPostgres(home, die_with_parent=False)
    server.start()  # joins the one that runs
    roles = {"": DatabaseRole.RUNTIME, "LOG_": DatabaseRole.LOG, "SYNC_": DatabaseRole.SYNC}
    urls = {f"TURNOUT_DATABASE_{name}URL": server.url(role) for name, role in roles.items()}
    settings = Settings.from_env({"TURNOUT_HOME": str(home), "TURNOUT_LOG_LEVEL": "error", **urls})
    logs.configure("error", "bench")
    app = create_app(settings, Telemetry(home / METRICS_FOLDER))
    async with app.router.lifespan_context(app):
        yield app


# --- measuring


async def parts_of(home: Path, token: str) -> tuple[float, dict[str, float], Cost]:
    """Microseconds of a request in the application and of its parts, and what the guard compares."""
    nothing = Driver(echo, token, bodies())
    await nothing.many(REQUESTS)
    driving = statistics.median(await nothing.many(4 * REQUESTS))
    with Probes() as probes:
        watch_all(probes)
        async with application(home) as app:
            driver = Driver(app, token, bodies())
            await driver.many(4 * UNITS)
            if b'"label":' not in driver.answer:
                sys.exit(f"the service does not predict: {driver.answer[:300]!r}")
            keep_what_is_there()
            parts, whole = await measured(driver, driving, probes)
            with probes.off():
                return whole, parts, await cost_of(driver)


async def measured(driver: Driver, driving: float, probes: Probes) -> tuple[dict[str, float], float]:
    """Medians of the round that was disturbed least: of the parts, and of the whole without probes."""
    best: tuple[float, float, dict[str, float]] = (float("inf"), 0.0, {})
    for _ in range(ROUNDS):
        with probes.off():
            whole = statistics.median(await driver.many(REQUESTS)) - driving
        seen: list[dict[str, float]] = []
        for _ in range(REQUESTS):
            probes.clear()
            await driver.one()
            seen.append({part: ns / 1000 for part, ns in probes.own_ns.items()})
        own = {part: statistics.median(each.get(part, 0.0) for each in seen) for part in PARTS}
        if (took := whole + sum(own.values())) < best[0]:
            best = (took, whole, without_probes(own, probes.calls, probes.inner_calls, whole))
        await asyncio.sleep(0.01)  # what others wait for on this loop happens outside the measurement
    return best[2], best[1]


async def cost_of(driver: Driver) -> Cost:
    """The least of many short rounds by turns with the loop: other programs only add to either."""
    request_s = together_s = loop_s = float("inf")
    for _ in range(2 * ROUNDS):
        began = time.process_time()
        await driver.many(REQUESTS)
        request_s = min(request_s, (time.process_time() - began) / REQUESTS)
        began = time.process_time()
        for _ in range(REQUESTS // CONNECTIONS):
            await driver.at_once(CONNECTIONS)
        together_s = min(together_s, (time.process_time() - began) / REQUESTS)
        loop_s = min(loop_s, cpu_s(calibration))
    profile = cProfile.Profile()
    profile.enable()
    await driver.many(REQUESTS)
    profile.disable()
    calls = pstats.Stats(profile).total_calls / REQUESTS  # type: ignore[attr-defined]
    count = counter()
    if count is None:
        return Cost(request_s / loop_s, together_s / loop_s, calls, None)
    before = count()
    await driver.many(REQUESTS)
    return Cost(request_s / loop_s, together_s / loop_s, calls, (count() - before) / REQUESTS / 1000)


def calibration() -> int:
    """Some of the interpreter's everyday work."""
    total = 0
    for number in range(1_000):
        row = {"a": number, "b": [number, number + 1.5], "c": str(number)}
        total += len(json.dumps(row)) + len(sorted(row))
    return total


def cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def over_sockets(port: int, service: int, token: str) -> dict[str, float]:
    """Microseconds of processor time of a request in the serving process, and in the floor's; the least of some turns."""
    cores = processes.Cores.of_this_machine()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    best = {"service": float("inf"), "echo": float("inf")}
    listener = free_port()
    floor = subprocess.Popen([sys.executable, "-P", str(servers.PEERS / "serve_echo.py"), str(listener)])
    try:
        processes.pin([service, floor.pid], cores.server)
        time.sleep(1.5)  # it says nothing when it is ready
        with tempfile.TemporaryDirectory() as folder:
            loader = load.Loader(load.generator(), Path(folder), cores.beside)
            for _ in range(TURNS):
                for name, (at, pid) in {"service": (port, service), "echo": (listener, floor.pid)}.items():
                    target = load.Target(at, "/graphql", headers, bodies(), '"label"')
                    before = processes.cpu_s([pid])
                    figures = loader.run(target, CONNECTIONS, SECONDS)
                    if figures.refused or figures.bad:
                        sys.exit(f"{name} does not predict: {figures}")
                    best[name] = min(best[name], 1e6 * (processes.cpu_s([pid]) - before) / figures.requests)
    finally:
        floor.terminate()
        floor.wait(10)
    return best


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- telling


def show(whole: float, parts: dict[str, float], sockets: dict[str, float]) -> None:
    print("\n| part of a request | µs |\n| --- | ---: |")
    for part, us in parts.items():
        print(f"| {part} | {us:.1f} |")
    print(f"| not named above | {whole - sum(parts.values()):+.1f} |")
    print(f"| the application, one request at a time | {whole:.1f} |")
    print(f"| uvicorn, sockets, HTTP: all that the echo takes | {sockets['echo']:.1f} |")
    print(f"| more or less over sockets, {CONNECTIONS} connections | {sockets['service'] - sockets['echo'] - whole:+.1f} |")
    print(f"| a request of the serving process | {sockets['service']:.1f} |")
    print(
        f"\n{sockets['echo'] / sockets['service']:.3f} of the echo; {1e6 / sockets['service']:,.0f} requests a second of one core\n",
        flush=True,
    )


def guard(found: Cost, figures: dict[str, dict[str, float | None]], processor: str) -> int:
    """1 where a figure is more than the committed one by more than the tolerance. `figures`: by kind of processor; of one that is not
    among them only counts are compared, with any.
    """
    known = figures.get(processor)
    if known is None:
        print(f"no times are committed of this processor, {processor}, so calls alone are compared; --write adds it")
        known = {"calls": next(iter(figures.values()))["calls"]}
    status = 0
    for name, figure in asdict(found).items():
        committed = known.get(name)
        if figure is None or committed is None:
            continue
        more = figure / committed - 1
        status |= more > TOLERANCE
        print(f"a request's {name:14} {figure:8.3f}   committed {committed:8.3f}   {more:+.0%}, of {TOLERANCE:.0%} that it may be more")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--guard", action="store_true")
    what.add_argument("--write", action="store_true")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with prepared(given.keep) as (home, port, service, token):
        whole, parts, cost = uvloop.run(parts_of(home, token))
        figures = json.loads(FIGURES.read_text())
        if given.guard:
            return guard(cost, figures, machine.processor())
        if given.write:
            kept = {name: None if figure is None else round(figure, 4) for name, figure in asdict(cost).items()}
            FIGURES.write_text(json.dumps(figures | {machine.processor(): kept}, indent=2) + "\n")
        show(whole, parts, over_sockets(port, bench_scale.serving(service), token))
        print(cost)
    return 0


if __name__ == "__main__":
    sys.exit(main())
