"""A compiled graph, loaded: rows in, scores out. The proof and the serving process run the same code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from app.kernel.signature import Task
from app.prediction.compiled.inputs import NUMBERS, Feeder
from app.prediction.compiled.outputs import LAYOUTS, PROBABILITIES, Answer, Malformed, read_answer, read_each, read_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from app.kernel.signature import Signature
    from app.kernel.tensors import Batch

_SILENT = 4  # only what is fatal
_TRIED = 256  # rows by which company is tried; of graphs to which it matters, one row in fifty shows it
_SEED = 20


class CompiledGraph:
    """Runs on the caller's thread. Only for bytes that a check has passed: onnxruntime trusts what it loads."""

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature, task: Task, classes: int) -> None:
        """Raises UnknownLayout and Malformed."""
        self._session = session
        self.feeder = Feeder(signature, [(given.name, given.type) for given in session.get_inputs()])
        self._names = [found.name for found in session.get_outputs()]
        if tuple(self._names) not in LAYOUTS:
            raise Malformed(f"The graph answers with {', '.join(self._names)}.")
        self._task = task
        self._classes = classes
        self._one = _OneRow.of(session, self.feeder, self._names, task, classes)

    @classmethod
    def from_bytes(cls, data: bytes, signature: Signature, task: Task, classes: int) -> CompiledGraph:
        """Raises UnknownLayout and Malformed, and what onnxruntime raises for a graph that it cannot load."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # none of its own: one request, one core
        options.log_severity_level = _SILENT
        options.enable_mem_pattern = False  # plans memory for each new number of rows, and keeps every plan
        return cls(onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]), signature, task, classes)

    def answer(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> Answer:
        """The scores of the batch and which of them count; raises OutsideProof, Malformed, and what onnxruntime raises.

        Calls with `options` may run beside each other and beside one call without.
        """
        if self._one is not None and batch.rows == 1 and options is None:
            return self._one(batch)
        found = self._session.run(self._names, self.feeder(batch), options)
        return read_answer(self._task, self._classes, batch.rows, dict(zip(self._names, found, strict=True)))

    def answers(self, rows: Sequence[Batch]) -> Sequence[Answer | None]:
        """Each row's answer, from one call; None for a row that the graph was not proved for. Raises Malformed, and what onnxruntime
        raises. Only for graphs of which `is_indifferent`.
        """
        if self._one is None:
            return [self.answer(row) for row in rows]
        numbers = np.array([row.values for row in rows], dtype=np.float64)
        outside = self.feeder.too_large(numbers)
        if not outside.size:
            return self._one.each(numbers)
        answers: list[Answer | None] = []
        if outside.size < len(rows):
            answers += self._one.each(np.delete(numbers, outside, axis=0))
        for row in outside.tolist():
            answers.insert(row, None)
        return answers

    def is_indifferent(self) -> bool:
        """Whether a row's answer is, to the last bit, what it is alone when others are answered with it. Tried with random rows; may
        run in a thread.
        """
        return self._one is not None and self._one.is_indifferent()


class _OneRow:
    """One row of numbers through memory that is bound to the graph once: half of what such a call costs is making and binding it."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        feeder: Feeder,
        row: NDArray[Any],
        found: dict[str, NDArray[Any]],
        read: Callable[[], Answer],
        read_each: Callable[[int, Mapping[str, NDArray[Any]]], list[Answer]],
    ) -> None:
        """`read`: the answer of the row, from `found`. `read_each`: those of so many rows, from a call's outputs."""
        self._feeder = feeder
        self._row = row
        self._found = found
        self._read, self._read_each = read, read_each
        binding = session.io_binding()
        binding.bind_ortvalue_input(NUMBERS, onnxruntime.OrtValue.ortvalue_from_numpy(row))
        for name, array in found.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        # What `session.run_with_iobinding` does on a processor, without its questions about graphics cards on each call.
        self._kept = session, binding
        self._run = partial(session._sess.run_with_iobinding, binding._iobinding, None)  # noqa: SLF001

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, feeder: Feeder, names: list[str], task: Task, classes: int) -> _OneRow | None:
        """None where the graph takes more than numbers, or does not answer a row of zeros with a row of numbers."""
        row = feeder.numbers_alone()
        if row is None:
            return None
        try:
            found = dict(zip(names, map(np.array, session.run(names, {NUMBERS: row})), strict=True))
        except Exception:  # noqa: BLE001  onnxruntime's own errors share no base; a graph may have its reasons against zeros
            return None
        usual = all(array.dtype.kind in "fi" and array.shape[:1] == (1,) for array in found.values())
        if not usual:
            return None
        alone = found.get(PROBABILITIES) if len(found) == 1 and task is Task.CLASSIFICATION else None
        read = partial(read_answer, task, classes, 1, found)
        if alone is not None and alone.shape == (1, classes) and alone.dtype.char in "fd":
            read = partial(read_probabilities, alone)
        return cls(session, feeder, row, found, read, partial(read_each, task, classes))

    def __call__(self, batch: Batch) -> Answer:
        """Its scores; raises OutsideProof, Malformed, and what onnxruntime raises."""
        self._feeder.require_proved(batch)
        self._row[:] = batch.numbers
        self._run()
        return self._read()

    def each(self, rows: NDArray[np.float64]) -> list[Answer]:
        """The answers of rows that have been proved; raises Malformed, and what onnxruntime raises."""
        return self._read_each(len(rows), self._several(rows))

    def is_indifferent(self) -> bool:
        chance = np.random.default_rng(_SEED)
        rows = chance.normal(size=(_TRIED, self._row.shape[1])) * 10.0 ** chance.integers(-2, 4, size=(_TRIED, 1))
        together = self._several(rows)
        alone = [self._several(rows[k : k + 1]) for k in range(_TRIED)]
        return all(
            np.array_equal(array, np.concatenate([found[name] for found in alone]), equal_nan=True) for name, array in together.items()
        )

    def _several(self, rows: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        session, _ = self._kept
        outputs: list[NDArray[Any]] = session.run(list(self._found), {NUMBERS: rows.astype(self._row.dtype, copy=False)})
        if any(len(array) != len(rows) for array in outputs):
            raise Malformed("The graph does not answer each row.")
        return dict(zip(self._found, outputs, strict=True))
