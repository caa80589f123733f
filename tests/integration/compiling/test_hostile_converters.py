"""A converter that a tenant's file has taken over: what it hands out never runs unread, and what gets past the reading harms nobody."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from app.kernel.signature import Task
from app.prediction.runtimes import compiler
from tests.integration.compiling.conftest import Workshop, asked_again
from tests.support.graphs import constant_of, external, looping, many_nodes, sums
from tests.support.model_host import model_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from app.kernel.proof import Proof

pytestmark = pytest.mark.integration

X = np.random.default_rng(3).normal(size=(40, 3))
SUM = LinearRegression().fit(X, X.sum(axis=1))
ROWS = [{f"x{i}": float(value) for i, value in enumerate(row)} for row in X]


@contextmanager
def converter_of(model: onnx.ModelProto) -> Iterator[Workshop]:
    """A host whose converter hands out this graph, whatever it is given."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        patch = f"graph = open({file.name!r}, 'rb').read(); from app.prediction.worker.compiling import candidates; "
        with model_host(first=patch + "candidates.to_graph = lambda *_: graph") as running:
            yield Workshop(running)


async def verdict(model: onnx.ModelProto) -> Proof:
    """What is said about such a graph; the host still answers afterwards, with nothing left of it."""
    with converter_of(model) as workshop:
        version = await asked_again(lambda: workshop.version(SUM, Task.REGRESSION, ROWS))
        assert (await workshop.running.connect().stats())["children"] == []
    assert (version.compiled.graph is None) == (version.compiled.proof.reason is not None)
    return version.compiled.proof


async def test_a_converter_that_tells_the_truth_is_believed() -> None:
    with model_host(first="pass") as running:
        proof = (await Workshop(running).version(SUM, Task.REGRESSION, ROWS)).compiled.proof
    assert proof.reason is None
    assert proof.rows >= 1_000


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (external(), "its graph has data in other files"),
        (looping(), "its graph has a graph within a node"),
        (constant_of("ConstantOfShape", [30_000, 30_000]), "its graph has constants of more than 256 MiB"),
        (many_nodes(20_001), "its graph has 20,003 nodes; at most 20,000 are taken"),
    ],
    ids=["external-data", "endless-loop", "three-gigabytes", "too-many-nodes"],
)
async def test_a_graph_that_must_not_run_is_refused_with_the_reason(model: onnx.ModelProto, reason: str) -> None:
    assert (await verdict(model)).reason == reason


@pytest.mark.parametrize("times", [1.0001, -1.0, float("nan"), 0.0])
async def test_a_graph_that_answers_otherwise_does_not_serve(times: float) -> None:
    proof = await verdict(sums(times))
    assert proof.reason is not None
    wrong = "leaves most rows" if np.isnan(times) else "from scikit-learn's"
    assert wrong in proof.reason


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (external(), "the graph failed"),
        (looping(), "the graph took longer than 3 seconds"),
        (constant_of("ConstantOfShape", [30_000, 30_000]), "the graph failed"),
    ],
    ids=["external-data", "endless-loop", "three-gigabytes"],
)
async def test_what_the_reading_would_miss_meets_the_second_childs_walls(
    model: onnx.ModelProto, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "check_graph", lambda data: data)
    monkeypatch.setattr(compiler, "_PROVE_S", 3.0)
    proof = await verdict(model)
    assert proof.reason is not None
    assert proof.reason.startswith(reason)
