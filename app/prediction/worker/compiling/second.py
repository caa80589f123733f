"""The second child's answer as a frame. Imported before the lock."""

from __future__ import annotations

import dataclasses
from typing import Any

from app.kernel.signature import Signature, Task
from app.prediction.worker import wire
from app.prediction.worker.compiling.running import prepare, run_graph

__all__ = ["answer", "prepare"]


def answer(header: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], list[bytes]]:
    """Header: compiledUs and probabilities. Body: a byte for each row that says whether it is handed back, then the scores.

    `body` holds the graph, whose size the header gives, and the rows.
    """
    size = int(header["size"])
    batch = wire.decode_batch(header["batch"], body[size:])
    signature = Signature.from_json(header["signature"])
    scores, doubtful, micros = run_graph(bytes(body[:size]), signature, Task(header["task"]), int(header["classes"]), batch)
    parts = [array.tobytes() for array in dataclasses.astuple(scores) if array is not None]
    return {"compiledUs": micros, "probabilities": scores.probabilities is not None}, [doubtful.tobytes(), *parts]
