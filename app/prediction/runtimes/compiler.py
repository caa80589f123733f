"""Compiles a version with proof. The converter has unpickled a stranger's file, so what it hands over is read before it is run.

A first locked child unpickles, makes graphs and answers the rows of the proof; a second one, which never sees that file, runs a
graph that this process has read and checked; this process compares. Only then are the bytes anybody's to load.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import structlog

from app.errors import ModelUnavailable
from app.kernel.proof import Compiled, Proof
from app.kernel.signature import ColumnType, Signature, Task
from app.prediction.compiled.compare import MARGIN, MOST_HANDED_BACK, Yardstick, difference, rows_of
from app.prediction.compiled.graph_check import LARGEST_GRAPH, check_graph
from app.prediction.compiled.graph_wire import GraphRefused
from app.prediction.compiled.outputs import VALUE_TOLERANCE
from app.prediction.runtimes.answers import Nonsense, answer_bytes, read_scores
from app.prediction.runtimes.calls import describe_fate, is_killed_from_outside
from app.prediction.runtimes.channel import Channel, is_skops
from app.prediction.runtimes.zygote import ZygoteClient
from app.prediction.worker import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from numpy.typing import NDArray

    from app.kernel.tensors import Batch, Scores

LEAST_ROWS = 1_000
_MOST_GRAPHS = 4
_MOST_ROWS = 5_000
_LARGEST_ANSWER = 3 * LARGEST_GRAPH + 64 * 1024 * 1024
_PROVE_S = 30.0
_STARVED = 0.25  # of the time, spent computing: less of it says nothing about the file
_LONGEST_REASON = 500
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Version:
    signature: Signature
    task: Task
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Material:
    """What the first child handed over, in order. `answered`: row numbers; `native`: the estimator's answers to them."""

    batch: Batch
    rows: dict[str, Any]  # of the frame
    parts: bytes
    answered: NDArray[np.intp]
    native: Scores
    ordinary: int
    native_us: float
    graphs: tuple[tuple[str, bytes], ...]
    reasons: tuple[str, ...]


class Unproved(Exception):
    """The estimator itself serves; the text says why."""


class Compiler:
    """One a serving process; `socket_path` is where the model host listens. `tolerance`: see `Yardstick.of`."""

    def __init__(self, socket_path: Path, tolerance: float = VALUE_TOLERANCE) -> None:
        self._zygote = ZygoteClient(socket_path)
        self._tolerance = tolerance

    async def compile(
        self,
        tenant_id: UUID,
        artifact: Path,
        signature: Signature,
        task: Task,
        classes: tuple[str, ...],
        sample: tuple[Any, ...],
        timeout_s: float,
    ) -> Compiled:
        """The verdict, with the graph where it is good; never raises for what the file does.

        Raises Unavailable where the model host is away, and ModelUnavailable where this machine lacked what a verdict takes: to be asked
        again later.
        """
        version = _Version(signature, task, classes)
        try:
            material = await self._material(tenant_id, artifact, version, sample, timeout_s)
        except Unproved as why:
            return Compiled(Proof(str(why)))
        reasons = list(material.reasons)
        worst: Proof | None = None
        for precision, graph in material.graphs:
            try:
                clean = await asyncio.to_thread(check_graph, graph)
                proof = await self._prove(clean, precision, version, material)
            except (GraphRefused, Unproved) as why:
                reasons.append(str(why))
                continue
            if proof.reason is None:
                return Compiled(proof, clean)
            reasons.append(proof.reason)
            worst = proof
        reason = "; ".join(dict.fromkeys(reasons))[:_LONGEST_REASON] or "there is no graph for it"
        return Compiled(Proof(reason) if worst is None else _because(worst, reason))

    # --- the first child

    async def _material(self, tenant_id: UUID, artifact: Path, version: _Version, sample: tuple[Any, ...], timeout_s: float) -> _Material:
        header = {
            "op": "compile",
            "size": (await asyncio.to_thread(artifact.stat)).st_size,
            "signature": version.signature.to_json(),
            "task": version.task.value,
            "classes": list(version.classes),
        }
        skops = await asyncio.to_thread(is_skops, artifact)
        async with self._child({"op": "compile", "tenant": str(tenant_id), "skops": skops}, timeout_s) as channel:
            answer, body = await channel.exchange(header, [orjson.dumps(list(sample))], artifact, _LARGEST_ANSWER)
        try:
            reasons = tuple(_text(reason) for reason in answer["reasons"][:10])
            if "graphs" not in answer:
                raise Unproved("; ".join(reasons)[:_LONGEST_REASON] or "there is no graph for it")
            return _read_material(answer, body, version, reasons)
        except (Nonsense, KeyError, TypeError, ValueError, AttributeError):
            raise Unproved("the artifact interfered with its compilation") from None

    # --- the second child

    async def _prove(self, graph: bytes, precision: str, version: _Version, material: _Material) -> Proof:
        header = {
            "op": "prove",
            "size": len(graph),
            "batch": material.rows,
            "signature": version.signature.to_json(),
            "task": version.task.value,
            "classes": len(version.classes),
        }
        rows, classes = material.batch.rows, len(version.classes)
        async with self._child({"op": "prove"}, _PROVE_S) as channel:
            answer, body = await channel.exchange(
                header, [graph, material.parts], largest_body=rows + answer_bytes(version.task, rows, classes)
            )
        if "reason" in answer:
            raise Unproved(f"the graph failed: {_text(answer['reason'])[:200]}")
        try:
            handed_back = np.frombuffer(body[:rows], dtype=np.uint8) != 0
            compiled = read_scores(version.task, rows, classes, answer, body[rows:])
            micros = _positive(answer["compiledUs"])
        except (Nonsense, KeyError, TypeError, ValueError):
            raise Unproved("the graph's process does not keep to its protocol") from None
        return verdict(
            version.task,
            material.native,
            material.answered,
            compiled,
            handed_back,
            material.ordinary,
            material.native_us,
            micros,
            precision,
            self._tolerance,
        )

    @contextlib.asynccontextmanager
    async def _child(self, question: dict[str, Any], timeout_s: float) -> AsyncIterator[Channel]:
        """A channel to a fresh child, dead afterwards; what ends it early is Unproved, or Unavailable where this machine ended it."""
        sock, key, pid = await self._zygote.channel({**question, "cpu_s": math.ceil(timeout_s) + 1})
        channel = await Channel.connect(sock, lambda: None)
        try:
            async with asyncio.timeout(timeout_s):
                yield channel
        except TimeoutError:
            raise _too_long(_STEP[question["op"]], timeout_s, await self._zygote.kill(key, pid)) from None
        except ConnectionError:
            raise _died(_STEP[question["op"]], await self._zygote.kill(key, pid)) from None
        except OSError:
            raise ModelUnavailable("The artifact is not at hand on this machine.") from None
        finally:
            channel.close()
            await asyncio.shield(self._zygote.kill(key, pid))


_STEP = {"compile": "the converter", "prove": "the graph"}


def _too_long(step: str, timeout_s: float, fate: dict[str, Any]) -> Exception:
    """No verdict where others had the processors meanwhile, or where nobody knows."""
    used_s = fate.get("cpu_s", 0.0)
    if used_s < _STARVED * timeout_s:
        return ModelUnavailable(f"{step} had {used_s:.1f} seconds of a processor within {timeout_s:g}")
    return Unproved(f"{step} took longer than {timeout_s:g} seconds")


def _died(step: str, fate: dict[str, Any]) -> Exception:
    """No verdict where the host went away, or where something outside killed the child: the machine may have been out of memory."""
    why = f"{step} died: {describe_fate(fate)}"
    return ModelUnavailable(why) if "exit" not in fate or is_killed_from_outside(fate) else Unproved(why)


def verdict(
    task: Task,
    native: Scores,
    answered: NDArray[np.intp],
    compiled: Scores,
    handed_back: NDArray[np.bool_],
    ordinary: int,
    native_us: float,
    compiled_us: float,
    precision: str,
    tolerance: float = VALUE_TOLERANCE,
) -> Proof:
    """Whether a graph may serve. `native`: of the `answered` rows; `compiled`, `handed_back`: of all. Pure."""
    refused = np.ones(len(handed_back), dtype=bool)
    refused[answered] = False
    usual = rows_of(native, np.arange(int(np.searchsorted(answered, ordinary))))
    yardstick = Yardstick.of(task, usual, tolerance)
    both = ~handed_back[answered]
    comparison = difference(rows_of(native, np.flatnonzero(both)), rows_of(compiled, answered[both]), yardstick, MARGIN)
    faults = [
        comparison.fault,
        f"it answers {n} rows that scikit-learn refuses" if (n := int((refused & ~handed_back).sum())) else None,
        "it leaves most rows to scikit-learn" if handed_back[:ordinary].mean() > MOST_HANDED_BACK else None,
        f"too few rows to compare ({len(answered)})" if len(answered) < LEAST_ROWS else None,
        f"no faster than scikit-learn ({compiled_us:.0f} µs for a row, not {native_us:.0f})" if compiled_us >= native_us else None,
    ]
    reason = next((f"{precision}: {fault}" for fault in faults if fault is not None), None)
    largest = comparison.largest_difference if math.isfinite(comparison.largest_difference) else None
    return Proof(
        reason,
        rows=len(answered),
        tolerance=yardstick.tolerance,
        middle=yardstick.middle,
        largest_difference=largest,
        handed_back=int(handed_back.sum()),
        native_us=native_us,
        compiled_us=compiled_us,
        precision=precision,
    )


def _because(proof: Proof, reason: str) -> Proof:
    return Proof.from_json({**proof.to_json(), "reason": reason})


def _read_material(answer: dict[str, Any], body: memoryview, version: _Version, reasons: tuple[str, ...]) -> _Material:
    """The hostile answer of the first child, as values; raises Nonsense and what nonsense leads to."""
    rows = _count(answer["batch"]["rows"], _MOST_ROWS)
    size = _count(answer["batch"]["bytes"], len(body))
    numbers = sum(column.type is not ColumnType.STRING for column in version.signature.columns)
    told = {"rows": rows, "numbers": numbers, "texts": answer["batch"]["texts"]}
    batch = wire.decode_batch(told, bytearray(body[:size]))
    texts = len(version.signature.columns) - numbers
    if len(batch.texts) != texts or any(len(c) != rows or not all(t is None or type(t) is str for t in c) for c in batch.texts):
        raise Nonsense("texts")
    mask = np.frombuffer(body[size : size + rows], dtype=np.uint8) != 0
    answered = np.flatnonzero(mask)
    if len(answered) != answer["answered"] or not len(answered) or answered[0] != 0:
        raise Nonsense("rows")
    at = size + rows
    scores_size = answer_bytes(version.task, len(answered), len(version.classes) if answer["probabilities"] is True else 0)
    native = read_scores(version.task, len(answered), len(version.classes), answer, body[at : at + scores_size])
    at += scores_size
    graphs = []
    for told_graph in answer["graphs"][:_MOST_GRAPHS]:
        length = _count(told_graph["size"], LARGEST_GRAPH)
        if told_graph["precision"] not in {"float32", "float64"} or at + length > len(body):
            raise Nonsense("graphs")
        graphs.append((told_graph["precision"], bytes(body[at : at + length])))
        at += length
    ordinary = _count(answer["ordinary"], rows)
    return _Material(
        batch, told, bytes(body[:size]), answered, native, max(1, ordinary), _positive(answer["nativeUs"]), tuple(graphs), reasons
    )


def _count(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise Nonsense("a number of bytes or rows")
    return value


def _positive(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise Nonsense("a time")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Nonsense("no text")
    return "".join(c if c.isprintable() else " " for c in value[:_LONGEST_REASON])
