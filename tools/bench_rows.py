"""Many rows: what they hold up, and what they cost.

    python -m tools.bench_rows [--keep HOME] [--rounds 40]

The real application runs in this process over a real service's database, as tools.bench_parts has it, and is driven as ASGI. While batches
of 10,000 rows of 20 numbers are answered, a ticker on the same loop wakes each millisecond: what it is late by is what another request
would have waited, on a loaded machine also for others' work; beside an idle loop it says how much. Then 1,000 rows, in processor time of
this process and by the clock, beside orjson and the same model's graph in this very process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import onnxruntime
import orjson
import uvloop

from app.web.serving import share_the_interpreter
from tools import bench_parts, bench_runtime
from tools.parts import Driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TICK_S = 0.001
MATRIX = 'query($m: FeatureMatrix!) { predictBatch(model: "tumour", matrix: $m) { id rowCount labels probabilities } }'
ROWS = 'query($r: [FeatureRow!]) { predictBatch(model: "tumour", rows: $r) { id rowCount labels probabilities } }'


def body(rows: int, *, objects: bool = False, spoiled: bool = False) -> bytes:
    """A request; `spoiled`: with a text for a number in the last row."""
    lists: list[Any] = np.random.default_rng(5).normal(size=(rows, bench_runtime.COLUMNS)).tolist()
    if spoiled:
        lists[-1][-1] = "text"
    if objects:
        named = [{f"x{at}": value for at, value in enumerate(row)} for row in lists]
        return json.dumps({"query": ROWS, "variables": {"r": named}}).encode()
    return json.dumps({"query": MATRIX, "variables": {"m": {"data": lists}}}).encode()


@contextlib.asynccontextmanager
async def ticking(late: list[float]) -> AsyncIterator[None]:
    """Milliseconds by which each tick was late, into `late`."""

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append(1000 * (time.perf_counter() - began - TICK_S))

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()


def told(late: list[float]) -> str:
    ordered = sorted(late)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"ticks {len(late):5}   p50 {statistics.median(late):5.2f}   p99 {p99:5.2f}   largest {ordered[-1]:5.2f} ms"


async def blocks(app: Any, token: str, rounds: int) -> None:
    """What batches hold the loop for."""
    late: list[float] = []
    async with ticking(late):
        await asyncio.sleep(1.0)
    print(f"{'nothing':28} {told(late)}")
    cases = {"matrix": {}, "objects": {"objects": True}, "a wrong value in the last": {"spoiled": True}}
    for name, how in cases.items():
        driver = Driver(app, token, [body(10_000, **how)])
        await driver.many(3)
        gc.collect()
        late = []
        async with ticking(late):
            taken = await driver.many(rounds)
        print(
            f"{'10,000 rows: ' + name:28} {told(late)}   each {statistics.median(taken) / 1000:.1f} ms   {driver.answer[:60]!r}", flush=True
        )


async def cost(app: Any, token: str, home: Path, rounds: int) -> None:
    """1,000 rows beside what they cost at least."""
    sent = body(1_000)
    driver = Driver(app, token, [sent])
    await driver.many(20)
    graph = bench_runtime.compiled(joblib.load(home / "boosted.joblib"))  # noqa: TID251  a model that the bench trained itself
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    name = session.get_inputs()[0].name
    feed = {name: np.array(orjson.loads(sent)["variables"]["m"]["data"], dtype=np.float64)}
    figures: dict[str, list[tuple[float, float]]] = {"whole": [], "parse": [], "graph": []}
    for _ in range(rounds):
        figures["whole"].append(await timed(driver.one))
        figures["parse"].append(now(lambda: orjson.loads(sent)))
        figures["graph"].append(now(lambda: session.run(None, feed)))
    for at, what in enumerate(("clock", "processor time of this process")):
        whole, parse, run = (statistics.median(each[at] for each in figures[part]) for part in ("whole", "parse", "graph"))
        print(f"1,000 rows, {what}: {whole:.2f} ms; parse {parse:.2f}, graph {run:.2f}: {whole / (parse + run):.2f} times their sum")


async def timed(work: Callable[[], Any]) -> tuple[float, float]:
    began, spent = time.perf_counter(), time.process_time()
    await work()
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - spent)


def now(work: Callable[[], Any]) -> tuple[float, float]:
    began, spent = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - spent)


async def measure(home: Path, token: str, rounds: int) -> None:
    async with bench_parts.application(home) as app:
        share_the_interpreter()
        gc.collect()
        gc.freeze()
        await blocks(app, token, rounds)
        await cost(app, token, home, 3 * rounds)
        print(f"load {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    with bench_parts.prepared(given.keep) as (home, _, _, token):
        uvloop.run(measure(home, token, given.rounds))


if __name__ == "__main__":
    main()
