"""Graphs that must never be loaded, made with onnx itself and byte by byte; each is refused with what is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.prediction.compiled import graph_check, graph_wire
from app.prediction.compiled.graph_check import check_graph
from app.prediction.compiled.graph_wire import GraphRefused
from tests.support.graphs import constant_of, external, graph_of, looping, nested

pytestmark = pytest.mark.unit


def node(kind: str, inputs: list[str], outputs: list[str], **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attrs)


def refusal(model: onnx.ModelProto | bytes) -> str:
    with pytest.raises(GraphRefused) as refused:
        check_graph(model if isinstance(model, bytes) else model.SerializeToString())
    return str(refused.value)


def test_a_plain_graph_comes_back_without_notes_and_names() -> None:
    model = graph_of([node("Identity", ["numbers"], ["values"], name="a secret")])
    model.doc_string = model.producer_name = model.graph.doc_string = "a secret"
    model.graph.node[0].doc_string = "a secret"
    helper.set_model_props(model, {"note": "a secret"})
    clean = check_graph(model.SerializeToString())
    assert b"secret" not in clean
    assert [found.op_type for found in onnx.load_from_string(clean).graph.node] == ["Identity"]
    assert check_graph(clean) == clean


def test_data_in_other_files_is_refused() -> None:
    assert refusal(external()) == "its graph has data in other files"


def test_loops_and_branches_are_refused() -> None:
    assert refusal(looping()) == "its graph has a graph within a node"
    assert refusal(nested("If")) == "its graph has a graph within a node"
    assert refusal(graph_of([node("Loop", ["", "numbers"], ["values"])])) == "its graph uses the operator Loop"
    assert refusal(graph_of([node("Scan", ["numbers"], ["values"], num_scan_inputs=1)])) == "its graph uses the operator Scan"


def test_operators_of_others_are_refused() -> None:
    assert refusal(graph_of([node("Evil", ["numbers"], ["values"], domain="com.evil")])) == "its graph uses the operator Evil of com.evil"
    assert refusal(graph_of([node("Identity", ["numbers"], ["values"])], opsets={"": 21, "com.evil": 1})) == (
        "its graph uses the operators of com.evil"
    )
    assert refusal(graph_of([node("Identity", ["numbers"], ["values"])], opsets={"": 999})) == "its graph uses version 999 of ai.onnx"


def test_functions_are_refused() -> None:
    model = graph_of([node("Identity", ["numbers"], ["values"])])
    made = helper.make_function("", "Relu", ["x"], ["y"], [node("Identity", ["x"], ["y"])], [helper.make_operatorsetid("", 21)])
    model.functions.append(made)
    assert refusal(model) == "its graph has functions of its own"


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile"])
def test_three_gigabytes_out_of_a_shape_are_refused(kind: str) -> None:
    assert refusal(constant_of(kind, [30_000, 30_000])) == "its graph has constants of more than 256 MiB"


def test_many_small_shapes_are_added_up() -> None:
    shapes = [numpy_helper.from_array(np.array([1 << 20]), f"s{i}") for i in range(40)]
    nodes = [node("ConstantOfShape", [f"s{i}"], [f"v{i}"]) for i in range(40)]
    assert refusal(graph_of([*nodes, node("Sum", [f"v{i}" for i in range(40)], ["values"])], shapes)) == (
        "its graph has constants of more than 256 MiB"
    )


def test_a_range_of_constants_has_an_end() -> None:
    ends = [numpy_helper.from_array(np.array(value), name) for name, value in (("a", 0.0), ("b", 1e12), ("c", 1.0), ("z", 0.0))]
    assert refusal(graph_of([node("Range", ["a", "b", "c"], ["values"])], ends)) == "its graph has constants of more than 256 MiB"
    assert refusal(graph_of([node("Range", ["a", "b", "z"], ["values"])], ends)) == "its graph has a Range without an end"


def test_a_constant_that_claims_more_than_it_holds_is_refused() -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1 << 20], name="k", raw_data=b"1234")
    assert (
        refusal(graph_of([node("Identity", ["k"], ["values"])], [tensor])) == "its graph has a constant that is smaller than its shape says"
    )
    tensor.dims[:] = [1 << 30, 1 << 30]
    assert "256 MiB" in refusal(graph_of([node("Identity", ["k"], ["values"])], [tensor]))
    tensor.dims[:] = [-1]
    assert refusal(graph_of([node("Identity", ["k"], ["values"])], [tensor])) == "its graph has a constant of an impossible shape"


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "MOST_NODES", 3)
    chain = [node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(3)]
    model = graph_of([node("Identity", ["numbers"], ["v0"]), *chain, node("Identity", ["v3"], ["values"])])
    assert refusal(model) == "its graph has 5 nodes; at most 3 are taken"


def test_a_large_file_is_refused_unread() -> None:
    assert "33,554,433 bytes" in refusal(bytes(graph_check.LARGEST_GRAPH + 1))


@pytest.mark.parametrize("levels", [(7, 1), (7, 5), (7, 1, 5), (7, 1, 5, 10)])
def test_millions_of_empty_parts_are_refused_before_they_are_made(levels: tuple[int, ...]) -> None:
    """Two bytes each in the file, a hundred in memory."""
    data = bytes((levels[-1] << 3 | 2, 0)) * (graph_wire.MOST_MESSAGES + 1)
    for number in reversed(levels[:-1]):
        data = bytes((number << 3 | 2,)) + _varint(len(data)) + data
    assert refusal(data) == "its graph has too many parts"


def test_other_inputs_and_outputs_than_ours_are_refused() -> None:
    renamed = graph_of([node("Identity", ["numbers"], ["values"])])
    renamed.graph.output[0].name = "more"
    assert refusal(renamed) == "its graph has other outputs than answers"
    renamed.graph.input[0].name = "x"
    assert refusal(renamed) == "its graph has other inputs than columns"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read_and_nothing_else_happens(data: bytes) -> None:
    try:
        check_graph(data)
    except GraphRefused as refused:
        assert "graph" in str(refused)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_still_within_bounds(at: int, value: int) -> None:
    data = bytearray(constant_of("Expand", [1, 2]).SerializeToString())
    data[at % len(data)] = value
    try:
        clean = check_graph(bytes(data))
    except GraphRefused:
        return
    assert check_graph(clean) == clean


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
