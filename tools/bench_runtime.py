"""What one row costs in the runtime that serves a compiled HistGradientBoosting, beside scikit-learn's own call in a notebook.

Also `python -m tools.bench_runtime`: both measured in this process, by turns, without a service around them.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from threadpoolctl import threadpool_limits

from app.kernel.clock import Deadline
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch
from app.prediction.compiled.graph_check import check_graph
from app.prediction.runtimes.flat import FlatFiles
from app.prediction.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable

    from app.prediction.runtimes.base import Runtime

COLUMNS = 20
ROUNDS = 5
SECONDS_A_ROUND = 0.3
PROMISED = 50  # times faster than scikit-learn's own call
SIGNATURE = Signature(tuple(Column(f"x{i}", ColumnType.NUMBER, required=False) for i in range(COLUMNS)), InputKind.ARRAY)


@dataclass(frozen=True)
class Figures:
    """Microseconds for one row: the best round of several, so that a busy machine does not count.

    scikit-learn by itself lets a thread of each core take part, which on a busy machine costs more than it gives; on one thread is
    the fairer comparison, and the one that is promised.
    """

    one_thread_us: float
    its_own_threads_us: float
    runtime_us: float

    @property
    def ratio(self) -> float:
        return self.one_thread_us / self.runtime_us


class _Graphs:
    """One graph, and the seal of a tenant that nobody else has."""

    def __init__(self, graph: bytes) -> None:
        self._graph = graph

    async def bytes(self, tenant_id: UUID, digest: str) -> builtins.bytes:
        assert hashlib.sha256(self._graph).hexdigest() == digest, tenant_id
        return self._graph

    def artifact_mac(self, tenant_id: UUID, digest: str, size_bytes: int) -> builtins.bytes:
        return hmac.digest(tenant_id.bytes, f"{digest}/{size_bytes}".encode(), "sha256")


def trained() -> Any:
    """100 iterations on 20 columns, as scikit-learn makes it by default."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(7)
    x = rng.normal(size=(4000, COLUMNS))
    return HistGradientBoostingClassifier(random_state=7).fit(x, x[:, 0] + x[:, 1] * x[:, 2] > 0)


def compiled(estimator: Any) -> bytes:
    """The graph that a validation would make; here in this process, for the estimator is our own."""
    from app.prediction.worker.compiling.candidates import candidates, prepare

    prepare()
    made = candidates(estimator, SIGNATURE, Task.CLASSIFICATION, ("False", "True"), ())
    assert made.graphs, made.reasons
    return check_graph(next(graph.graph for graph in made.graphs if graph.precision == "float64"))


async def opened(graph: bytes, folder: Path, threads: ThreadPoolExecutor) -> OnnxRuntime:
    async def native() -> Runtime:
        raise AssertionError("the bench's row is inside the proof and not close to call")

    store = _Graphs(graph)
    flat = await FlatFiles(folder, store, store).path(UUID(int=1), hashlib.sha256(graph).hexdigest())
    return OnnxRuntime.load(flat, SIGNATURE, Task.CLASSIFICATION, 2, native, threads)


def _us(call: Callable[[], object]) -> float:
    count, end = 0, time.perf_counter() + SECONDS_A_ROUND
    began = time.perf_counter()
    while time.perf_counter() < end:
        call()
        count += 1
    return 1e6 * (time.perf_counter() - began) / count


def measure() -> Figures:
    estimator = trained()
    row = np.full((1, COLUMNS), 0.7)
    batch = Batch(1, row)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as threads:
        runtime = asyncio.run(opened(compiled(estimator), Path(folder), threads))
        deadline = Deadline.after(3600)

        def native() -> Any:
            return estimator.predict_proba(row)

        def infer() -> Any:
            """A row that is answered at once ends its coroutine with the first step."""
            try:
                runtime.infer(batch, deadline).send(None)
            except StopIteration as ended:
                return ended.value
            raise AssertionError("one row left the event loop")

        np.testing.assert_allclose(infer().probabilities, estimator.predict_proba(row), atol=1e-12)
        rounds = [(_one_thread_us(native), _us(native), _us(infer)) for _ in range(ROUNDS)]
    return Figures(*map(min, zip(*rounds, strict=True)))


def _one_thread_us(call: Callable[[], object]) -> float:
    with threadpool_limits(1, "openmp"):
        return _us(call)


def show(figures: Figures) -> None:
    print(
        f"one row of HistGradientBoosting  runtime {figures.runtime_us:.1f} µs   "
        f"scikit-learn on one thread {figures.one_thread_us:.0f} µs, {figures.ratio:.0f} times as much (promised: {PROMISED}), "
        f"on threads of its own {figures.its_own_threads_us:.0f} µs, {figures.its_own_threads_us / figures.runtime_us:.0f} times\n"
    )


if __name__ == "__main__":
    show(measure())
