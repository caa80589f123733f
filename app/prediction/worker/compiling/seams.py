"""What is set right in skl2onnx before it is used. Runs in a locked child only; nothing outside it is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from skl2onnx.common._container import ModelComponentContainer
from skl2onnx.common._registration import get_converter

from app.prediction.worker.compiling import gaps, kernels, tree_graphs


def mend() -> None:
    """Call once a process."""
    tree_graphs.register()
    gaps.register()
    kernels.register()
    linear = get_converter("SklearnLinearSVC").get_allowed_options()
    linear.setdefault("zipmap", [True, False, "columns"])  # every classifier is asked about it; this one alone does not know it
    original = ModelComponentContainer.add_node

    def add_node(self: Any, op_type: Any, inputs: Any, outputs: Any, op_domain: Any = "", **rest: Any) -> Any:
        return original(self, op_type, inputs, outputs, op_domain=op_domain, **{name: plain(value) for name, value in rest.items()})

    ModelComponentContainer.add_node = add_node


def plain(value: Any) -> Any:
    """Numbers and booleans of numpy in attributes as Python's own: protobuf takes no others, and no boolean for a whole number."""
    if isinstance(value, bool | np.bool_ | np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    return [plain(item) for item in value] if isinstance(value, list) else value
