"""Graphs as a hostile converter would write them, over one column of numbers and one value a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

OPSETS = {"": 21, "ai.onnx.ml": 3}


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[TensorProto] = (),
    *,
    opsets: dict[str, int] | None = None,
    width: int | None = None,
) -> onnx.ModelProto:
    """A model from `numbers` to `values`."""
    numbers = helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, width])
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [numbers], [values], list(constants))
    imports = [helper.make_operatorsetid(domain, version) for domain, version in (opsets or OPSETS).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def sums(times: float = 1.0) -> onnx.ModelProto:
    """The sum of a row's numbers, times a number."""
    axes = numpy_helper.from_array(np.array([1]), "axes")
    factor = numpy_helper.from_array(np.array([times], dtype=np.float32), "factor")
    return graph_of(
        [helper.make_node("ReduceSum", ["numbers", "axes"], ["s"]), helper.make_node("Mul", ["s", "factor"], ["values"])], [axes, factor]
    )


def external() -> onnx.ModelProto:
    """A constant whose bytes are in a file of this machine."""
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[4], name="k", data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    tensor.external_data.add(key="length", value="16")
    return graph_of([helper.make_node("Add", ["numbers", "k"], ["values"])], [tensor])


def looping() -> onnx.ModelProto:
    """A Loop that never ends."""
    true = numpy_helper.from_array(np.array(True), "true")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return graph_of([helper.make_node("Loop", ["", "true", "numbers"], ["values"], body=body)], [true])


def nested(kind: str) -> onnx.ModelProto:
    """A graph within an attribute."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["numbers"], ["y"])], "i", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    true = numpy_helper.from_array(np.array(True), "true")
    return graph_of([helper.make_node(kind, ["true"], ["values"], then_branch=inner, else_branch=inner)], [true])


def constant_of(kind: str, shape: list[int]) -> onnx.ModelProto:
    """A tensor of this shape, made from next to nothing and added to the answer."""
    constants = [numpy_helper.from_array(np.array(shape, dtype=np.int64), "shape")]
    one = numpy_helper.from_array(np.ones((1,) * len(shape), dtype=np.float32), "one")
    attrs: dict[str, Any] = {"value": numpy_helper.from_array(np.array([1.0], dtype=np.float32))} if kind == "ConstantOfShape" else {}
    given = ["shape"] if kind == "ConstantOfShape" else ["one", "shape"]
    nodes = [
        helper.make_node(kind, given, ["large"], **attrs),
        helper.make_node("ReduceMax", ["large"], ["m"], keepdims=0),
        helper.make_node("Add", ["numbers", "m"], ["values"]),
    ]
    return graph_of(nodes, constants if kind == "ConstantOfShape" else [one, *constants])


def many_nodes(count: int) -> onnx.ModelProto:
    """A chain of this many nodes."""
    chain = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
    return graph_of([helper.make_node("Identity", ["numbers"], ["v0"]), *chain, helper.make_node("Identity", [f"v{count}"], ["values"])])
