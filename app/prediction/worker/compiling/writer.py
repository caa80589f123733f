"""Writes nodes into the graph that skl2onnx is making."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto


class Writer:
    """Adds nodes to skl2onnx's container, each with one output that nothing else is named."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def node(self, kind: str, inputs: list[str], output: str | None = None, **attrs: Any) -> str:
        """The name of the node's output."""
        output = output or self._scope.get_unique_variable_name("t")
        self._container.add_node(kind, inputs, output, name=self._scope.get_unique_operator_name(kind), **attrs)
        return output

    def constant(self, values: Any, kind: int = TensorProto.DOUBLE) -> str:
        """The name of a constant with these values."""
        name: str = self._scope.get_unique_variable_name("k")
        array = np.asarray(values)
        flat = [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]
        self._container.add_initializer(name, kind, list(array.shape), flat)
        return name
