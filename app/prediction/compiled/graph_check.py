"""Reads a graph that a stranger may have written, before anything loads it. In the serving process: sizes are bounded first.

The allow-list holds the operators that compiled scikit-learn models are made of. None of them can loop, call a function, open a
file or come from a library of somebody's own, and those that could make much out of little may do so from shapes that were read here.
Source: onnx.proto3 of the ONNX specification; operator schemas of ai.onnx and ai.onnx.ml.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from app.prediction.compiled.graph_wire import GraphRefused, look_over
from app.prediction.compiled.inputs import INTEGERS, NUMBERS, TEXTS
from app.prediction.compiled.outputs import LAYOUTS
from app.prediction.compiled.tree_check import check_trees

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST_GRAPH = 32 * 1024 * 1024
MOST_NODES = 20_000
MOST_CONSTANT_BYTES = 256 * 1024 * 1024  # of all constants that a graph holds or makes from shapes
_LONGEST_WORD = 100
_DOMAINS = {"": 21, "ai.onnx.ml": 5}
_IR_VERSIONS = range(3, 14)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = {
    "": _words("""
        Abs Add And ArgMax ArgMin BitShift Cast CastLike Ceil Clip Concat Constant ConstantOfShape CumSum Div Equal Erf Exp Expand
        Flatten Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual HardSigmoid Identity IsInf IsNaN Less LessOrEqual
        Log LpNormalization MatMul Max Min Mod Mul Neg Not OneHot Or Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax
        ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round ScatterElements Selu Shape Sigmoid Sign Sin Size
        Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where Xor
    """),
    "ai.onnx.ml": _words("""
        ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor Normalizer
        OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
    """),
}
_MADE_FROM_SHAPES = _words("ConstantOfShape Expand Tile Range OneHot")


def check_graph(data: bytes) -> bytes:
    """The graph again, of what was checked alone: no names, notes or metadata that nothing needs. Raises GraphRefused. Blocks."""
    if len(data) > LARGEST_GRAPH:
        raise GraphRefused(f"its graph has {len(data):,} bytes; at most {LARGEST_GRAPH:,} are taken")
    look_over(data)
    try:
        return _checked(data)
    except GraphRefused:
        raise
    except Exception:  # noqa: BLE001  a stranger's bytes; protobuf's errors share no base
        raise GraphRefused("its graph is no ONNX model") from None


def _checked(data: bytes) -> bytes:
    import onnx  # only where a graph is read: a serving process may never need it

    model = onnx.ModelProto()
    model.ParseFromString(data)
    _check_model(model)
    graph = model.graph
    if len(graph.node) > MOST_NODES:
        raise GraphRefused(f"its graph has {len(graph.node):,} nodes; at most {MOST_NODES:,} are taken")
    if graph.sparse_initializer or graph.quantization_annotation:
        raise GraphRefused("its graph has sparse or quantized constants")
    _check_signature(graph)
    constants = _Constants(onnx)
    for tensor in graph.initializer:
        constants.add(tensor.name, tensor)
    for node in graph.node:
        _check_node(node, constants, onnx)
    return bytes(_clean(model, onnx).SerializeToString(deterministic=True))


def _check_model(model: Any) -> None:
    if model.ir_version not in _IR_VERSIONS:
        raise GraphRefused(f"its graph has the format version {model.ir_version}")
    if model.functions or model.training_info or getattr(model, "configuration", None):
        raise GraphRefused("its graph brings functions of its own")
    for opset in model.opset_import:
        if opset.domain not in _DOMAINS:
            raise GraphRefused(f"its graph uses the operators of {_shown(opset.domain)}")
        if not 1 <= opset.version <= _DOMAINS[opset.domain]:
            raise GraphRefused(f"its graph uses version {opset.version} of {_shown(opset.domain or 'ai.onnx')}")


def _check_signature(graph: Any) -> None:
    inputs = [given.name for given in graph.input]
    if not inputs or len(set(inputs)) != len(inputs) or not set(inputs) <= {NUMBERS, INTEGERS, TEXTS}:
        raise GraphRefused("its graph has other inputs than columns")
    if tuple(found.name for found in graph.output) not in LAYOUTS:
        raise GraphRefused("its graph has other outputs than answers")
    if set(inputs) & {tensor.name for tensor in graph.initializer}:
        raise GraphRefused("its graph has constants in place of inputs")


def _check_node(node: Any, constants: _Constants, onnx: Any) -> None:
    if node.domain not in OPERATORS or node.op_type not in OPERATORS[node.domain]:
        where = f" of {_shown(node.domain)}" if node.domain else ""
        raise GraphRefused(f"its graph uses the operator {_shown(node.op_type)}{where}")
    kinds = onnx.AttributeProto
    for attribute in node.attribute:
        if attribute.type in {kinds.GRAPH, kinds.GRAPHS} or attribute.HasField("g") or attribute.graphs:
            raise GraphRefused(f"its graph has a graph within {node.op_type}")
        if attribute.type in {kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS} or attribute.HasField("sparse_tensor") or attribute.ref_attr_name:
            raise GraphRefused(f"its graph has an attribute of {node.op_type} that is not taken")
        constants.take(8 * (len(attribute.ints) + len(attribute.floats)))
        for tensor in (attribute.t, *attribute.tensors) if attribute.HasField("t") or attribute.tensors else ():
            constants.add(node.output[0] if node.op_type == "Constant" and node.output else "", tensor)
    if node.op_type == "Constant" and node.output:
        constants.add_list(node.output[0], node)
    if node.op_type == "TreeEnsemble":
        constants.take(check_trees(node, onnx))
    if node.op_type in _MADE_FROM_SHAPES:
        constants.check_made(node)


class _Constants:
    """The constants of a graph: how much memory they take, and what the small ones hold."""

    _SMALL = 64

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._bytes = 0
        self._known: dict[str, list[float]] = {}

    def add(self, name: str, tensor: Any) -> None:
        """Raises GraphRefused for a tensor in another file, one whose size is not its shape's, and too many bytes in all."""
        if tensor.external_data or tensor.data_location == self._onnx.TensorProto.EXTERNAL:
            raise GraphRefused("its graph keeps data in other files")
        if tensor.HasField("segment"):
            raise GraphRefused("its graph keeps a constant in pieces")
        count = _elements(tensor.dims)
        held = max(
            len(tensor.raw_data),
            *(len(getattr(tensor, f"{kind}_data")) for kind in ("float", "int32", "int64", "double", "uint64", "string")),
        )
        if count > max(1, 8 * held):
            raise GraphRefused("its graph has a constant that is smaller than its shape says")
        self.take(count * 16 if tensor.data_type == self._onnx.TensorProto.STRING else count * 8)
        if name and count <= self._SMALL and tensor.data_type != self._onnx.TensorProto.STRING:
            try:
                self._known[name] = self._onnx.numpy_helper.to_array(tensor).astype(float).ravel().tolist()
            except Exception:  # noqa: BLE001  a tensor of nonsense
                raise GraphRefused("its graph has a constant that cannot be read") from None

    def add_list(self, name: str, node: Any) -> None:
        """The value of a Constant that is given as plain numbers."""
        for attribute in node.attribute:
            values = list(attribute.ints) or list(attribute.floats) or ([attribute.i] if attribute.name == "value_int" else [])
            if 0 < len(values) <= self._SMALL:
                self._known[name] = [float(value) for value in values]

    def check_made(self, node: Any) -> None:
        """Raises GraphRefused where an operator would make a large tensor out of a constant shape."""
        if node.op_type == "Range":
            self._check_range(node)
            return
        place = 1 if node.op_type in {"Expand", "Tile", "OneHot"} else 0
        shape = self._known.get(node.input[place]) if len(node.input) > place else None
        if shape is not None:
            if any(not 0 <= size < 2**31 for size in shape):
                raise GraphRefused(f"its graph has a {node.op_type} of an impossible shape")
            self.take(math.prod(max(1, int(size)) for size in shape) * 8)

    def _check_range(self, node: Any) -> None:
        ends = [self._known.get(name) for name in node.input]
        if any(not end for end in ends) or len(ends) != 3:
            return  # of the number of rows
        start, limit, step = (float(end[0]) for end in ends if end)
        if step == 0 or not math.isfinite(start + limit + step):
            raise GraphRefused("its graph has a Range without an end")
        self.take(int(max(0.0, (limit - start) / step)) * 8)

    def take(self, size: int) -> None:
        """Counts bytes; raises GraphRefused where they are too many in all."""
        self._bytes += size
        if self._bytes > MOST_CONSTANT_BYTES:
            raise GraphRefused(f"its graph has constants of more than {MOST_CONSTANT_BYTES >> 20} MiB")


def _elements(dims: Iterable[int]) -> int:
    count = 1
    for size in dims:
        if not 0 <= size < 2**31:
            raise GraphRefused("its graph has a constant of an impossible shape")
        count *= size
        if count > MOST_CONSTANT_BYTES:
            raise GraphRefused(f"its graph has constants of more than {MOST_CONSTANT_BYTES >> 20} MiB")
    return count


def _clean(model: Any, onnx: Any) -> Any:
    """A new model of what was looked at. Fields that nobody looked at, and unknown ones, stay behind."""
    clean = onnx.ModelProto(ir_version=min(model.ir_version, 10))
    clean.opset_import.extend(onnx.helper.make_operatorsetid(opset.domain, opset.version) for opset in model.opset_import)
    clean.graph.name = "model"
    for given, taken in ((model.graph.input, clean.graph.input), (model.graph.output, clean.graph.output)):
        for value in given:
            tensor = value.type.tensor_type
            made = taken.add(name=value.name)
            made.type.tensor_type.elem_type = tensor.elem_type
            if tensor.HasField("shape"):
                for size in tensor.shape.dim:
                    made.type.tensor_type.shape.dim.add(**({"dim_value": size.dim_value} if size.HasField("dim_value") else {}))
    for tensor in model.graph.initializer:
        clean.graph.initializer.add().CopyFrom(tensor)
    for node in model.graph.node:
        copy = clean.graph.node.add(op_type=node.op_type, domain=node.domain, input=node.input, output=node.output)
        for attribute in node.attribute:
            copy.attribute.add().CopyFrom(attribute)
    for found in (*clean.graph.initializer, *(a for node in clean.graph.node for a in node.attribute)):
        found.doc_string = ""
        found.DiscardUnknownFields()
        if hasattr(found, "metadata_props"):
            del found.metadata_props[:]
    return clean


def _shown(name: str) -> str:
    """A stranger's word, fit to be shown."""
    return "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_WORD])
