"""Serves a version by its compiled graph, in this process: a row costs microseconds, and no other process is asked.

The bytes that come here were read and run in the sandbox before, and were checked against digest and seal just now. What the graph
was not proved for, and answers too close to call, go to the estimator itself.

What onnxruntime (1.31, measured) does with a graph: loaded from a file it copies it, initialisers at 1.2 times their size and tree
ensembles at 4 times; from bytes the initialisers take three times. In its own flat format, mapped from a file, initialisers and
attributes stay in the file's pages, which all processes share, and only what the kernels build from them is each process's own: 1.1
to 2 times the graph, with the same answers to the last bit. So graphs are served in that format where they can be (`flat.py`).
Trees take 10 times the graph while they are loaded, which the C library keeps unless it is asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import structlog

from app.errors import AppError, DeadlineExceeded, ModelFailed
from app.kernel.memory import give_back_memory
from app.kernel.tensors import Batch, Scores
from app.prediction.compiled.inputs import OutsideProof
from app.prediction.compiled.outputs import Malformed
from app.prediction.compiled.sessions import CompiledGraph
from app.prediction.runtimes.base import NotNow, time_left
from app.prediction.runtimes.calls import model_failed
from app.prediction.runtimes.flat import open_session
from app.prediction.runtimes.together import MOST_ROWS, Together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from numpy.typing import NDArray

    from app.kernel.clock import Deadline
    from app.kernel.signature import Signature, Task
    from app.prediction.compiled.outputs import Answer
    from app.prediction.runtimes.base import Runtime

    Rows = NDArray[np.intp]
    Native = Callable[[], Awaitable[Runtime]]

_LOOP_S = 0.002  # a call that is expected to hold the event loop for longer goes to a thread
_WARM_ROWS, _WARM_CALLS = 32, 4  # the fastest of several calls counts: others may have been held up
_LARGE_BYTES = 1024 * 1024
_LEARN = 0.2  # how much of what a call cost more than expected counts for the next one
log = structlog.get_logger()


class OnnxRuntime:
    """One version's graph. `native` gives the estimator itself, opened where it is not, for the rows that the graph must not answer."""

    kind = "onnx"

    def __init__(
        self, session: onnxruntime.InferenceSession, signature: Signature, task: Task, classes: int, native: Native, threads: Executor
    ) -> None:
        self._graph = CompiledGraph(session, signature, task, classes)
        self._native = native
        self._threads = threads
        self._running = 0
        self._closed = False
        self._one_s = self._row_s = 0.0  # what one row, and each row more, cost of late
        self._measure(signature)
        self._each_s = self._one_s  # what one of several rows that went together cost of late
        self._together = Together(self._answers, self._graph.is_indifferent, self._most, threads)

    @classmethod
    def load(cls, flat: Path, signature: Signature, task: Task, classes: int, native: Native, threads: Executor) -> OnnxRuntime:
        """A runtime of the graph in this file, warmed; raises ModelFailed. Blocks, without holding the interpreter: call it in a thread."""
        try:
            loaded = cls(open_session(flat), signature, task, classes, native, threads)
            if flat.stat().st_size > _LARGE_BYTES:
                give_back_memory()
            return loaded
        except Exception as error:  # noqa: BLE001  onnxruntime's own errors share no base
            log.warning("graph_not_loaded", file=flat.name, error=type(error).__name__, why=str(error)[:500])
            raise ModelFailed("The compiled model could not be loaded.") from None

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer of it."""
        return self._running > 0

    async def infer(self, batch: Batch, deadline: Deadline) -> Scores:
        """As `Runtime.infer`. A batch that would hold the event loop is computed in a thread and given up at its deadline."""
        if self._closed:
            raise NotNow("The model is being unloaded.")
        time_left(deadline)
        self._running += 1
        try:
            if self._one_s + batch.rows * self._row_s > _LOOP_S:
                answer = await self._in_a_thread(batch, deadline)
            elif self._together.is_for(batch):
                joined = await self._together.join(batch)
                if joined is None:
                    time_left(deadline)
                answer = joined or self._answer(batch)
            else:
                answer = self._answer(batch)
            return await self._settled(batch, answer, deadline) if answer.doubtful.size else answer.scores
        except OutsideProof:
            return await self._apart(batch, self._graph.feeder.outside(batch), deadline)
        finally:
            self._running -= 1

    async def close(self) -> None:
        """No more calls begin; the graph's memory goes with the last one that runs."""
        self._closed = True

    def _answer(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> Answer:
        began = time.perf_counter()
        try:
            answer = self._graph.answer(batch, options)
        except OutsideProof:
            raise
        except Malformed as error:
            raise model_failed("BAD_OUTPUT", str(error)) from None
        except Exception as error:  # noqa: BLE001  as above
            if options is not None and options.terminate:
                raise DeadlineExceeded("The model did not answer in time.") from None
            log.warning("graph_failed", error=type(error).__name__, why=str(error)[:500])
            raise model_failed("ESTIMATOR", "the compiled model raised an error.") from None
        self._learn(batch.rows, time.perf_counter() - began)
        return answer

    def _answers(self, rows: Sequence[Batch]) -> Sequence[Answer | None]:
        began = time.perf_counter()
        answers = self._graph.answers(rows)
        self._each_s = _moved(self._each_s, (time.perf_counter() - began) / len(rows))
        return answers

    def _most(self) -> int:
        """How many rows may go together without holding the event loop."""
        return MOST_ROWS if self._each_s * MOST_ROWS <= _LOOP_S else int(_LOOP_S / self._each_s)

    async def _settled(self, batch: Batch, answer: Answer, deadline: Deadline) -> Scores:
        """The graph's answers, with the estimator's own in the rows that are too close to call."""
        rows = answer.doubtful
        if not rows.size:
            return answer.scores
        return _merged(batch.rows, (answer.scores, None), (await self._natively(_taken(batch, rows), deadline), rows))

    async def _apart(self, batch: Batch, outside: Rows, deadline: Deadline) -> Scores:
        """The estimator's answers in the rows that the graph was not proved for, the graph's in the others."""
        native = await self._natively(_taken(batch, outside), deadline)
        if outside.size == batch.rows:
            return native
        inside = np.setdiff1d(np.arange(batch.rows), outside)
        proved = _taken(batch, inside)
        answer = await self._in_a_thread(proved, deadline)
        return _merged(batch.rows, (await self._settled(proved, answer, deadline), inside), (native, outside))

    async def _in_a_thread(self, batch: Batch, deadline: Deadline) -> Answer:
        options = onnxruntime.RunOptions()
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, batch, options)
        except TimeoutError:
            raise DeadlineExceeded("The model did not answer in time.") from None
        finally:
            options.terminate = True  # a graph that nobody waits for ends at its next node

    async def _natively(self, batch: Batch, deadline: Deadline) -> Scores:
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                runtime = await self._native()
        except TimeoutError:
            raise DeadlineExceeded("The model was still being loaded when the time was up.", retry_after_ms=1000) from None
        return await runtime.infer(batch, deadline)

    # --- what a call costs

    def _measure(self, signature: Signature) -> None:
        """First figures, from rows of zeros and empty texts: the first calls also have the graph make its buffers."""
        numbers = sum(column.type != "STRING" for column in signature.columns)
        texts = len(signature.columns) - numbers
        with contextlib.suppress(AppError):  # a model may have its reasons against zeros
            self._one_s, several_s = (
                min(self._timed(Batch(rows, np.zeros((rows, numbers)), (("",) * rows,) * texts)) for _ in range(_WARM_CALLS))
                for rows in (1, _WARM_ROWS)
            )
            self._row_s = max(0.0, several_s - self._one_s) / (_WARM_ROWS - 1)

    def _timed(self, batch: Batch) -> float:
        began = time.perf_counter()
        self._answer(batch)
        return time.perf_counter() - began

    def _learn(self, rows: int, seconds: float) -> None:
        """A call that was held up by others counts little: what is expected rises slowly and falls fast."""
        if rows == 1:
            self._one_s = _moved(self._one_s, seconds)
        else:
            self._row_s = _moved(self._row_s, max(0.0, seconds - self._one_s) / (rows - 1))


def _moved(expected: float, seen: float) -> float:
    """The figure for the next call."""
    if expected == 0.0 or seen < expected:
        return seen if expected == 0.0 else (expected + seen) / 2
    return expected + _LEARN * min(seen - expected, expected)


def _taken(batch: Batch, rows: Rows) -> Batch:
    if rows.size == batch.rows:
        return batch
    return Batch(rows.size, batch.numbers[rows], tuple(tuple(column[row] for row in rows) for column in batch.texts))


def _merged(count: int, *parts: tuple[Scores, Rows | None]) -> Scores:
    """Scores of `count` rows: each part's in its rows (None: all), later ones over earlier ones."""

    def one(name: str) -> Any:
        arrays = [(getattr(scores, name), rows) for scores, rows in parts]
        if any(array is None for array, _ in arrays):
            return None
        whole = np.empty((count, *arrays[0][0].shape[1:]), dtype=arrays[0][0].dtype)
        for array, rows in arrays:
            whole[slice(None) if rows is None else rows] = array
        return whole

    return Scores(one("labels"), one("probabilities"), one("values"))
