"""Compiled graphs made by hand, and what serves them without a database or a model host."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from onnx import TensorProto, helper

from app.errors import ModelUnavailable
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch, Scores
from app.prediction.bulkheads import TenantThreads
from app.prediction.opening import RuntimeOpener
from app.prediction.runtimes.flat import FlatFiles
from app.registry.types import RuntimeKind, VersionRoute, VersionStatus

if TYPE_CHECKING:
    from pathlib import Path

    from app.kernel.clock import Deadline

NUMBERS = Signature((Column("a", ColumnType.NUMBER, required=False), Column("b", ColumnType.NUMBER, required=False)), InputKind.ARRAY)
TENANT = UUID(int=7)


def sum_graph(weight: float = 1.0, layers: int = 0, *, wrong_above: float | None = None) -> bytes:
    """values = weight * (a + b); `layers` square matrices in between make it slow; `wrong_above`: 1 too much where a is larger."""
    nodes, inits, last = [], [helper.make_tensor("w", TensorProto.FLOAT, (2, 1), [weight, weight])], "numbers"
    if layers:
        wide = 400
        inits += [helper.make_tensor("up", TensorProto.FLOAT, (2, wide), [1.0] * (2 * wide))]
        inits += [helper.make_tensor("eye", TensorProto.FLOAT, (wide, wide), np.eye(wide, dtype="f4").ravel().tolist())]
        inits += [helper.make_tensor("down", TensorProto.FLOAT, (wide, 2), [0.5 / wide] * (2 * wide))]
        nodes.append(helper.make_node("MatMul", [last, "up"], ["l0"]))
        nodes += [helper.make_node("MatMul", [f"l{i}", "eye"], [f"l{i + 1}"]) for i in range(layers)]
        nodes.append(helper.make_node("MatMul", [f"l{layers}", "down"], ["narrow"]))
        last = "narrow"
    nodes.append(helper.make_node("MatMul", [last, "w"], ["sum"]))
    if wrong_above is None:
        nodes.append(helper.make_node("Identity", ["sum"], ["values"]))
    else:
        inits += [
            helper.make_tensor("bound", TensorProto.FLOAT, (1,), [wrong_above]),
            helper.make_tensor("first", TensorProto.INT64, (1,), [0]),
        ]
        nodes.append(helper.make_node("Gather", ["numbers", "first"], ["a"], axis=1))
        nodes.append(helper.make_node("Greater", ["a", "bound"], ["beyond"]))
        nodes.append(helper.make_node("Cast", ["beyond"], ["one"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", ["sum", "one"], ["values"]))
    return _graph(nodes, inits, "values", 1)


def sign_graph() -> bytes:
    """probabilities = softmax of (0, a + b): the class is whether the sum is above 0."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, (2, 2), [0.0, 1.0, 0.0, 1.0])
    nodes = [helper.make_node("MatMul", ["numbers", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["probabilities"], axis=1)]
    return _graph(nodes, [weights], "probabilities", 2)


def _graph(nodes: list[Any], inits: list[Any], output: str, width: int) -> bytes:
    given = helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 2])
    found = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, width])
    graph = helper.make_graph(nodes, "graph", [given], [found], inits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def numbers(*rows: tuple[float, float]) -> Batch:
    return Batch(len(rows), np.array(rows, dtype=np.float64).reshape(-1, 2))


@dataclass(slots=True)
class Graphs:
    """The registry's compiled graphs, in memory; `asked` are the digests of which bytes were read."""

    of: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.of[digest] = data
        return digest

    async def bytes(self, tenant_id: UUID, digest: str) -> bytes:
        self.asked.append(digest)
        if digest not in self.of:
            raise ModelUnavailable("its seal does not fit")
        return self.of[digest]


class Seal:
    def artifact_mac(self, tenant_id: UUID, digest: str, size_bytes: int) -> bytes:
        return hmac.digest(tenant_id.bytes, bytes.fromhex(digest) + size_bytes.to_bytes(8), "sha256")


@dataclass(slots=True)
class SumEstimator:
    """What the graphs above were compiled from. Notes the rows that it was asked for."""

    task: Task = Task.REGRESSION
    asked: list[list[float]] = field(default_factory=list)
    failure: Exception | None = None
    closed: bool = False
    busy: bool = False
    kind: str = "sklearn"
    memory_bytes: int | None = None
    deadlines: list[float] = field(default_factory=list)  # monotonic seconds

    async def infer(self, batch: Batch, deadline: Deadline) -> Scores:
        self.asked += batch.numbers.tolist()
        self.deadlines.append(deadline.at)
        if self.failure is not None:
            raise self.failure
        sums = batch.numbers.sum(axis=1)
        if self.task is Task.REGRESSION:
            return Scores(values=sums)
        high = 1 / (1 + np.exp(-sums))
        return Scores(labels=(sums > 0).astype(np.int32), probabilities=np.column_stack([1 - high, high]))

    async def close(self) -> None:
        self.closed = True


class Unsigned:
    """Artifacts of a service that asks for no signatures."""

    async def require_signed(self, tenant_id: UUID, digest: str) -> None: ...


class GraphOpener(RuntimeOpener):
    """The real opener of graphs over `graphs`; estimators are SumEstimators, kept in `estimators`."""

    def __init__(self, folder: Path, graphs: Graphs) -> None:
        super().__init__(None, Unsigned(), None, FlatFiles(folder, graphs, Seal()), TenantThreads())
        self.estimators: list[SumEstimator] = []
        self.failure: Exception | None = None
        self.memory_bytes: int | None = None  # what an estimator takes, where that can be measured

    async def estimator(self, tenant_id: UUID, route: VersionRoute) -> SumEstimator:
        if self.failure is not None:
            raise self.failure
        self.estimators.append(SumEstimator(route.task, memory_bytes=self.memory_bytes))
        return self.estimators[-1]


def compiled_route(digest: str | None, number: int = 1, task: Task = Task.REGRESSION, size: int = 1000, **more: Any) -> VersionRoute:
    """A version served by the graph of this digest, or by its estimator."""
    return VersionRoute(
        model_id=more.pop("model_id", UUID(int=1)),
        number=number,
        task=task,
        status=VersionStatus.READY,
        artifact_digest="a" * 64,
        size_bytes=size,
        signature=NUMBERS,
        classes=("no", "yes") if task is Task.CLASSIFICATION else None,
        runtime=RuntimeKind.SKLEARN if digest is None else RuntimeKind.ONNX,
        compiled_digest=digest,
        compiled_size_bytes=0 if digest is None else size,
        tolerance=1e-5,
        **more,
    )
