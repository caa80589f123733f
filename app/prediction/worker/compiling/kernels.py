"""Support vector regression as a graph of 64 bits: onnxruntime's own operator for it knows 32 alone. Runs in a locked child only.

Source: scikit-learn user guide, "Support Vector Machines", section "Kernel functions".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common._registration import get_converter, register_converter
from skl2onnx.common.data_types import guess_proto_type

from app.prediction.worker.compiling.trees import NotConvertible
from app.prediction.worker.compiling.writer import Writer

_NAME = "SklearnSVR"
_MOST_NUMBERS = 2_000_000


def register() -> None:
    """From now on, and in this process, skl2onnx converts SVR and NuSVR as this module does."""
    register_converter(_NAME, convert, overwrite=True, options=get_converter(_NAME).get_allowed_options())


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Writes an SVR; raises NotConvertible. skl2onnx calls it."""
    estimator = operator.raw_operator
    vectors = estimator.support_vectors_
    if not isinstance(vectors, np.ndarray) or vectors.size > _MOST_NUMBERS or not isinstance(estimator.kernel, str):
        raise NotConvertible("its support vectors are sparse, too many, or of a kernel of its own")
    writer = Writer(scope, container)
    rows = writer.node("Cast", [operator.inputs[0].full_name], to=TensorProto.DOUBLE)
    kernel = _kernel(writer, rows, np.asarray(vectors, dtype=np.float64), estimator)
    answer = writer.node("MatMul", [kernel, writer.constant(np.asarray(estimator.dual_coef_, dtype=np.float64).reshape(-1, 1))])
    answer = writer.node("Add", [answer, writer.constant(np.asarray(estimator.intercept_, dtype=np.float64).reshape(1, 1))])
    writer.node("Cast", [answer], operator.outputs[0].full_name, to=guess_proto_type(operator.outputs[0].type))


def _kernel(writer: Writer, rows: str, vectors: Any, estimator: Any) -> str:
    """(rows, vectors) double."""
    products = writer.node("MatMul", [rows, writer.constant(vectors.T.copy())])
    gamma = writer.constant([[float(estimator._gamma)]])  # noqa: SLF001  the number that "scale" or "auto" came to
    if estimator.kernel == "linear":
        return products
    if estimator.kernel == "rbf":
        own = writer.node("ReduceSumSquare", [rows, writer.constant([1], TensorProto.INT64)], keepdims=1)
        theirs = writer.constant((vectors**2).sum(axis=1).reshape(1, -1))
        sums = writer.node("Add", [own, theirs])
        distances = writer.node("Sub", [sums, writer.node("Mul", [products, writer.constant([[2.0]])])])
        distances = writer.node("Max", [distances, writer.constant([[0.0]])])
        return writer.node("Exp", [writer.node("Neg", [writer.node("Mul", [distances, gamma])])])
    moved = writer.node("Add", [writer.node("Mul", [products, gamma]), writer.constant([[float(estimator.coef0)]])])
    if estimator.kernel == "poly":
        return writer.node("Pow", [moved, writer.constant([[float(estimator.degree)]])])
    if estimator.kernel == "sigmoid":
        return writer.node("Tanh", [moved])
    raise NotConvertible(f"its kernel is {estimator.kernel}")
