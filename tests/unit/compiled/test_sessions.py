"""One row goes another way than many: the answers are the same, and each caller's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch
from app.prediction.compiled.inputs import LARGEST_PROVED, OutsideProof
from app.prediction.compiled.outputs import Malformed
from app.prediction.compiled.sessions import CompiledGraph

pytestmark = pytest.mark.unit

C, R = Task.CLASSIFICATION, Task.REGRESSION
THREE = Signature(tuple(Column(f"x{i}", ColumnType.NUMBER, required=False) for i in range(3)), InputKind.ARRAY)
ROWS = np.array([[0.1, 0.7, 0.2], [1e-9, -3.0, 5.0], [0.0, 0.0, 9.0]])


def graph(nodes: list[onnx.NodeProto], outputs: dict[str, int], kind: int = TensorProto.DOUBLE) -> bytes:
    numbers = helper.make_tensor_value_info("numbers", kind, [None, 3])
    made = [helper.make_tensor_value_info(name, of, None) for name, of in outputs.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [numbers], made), opset_imports=[helper.make_operatorsetid("", 21)], ir_version=10
    )
    return bytes(model.SerializeToString())


def softmax(kind: int = TensorProto.DOUBLE) -> CompiledGraph:
    node = helper.make_node("Softmax", ["numbers"], ["probabilities"], axis=1)
    return CompiledGraph.from_bytes(graph([node], {"probabilities": kind}, kind), THREE, C, 3)


def scores(compiled: CompiledGraph, rows: Any) -> tuple[list[int], list[list[float]]]:
    found = compiled.answer(Batch(len(rows), np.array(rows))).scores
    assert found.labels is not None
    assert found.probabilities is not None
    assert (found.labels.dtype, found.probabilities.dtype) == (np.int32, np.float64)
    return found.labels.tolist(), found.probabilities.tolist()


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT])
def test_a_row_alone_is_answered_as_among_others_to_the_last_bit(kind: int) -> None:
    compiled = softmax(kind)
    labels, probabilities = scores(compiled, ROWS)
    assert [scores(compiled, ROWS[i : i + 1]) for i in range(3)] == [([labels[i]], [probabilities[i]]) for i in range(3)]


def test_an_answer_stays_as_it_is_when_the_next_row_comes() -> None:
    compiled = softmax()
    first = compiled.answer(Batch(1, ROWS[:1])).scores
    assert first.probabilities is not None
    before = first.probabilities.tolist()
    compiled.answer(Batch(1, ROWS[1:2]))
    assert first.probabilities.tolist() == before
    assert first.probabilities.flags.owndata


def test_the_callers_row_is_not_kept_and_not_changed() -> None:
    compiled = softmax()
    row = ROWS[:1].copy()
    found = scores(compiled, row)
    row[:] = 7.0
    assert scores(compiled, ROWS[1:2]) != found
    assert row.tolist() == [[7.0] * 3]
    assert scores(compiled, ROWS[:1]) == found


def test_a_call_with_options_of_its_own_gives_the_same() -> None:
    compiled = softmax()
    found = compiled.answer(Batch(1, ROWS[:1]), onnxruntime.RunOptions()).scores
    assert found.probabilities is not None
    assert found.probabilities.tolist() == scores(compiled, ROWS[:1])[1]


def test_labels_and_margins_of_one_row_are_read() -> None:
    nodes = [helper.make_node("ArgMax", ["numbers"], ["labels"], axis=1, keepdims=0), helper.make_node("Neg", ["numbers"], ["margins"])]
    compiled = CompiledGraph.from_bytes(graph(nodes, {"labels": TensorProto.INT64, "margins": TensorProto.DOUBLE}), THREE, C, 3)
    found = [compiled.answer(Batch(1, ROWS[i : i + 1])).scores.labels for i in range(3)]
    assert [labels.tolist() for labels in found if labels is not None] == [[1], [2], [2]]


@pytest.mark.parametrize("value", [np.nextafter(LARGEST_PROVED, np.inf), -1e300])
def test_a_row_with_a_number_beyond_the_proof_is_outside(value: float) -> None:
    with pytest.raises(OutsideProof):
        softmax().answer(Batch(1, np.array([[1.0, np.nan, value]])))


def test_a_missing_number_is_missing_also_in_a_row_alone() -> None:
    nodes = [helper.make_node("IsNaN", ["numbers"], ["n"]), helper.make_node("Cast", ["n"], ["probabilities"], to=TensorProto.DOUBLE)]
    compiled = CompiledGraph.from_bytes(graph(nodes, {"probabilities": TensorProto.DOUBLE}), THREE, C, 3)
    assert scores(compiled, [[1.0, np.nan, 2.0]])[1] == [[0.0, 1.0, 0.0]]
    assert scores(compiled, [[1.0, 3.0, 2.0]])[1] == [[0.0, 0.0, 0.0]]


def test_a_graph_that_has_no_answer_to_zeros_answers_other_rows() -> None:
    """It answers with as many numbers as its first column says."""
    nodes = [
        *(helper.make_node("Constant", [], [name], value_ints=[value]) for name, value in (("zero", 0), ("one", 1))),
        helper.make_node("Gather", ["numbers", "zero"], ["first"], axis=1),
        helper.make_node("Cast", ["first"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "one"], ["shape"]),
        helper.make_node("ReduceMax", ["numbers"], ["largest"], keepdims=0),
        helper.make_node("Expand", ["largest", "shape"], ["values"]),
    ]
    compiled = CompiledGraph.from_bytes(graph(nodes, {"values": TensorProto.DOUBLE}), THREE, R, 0)
    found = compiled.answer(Batch(1, np.array([[1.0, 4.0, 2.0]]))).scores.values
    assert found is not None
    assert found.tolist() == [4.0]


def test_other_outputs_than_answers_are_refused() -> None:
    with pytest.raises(Malformed, match="answers with more"):
        CompiledGraph.from_bytes(graph([helper.make_node("Neg", ["numbers"], ["more"])], {"more": TensorProto.DOUBLE}), THREE, R, 0)
