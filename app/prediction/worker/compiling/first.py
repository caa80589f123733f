"""The first child's answer as a frame. Imported before the lock."""

from __future__ import annotations

import dataclasses
from typing import Any

from app.kernel.signature import Signature, Task
from app.prediction.worker import wire
from app.prediction.worker.compiling.candidates import candidates, prepare

__all__ = ["answer", "prepare"]


def answer(estimator: Any, header: dict[str, Any], sample: list[Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Header: reasons; where there are graphs, also ordinary, nativeUs, rows, answered, probabilities and graphs (precision, size).

    Body: the rows, a byte for each that says whether it was answered, the answers, the graphs.
    """
    signature, task = Signature.from_json(header["signature"]), Task(header["task"])
    found = candidates(estimator, signature, task, tuple(header["classes"]), tuple(sample))
    if not found.graphs or found.batch is None or found.scores is None:
        return {"reasons": list(found.reasons)}, []
    rows, parts = wire.encode_batch(found.batch)
    row_bytes = sum(map(len, parts))
    scores = [array.tobytes() for array in dataclasses.astuple(found.scores) if array is not None]
    told = {
        "reasons": list(found.reasons),
        "ordinary": found.ordinary,
        "nativeUs": found.native_us,
        "batch": {**rows, "bytes": row_bytes},
        "answered": int(found.answered.sum()),
        "probabilities": found.scores.probabilities is not None,
        "graphs": [{"precision": graph.precision, "size": len(graph.graph)} for graph in found.graphs],
    }
    return told, [*parts, found.answered.tobytes(), *scores, *(graph.graph for graph in found.graphs)]
