"""SimpleImputer over numbers as a graph of 64 bits, which neither skl2onnx's converter nor onnxruntime's Imputer has."""

from __future__ import annotations

from typing import Any

import numpy as np
from skl2onnx.common._registration import get_converter, register_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, guess_proto_type

from app.prediction.worker.compiling.writer import Writer

_NAME = "SklearnSimpleImputer"


def register() -> None:
    """From now on, and in this process, skl2onnx fills gaps as this module does; what it does not know goes the old way."""
    before = get_converter(_NAME)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        if _fills_numbers(operator):
            _convert(scope, operator, container)
        else:
            before(scope, operator, container)

    register_converter(_NAME, convert, overwrite=True, options=before.get_allowed_options())


def _fills_numbers(operator: Any) -> bool:
    imputer = operator.raw_operator
    statistics = np.asarray(imputer.statistics_)
    return (
        len(operator.inputs) == 1
        and isinstance(operator.inputs[0].type, DoubleTensorType | FloatTensorType)
        and not imputer.add_indicator
        and statistics.dtype.kind in "fiu"
        and not np.isnan(statistics.astype(np.float64)).any()
        and isinstance(imputer.missing_values, float)
        and np.isnan(imputer.missing_values)
    )


def _convert(scope: Any, operator: Any, container: Any) -> None:
    given, made, writer = operator.inputs[0], operator.outputs[0], Writer(scope, container)
    fill = writer.constant(np.asarray(operator.raw_operator.statistics_, dtype=np.float64).reshape(1, -1), guess_proto_type(given.type))
    filled = writer.node("Where", [writer.node("IsNaN", [given.full_name]), fill, given.full_name])
    writer.node("Cast", [filled], made.full_name, to=guess_proto_type(made.type))
