"""What a batch costs at least: `python -m tools.bench.batch_floor MODEL.joblib ROWS` prints one JSON line of milliseconds.

Reading the request's JSON by orjson and one call of the model's graph by onnxruntime on one thread, each the median of many.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import onnxruntime
import orjson

from tools import bench_runtime
from tools.bench import models

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 1.5


def main(path: str, count: int) -> None:
    rows = models.rows_of(count, 1)[0]
    body = json.dumps({"variables": {"matrix": {"data": rows.tolist()}}}, separators=(",", ":")).encode()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = bench_runtime.compiled(joblib.load(path))  # noqa: TID251  a model that the bench trained itself
    session = onnxruntime.InferenceSession(graph, options)
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(rows, np.float64)}
    figures = {"parse_ms": _ms(lambda: orjson.loads(body)), "graph_ms": _ms(lambda: session.run(None, feed))}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()} | {"rows": count, "body_bytes": len(body)}))


def _ms(call: Callable[[], Any]) -> float:
    taken, until = [], time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
