"""A compiled graph, loaded: rows in, scores out. The proof and the serving process run the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime

from app.prediction.compiled.inputs import Feeder
from app.prediction.compiled.outputs import LAYOUTS, Answer, Malformed, read_answer

if TYPE_CHECKING:
    from app.kernel.signature import Signature, Task
    from app.kernel.tensors import Batch

_SILENT = 4  # only what is fatal


class CompiledGraph:
    """Runs on the caller's thread. Only for bytes that a check has passed: onnxruntime trusts what it loads."""

    def __init__(self, data: bytes, signature: Signature, task: Task, classes: int) -> None:
        """Raises UnknownLayout and Malformed, and what onnxruntime raises for a graph that it cannot load."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # none of its own: one request, one core
        options.log_severity_level = _SILENT
        options.enable_mem_pattern = False  # plans memory for each new number of rows, and keeps every plan
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.feeder = Feeder(signature, [(found.name, found.type) for found in self._session.get_inputs()])
        self._names = [found.name for found in self._session.get_outputs()]
        if tuple(self._names) not in LAYOUTS:
            raise Malformed(f"The graph answers with {', '.join(self._names)}.")
        self._task = task
        self._classes = classes

    def answer(self, batch: Batch) -> Answer:
        """The scores of the batch and which of them count; raises OutsideProof, Malformed, and what onnxruntime raises."""
        found = self._session.run(self._names, self.feeder(batch))
        return read_answer(self._task, self._classes, batch.rows, dict(zip(self._names, found, strict=True)))
