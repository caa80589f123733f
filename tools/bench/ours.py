"""All measurements of our own service: the cells that others have too, and what only we have."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tools.bench import measuring, models, processes, servers
from tools.bench.load import NoFiguresError
from tools.bench.measuring import say
from tools.bench.service import ROOT
from tools.bench.turnout import PLAIN, Turnout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.bench.figures import Results
    from tools.bench.measuring import Bench, Shape

PACED_SHARE, PACED_CONNECTIONS, PACED_S = 0.7, 128, 10.0
WORKERS = 2
PARTS_PATIENCE_S = 300
NATIVE = ("TURNOUT_COMPILED_TOLERANCE=0",)  # no graph is ever so exact: what is served is scikit-learn in its locked child


def measure(bench: Bench, shapes: Sequence[Shape], results: Results, *, quick: bool) -> None:
    """Adds to `results`. Whatever goes wrong here ends the run: a bench without our own service says nothing."""
    say("Turnout: starting the service, registering models, starting experiments")
    home = bench.folder / "home"
    turnout = Turnout(home, bench.cores)
    try:
        turnout.register(bench.models, models.BOOSTED, models.BOOSTED, models.BOOSTED_NEXT)
        turnout.register(bench.models, models.LINEAR, models.LINEAR, models.LINEAR_NEXT)
        turnout.register(bench.models, PLAIN, models.BOOSTED, models.BOOSTED_NEXT)
        for model in (models.BOOSTED, models.LINEAR):
            turnout.experiment(model)
        results.versions["turnout"] = ", ".join(f"{model} by {turnout.runtimes(model)}" for model in (models.BOOSTED, models.LINEAR))
        say(f"Turnout ({results.versions['turnout']})")
        results.cells += measuring.measure_turnout(turnout, bench, shapes)
        _variants(turnout, bench, results, quick=quick)
        if not quick:
            _paced(turnout, bench, results)
            _batch(bench, results)
    finally:
        turnout.stop()
    if not quick:
        for workers in (1, WORKERS):
            _workers(bench, results, workers)
        _forest(bench, results)
        _parts(bench, results)


def _variants(turnout: Turnout, bench: Bench, results: Results, *, quick: bool) -> None:
    for connections in (1, 32):
        turnout.drained()
        shape = (models.BOOSTED, connections, 1)
        results.cells.append(bench.measure("turnout", turnout, turnout.one(PLAIN, units=False), shape, "no experiment"))
    if quick:
        return
    turnout.drained()
    named = turnout.one(models.BOOSTED, named=True)
    results.cells.append(bench.measure("turnout", turnout, named, (models.BOOSTED, 32, 1), "named columns"))
    for durability in ("BUFFERED", "DURABLE_FSYNC"):
        turnout.durability(durability)
        shapes = [(models.BOOSTED, connections, 1) for connections in (1, 32, 128)]
        results.cells += measuring.measure_turnout(turnout, bench, shapes, durability)
    turnout.durability("DURABLE")


def _paced(turnout: Turnout, bench: Bench, results: Results) -> None:
    """Latency where a service should run: below its capacity, while versions are promoted."""
    ours = results.find("turnout", 32)
    if ours is None:
        return
    turnout.drained()
    with turnout.promotions(PLAIN) as took:
        load = bench.loader.paced(turnout.one(models.BOOSTED), PACED_CONNECTIONS, PACED_S, PACED_SHARE * ours.per_second)
    results.notes["paced"] = {
        "aimed_per_second": round(PACED_SHARE * ours.per_second),
        "per_second": round(load.per_second),
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "max_ms": load.max_ms,
        "refused": load.refused,
        "bad": load.bad,
        "promotions": len(took),
        "promotion_ms": round(1000 * sorted(took)[len(took) // 2], 1) if took else None,
    }
    say(f"  at 70 % of capacity, with promotions: {results.notes['paced']}")


def _batch(bench: Bench, results: Results) -> None:
    """What 1,000 rows cost at least, on the server's core: reading the JSON and calling the graph."""
    cell = results.find("turnout", 1, 1000)
    with processes.on(bench.cores.server):
        command = [sys.executable, "-m", "tools.bench.batch_floor", str(bench.models / f"{models.BOOSTED}.joblib"), "1000"]
        told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    floor = json.loads(told.splitlines()[-1])
    if cell is not None:
        floor["p50_ms"], floor["times"] = cell.p50_ms, round(cell.p50_ms / (floor["parse_ms"] + floor["graph_ms"]), 2)
    results.notes["batch"] = floor
    say(f"  1,000 rows: {floor}")


def _workers(bench: Bench, results: Results, workers: int) -> None:
    """The same service again, with so many serving processes, and as many cores for them as there are."""
    cores = bench.cores.for_workers(WORKERS)
    spread = dataclasses.replace(bench, cores=cores)
    turnout = Turnout(bench.folder / "home", cores, workers)
    try:
        cell = spread.measure("turnout", turnout, turnout.one(models.BOOSTED), (models.BOOSTED, 32, 1), f"{workers} workers")
        results.cells.append(cell)
        own = [
            {"pss_mib": round(processes.memory_mib([pid])), "private_mib": round(processes.private_mib([pid]))} for pid in turnout.workers()
        ]
        alone = cores.server.isdisjoint(cores.beside)
        results.notes.setdefault("workers", {})[str(workers)] = {"each": own, "cores": len(cores.server), "cores_of_their_own": alone}
    finally:
        turnout.stop()


def _forest(bench: Bench, results: Results) -> None:
    """A model that serves natively: through the locked child, beside a route that calls it in process."""
    forest = dataclasses.replace(bench, models=bench.models / models.FOREST)
    shape = (models.FOREST, 32, 1)
    turnout = Turnout(bench.folder / "native", bench.cores, settings=NATIVE)
    try:
        turnout.register(forest.models, models.FOREST, models.FOREST)
        results.versions["forest"] = f"by {turnout.runtimes(models.FOREST)}"
        results.cells.append(bench.measure("turnout", turnout, turnout.one(models.FOREST), shape))
    finally:
        turnout.stop()
    try:
        results.cells += measuring.measure_other(servers.STARLETTE, forest, [shape])
    except NoFiguresError as error:
        results.missing["starlette with the forest"] = str(error)


def _parts(bench: Bench, results: Results) -> None:
    """Where one request's time goes, by `tools.bench_parts`: its tables, as it prints them."""
    say("the parts of a request")
    with processes.on(bench.cores.server | bench.cores.beside):
        command = [sys.executable, "-m", "tools.bench_parts"]
        try:
            told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=PARTS_PATIENCE_S).stdout
        except (subprocess.SubprocessError, OSError) as error:
            results.missing["parts of a request"] = str(error).replace(sys.executable, "python")
            return
    results.notes["parts"] = [line for line in told.splitlines() if line.startswith("|")]
    say("\n".join(results.notes["parts"]))
