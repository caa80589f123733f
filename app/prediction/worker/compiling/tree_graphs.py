"""Trees and ensembles of trees as graphs that answer as scikit-learn does, to the last bits. Runs in a locked child only.

skl2onnx has converters of its own for these. They keep thresholds and leaves in 32 bits, so that a number next to a threshold goes
the other way and sums are off by what a notebook shows, and leave out which way a missing value goes. Here everything keeps its 64
bits, and numbers are rounded to 32 bits exactly where scikit-learn does so itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto
from skl2onnx.common._registration import get_converter, get_shape_calculator, register_converter, register_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, guess_proto_type
from skl2onnx.common.utils_classifier import get_label_classes
from sklearn.ensemble import AdaBoostClassifier

from app.prediction.worker.compiling.tree_nodes import leaves_of, sums_of
from app.prediction.worker.compiling.trees import Forest, NotConvertible, forest_of
from app.prediction.worker.compiling.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = {"decision_path": [True, False], "decision_leaf": [True, False], "raw_scores": [True, False]}
_CLASSIFIER_OPTIONS = {**_OPTIONS, "zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}
_MOST_NUMBERS_A_ROW = 512  # that are held at once: leaves of trees times classes; ten thousand rows of them are 40 MB


def convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    """Writes a regressor of trees; raises NotConvertible. skl2onnx calls it."""
    estimator = operator.raw_operator
    writer = Writer(scope, container)
    name = _answers(writer, operator, forest_of(estimator))
    link = type(getattr(getattr(estimator, "_loss", None), "link", None)).__name__ if hasattr(estimator, "_predictors") else "IdentityLink"
    if link == "LogLink":
        name = writer.node("Exp", [name])
    elif link != "IdentityLink":
        raise NotConvertible(f"the link of its loss is {link}")
    writer.node("Cast", [name], operator.outputs[0].full_name, to=guess_proto_type(operator.outputs[0].type))


def convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Writes a classifier of trees: its labels and its probabilities; raises NotConvertible. skl2onnx calls it."""
    estimator = operator.raw_operator
    if container.get_options(estimator, {"raw_scores": False}).get("raw_scores"):
        raise NotConvertible("the decision function of trees")
    writer = Writer(scope, container)
    classes = list(get_label_classes(scope, estimator))
    probabilities = _link(estimator, len(classes))(writer, _answers(writer, operator, forest_of(estimator)))
    writer.node("Cast", [probabilities], operator.outputs[1].full_name, to=guess_proto_type(operator.outputs[1].type))
    best = writer.node("ArgMax", [probabilities], axis=1, keepdims=0)
    texts = all(isinstance(label, str) for label in classes)
    labels = writer.constant([str(c) if texts else int(c) for c in classes], TensorProto.STRING if texts else TensorProto.INT64)
    writer.node("Gather", [labels, best], operator.outputs[0].full_name, axis=0)


def _answers(writer: Writer, operator: Any, forest: Forest) -> str:
    """(rows, targets) or (rows, width) double: what the leaves add up to, divided where scikit-learn divides."""
    name = operator.inputs[0].full_name
    if forest.rounds:
        name = writer.node("Cast", [name], to=TensorProto.FLOAT)
    if forest.rounds or not isinstance(operator.inputs[0].type, DoubleTensorType):
        name = writer.node("Cast", [name], to=TensorProto.DOUBLE)
    one = forest.width == 1
    sums = _ensemble(writer, name, sums_of(forest.trees, forest.targets)) if one else _looked_up(writer, name, forest)
    return writer.node("Div", [sums, writer.constant([[float(len(forest.trees))]])]) if forest.mean else sums


def _ensemble(writer: Writer, rows: str, attributes: dict[str, Any]) -> str:
    # Of version 5, which the finished graph says; skl2onnx would refuse to write it.
    return writer.node("TreeEnsemble", [rows], op_domain="ai.onnx.ml", op_version=3, **attributes)


def _looked_up(writer: Writer, rows: str, forest: Forest) -> str:
    """(rows, width): the operator knows one number a leaf, so it says which leaf, and a table has that leaf's numbers."""
    step = max(1, _MOST_NUMBERS_A_ROW // forest.width)
    parts = []
    for start in range(0, len(forest.trees), step):
        attributes, table = leaves_of(forest.trees[start : start + step])
        leaves = writer.node("Cast", [_ensemble(writer, rows, attributes)], to=TensorProto.INT64)
        found = writer.node("Gather", [writer.constant(table), leaves], axis=0)
        parts.append(writer.node("ReduceSum", [found, writer.constant([1], TensorProto.INT64)], keepdims=0))
    return writer.node("Sum", parts) if len(parts) > 1 else parts[0]


def _link(estimator: Any, classes: int) -> Callable[[Writer, str], str]:
    """How the sums become probabilities."""
    votes = isinstance(estimator, AdaBoostClassifier)
    loss = type(getattr(estimator, "_loss", None)).__name__
    if loss == "NoneType" and not votes:
        return _with_first if classes == 2 else lambda _, shares: shares
    if loss == "HalfMultinomialLoss" or (votes and classes > 2):
        return lambda writer, sums: writer.node("Softmax", [sums], axis=1)
    if loss not in {"HalfBinomialLoss", "ExponentialLoss"} and not votes:
        raise NotConvertible(f"its loss is {loss}")
    times = 1.0 if loss == "HalfBinomialLoss" else 2.0
    return lambda writer, sums: writer.node("Sigmoid", [writer.node("Mul", [sums, writer.constant([[-times, times]])])])


def _with_first(writer: Writer, second: str) -> str:
    """(rows, 2), of the share of the second class."""
    return writer.node("Concat", [writer.node("Sub", [writer.constant([[1.0]]), second]), second], axis=1)


def register() -> None:
    """From now on, and in this process, skl2onnx uses the converters of this module."""
    for name in ("DecisionTree", "ExtraTree", "ExtraTrees", "RandomForest", "GradientBoosting", "HistGradientBoosting"):
        register_converter(f"Sklearn{name}Classifier", convert_classifier, overwrite=True, options=_CLASSIFIER_OPTIONS)
        register_converter(f"Sklearn{name}Regressor", convert_regressor, overwrite=True, options=_OPTIONS)
        _widen(f"Sklearn{name}Classifier")
        _widen(f"Sklearn{name}Regressor")
    _register_votes("SklearnAdaBoostClassifier")


def _register_votes(name: str) -> None:
    """AdaBoost of trees goes our way, and of other estimators the old one."""
    before = get_converter(name)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        of_trees = all(hasattr(held, "tree_") for held in operator.raw_operator.estimators_)
        (convert_classifier if of_trees else before)(scope, operator, container)

    register_converter(name, convert, overwrite=True, options=before.get_allowed_options())


def _widen(name: str) -> None:
    """Answers have 64 bits where the numbers given have: skl2onnx may have settled for 32 before it knew what is given."""
    before = get_shape_calculator(name)

    def calculate(operator: Any) -> None:
        before(operator)
        answer = operator.outputs[1 if name.endswith("Classifier") else 0]
        if isinstance(operator.inputs[0].type, DoubleTensorType):
            answer.type = DoubleTensorType(answer.type.shape)

    register_shape_calculator(name, calculate, overwrite=True)
