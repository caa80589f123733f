"""Trees and ensembles of trees as graphs that take every branch as scikit-learn takes it. Runs in a locked child only.

skl2onnx has converters of its own for these. They keep thresholds in 32 bits, so that a number next to a threshold goes the other
way, and leave out which way a missing value goes. Here thresholds and leaves keep their 64 bits, and numbers are rounded to 32
bits exactly where scikit-learn does so itself.
Source: ONNX operator TreeEnsembleRegressor, version 3 of ai.onnx.ml.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper
from skl2onnx.common._registration import register_converter
from skl2onnx.common.data_types import DoubleTensorType, guess_proto_type
from skl2onnx.common.utils_classifier import get_label_classes

from app.prediction.worker.compiling.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

_CLASSIFIER_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "raw_scores": [True, False],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "decision_path": [True, False],
    "decision_leaf": [True, False],
}
_REGRESSOR_OPTIONS = {"decision_path": [True, False], "decision_leaf": [True, False], "raw_scores": [True, False]}


class NotConvertible(Exception):
    """There is no graph for this estimator; the text says why."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose leaves add up to `targets` numbers, to which `base` is added.

    `rounds`: scikit-learn rounds its input to 32 bits first. Of each tree: where it branches, and what each leaf adds to which target.
    """

    trees: tuple[Tree, ...]
    base: NDArray[np.float64]
    rounds: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes by number. `weights`: (nodes, targets of this tree) float64, of which those of leaves count; `target`: the first of them."""

    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    weights: NDArray[np.float64]
    target: int = 0


def forest_of(estimator: Any) -> Forest:
    """The trees of a fitted tree, forest, gradient boosting or histogram gradient boosting; raises NotConvertible."""
    if hasattr(estimator, "_predictors"):
        return _histogram_boosting(estimator)
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise NotConvertible("it has several outputs")
    if hasattr(estimator, "init_"):
        return _gradient_boosting(estimator)
    trees = [held.tree_ for held in estimator.estimators_] if hasattr(estimator, "estimators_") else [estimator.tree_]
    if hasattr(estimator, "classes_"):
        leaves = [_shares(tree.value[:, 0, :]) / len(trees) for tree in trees]
    else:
        leaves = [tree.value[:, 0, :1] / len(trees) for tree in trees]
    return Forest(tuple(map(_tree, trees, leaves)), np.zeros(leaves[0].shape[1]), rounds=True)


def centred(forest: Forest) -> Forest:
    """The same sums, with the bulk of them in the base: the operator adds up in 64 bits, but answers with 32."""
    base = forest.base.copy()
    trees = []
    for tree in forest.trees:
        middle = tree.weights[tree.leaf].mean(axis=0)
        base[tree.target : tree.target + len(middle)] += middle
        trees.append(replace(tree, weights=tree.weights - middle))
    return replace(forest, trees=tuple(trees), base=base)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = values.sum(axis=1, keepdims=True)
    return np.asarray(values / np.where(total == 0.0, 1.0, total))


def _tree(tree: Any, weights: NDArray[np.float64], target: int = 0) -> Tree:
    return Tree(
        leaf=tree.children_left < 0,
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=np.asarray(tree.missing_go_to_left, dtype=bool),
        weights=weights,
        target=target,
    )


def _gradient_boosting(estimator: Any) -> Forest:
    start = estimator.init_
    if start != "zero" and not type(start).__name__.startswith("Dummy"):
        raise NotConvertible("its init is an estimator of its own")
    nothing = np.zeros((1, estimator.n_features_in_), dtype=np.float32)
    base = np.asarray(estimator._raw_predict_init(nothing), dtype=np.float64).ravel()  # noqa: SLF001  nothing public says it
    trees = [
        _tree(held.tree_, estimator.learning_rate * held.tree_.value[:, 0, :1], target)
        for stage in estimator.estimators_
        for target, held in enumerate(stage)
    ]
    return Forest(tuple(trees), base, rounds=True)


def _histogram_boosting(estimator: Any) -> Forest:
    if getattr(estimator, "is_categorical_", None) is not None and np.any(estimator.is_categorical_):
        raise NotConvertible("histogram boosting with categorical features")
    trees = []
    for stage in estimator._predictors:  # noqa: SLF001  nothing public holds the trees
        for target, predictor in enumerate(stage):
            nodes = predictor.nodes
            trees.append(
                Tree(
                    leaf=nodes["is_leaf"].astype(bool),
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=nodes["num_threshold"],
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    weights=nodes["value"].reshape(-1, 1),
                    target=target,
                )
            )
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).ravel()  # noqa: SLF001
    return Forest(tuple(trees), base, rounds=False)


def attributes(forest: Forest) -> dict[str, Any]:
    """The attributes of the one node that is the whole forest."""
    sizes = [len(tree.leaf) for tree in forest.trees]
    leaf = _joined(tree.leaf for tree in forest.trees)
    branches = ~leaf

    def of_branches(parts: Iterable[NDArray[Any]], otherwise: Any) -> NDArray[Any]:
        return np.where(branches, _joined(parts), otherwise)

    ids = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.concatenate([np.arange(size) for size in sizes])
    leaves = [_leaves(i, tree) for i, tree in enumerate(forest.trees)]
    thresholds = of_branches((tree.threshold for tree in forest.trees), 0.0)
    return {
        "n_targets": len(forest.base),
        "nodes_treeids": ids.tolist(),
        "nodes_nodeids": numbers.tolist(),
        "nodes_featureids": of_branches((tree.feature for tree in forest.trees), 0).tolist(),
        "nodes_modes": ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf.tolist()],
        "nodes_values_as_tensor": numpy_helper.from_array(thresholds.astype(np.float64)),
        "nodes_truenodeids": of_branches((tree.left for tree in forest.trees), 0).tolist(),
        "nodes_falsenodeids": of_branches((tree.right for tree in forest.trees), 0).tolist(),
        "nodes_missing_value_tracks_true": of_branches((tree.missing_left for tree in forest.trees), 0).astype(np.int64).tolist(),
        "target_treeids": _joined(part[0] for part in leaves).tolist(),
        "target_nodeids": _joined(part[1] for part in leaves).tolist(),
        "target_ids": _joined(part[2] for part in leaves).tolist(),
        "target_weights_as_tensor": numpy_helper.from_array(_joined(part[3] for part in leaves).astype(np.float64)),
        "post_transform": "NONE",
        "aggregate_function": "SUM",
    }


def _joined(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(list(parts))


def _leaves(number: int, tree: Tree) -> tuple[NDArray[Any], ...]:
    """(tree, node, target, weight) of each weight of each leaf."""
    at = np.flatnonzero(tree.leaf)
    targets = tree.weights.shape[1]
    ids = np.full(len(at) * targets, number)
    return ids, np.repeat(at, targets), np.tile(np.arange(targets) + tree.target, len(at)), tree.weights[at].ravel()


def _sums(writer: Writer, operator: Any, forest: Forest) -> str:
    """(rows, targets) double: what the leaves add up to, and the base."""
    name = operator.inputs[0].full_name
    if forest.rounds:
        name = writer.node("Cast", [name], to=TensorProto.FLOAT)
    if forest.rounds or not isinstance(operator.inputs[0].type, DoubleTensorType):
        name = writer.node("Cast", [name], to=TensorProto.DOUBLE)
    name = writer.node("TreeEnsembleRegressor", [name], op_domain="ai.onnx.ml", op_version=3, **attributes(forest))
    name = writer.node("Cast", [name], to=TensorProto.DOUBLE)
    return writer.node("Add", [name, writer.constant(forest.base.reshape(1, -1))]) if forest.base.any() else name


def convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    """Writes a regressor of trees; raises NotConvertible. skl2onnx calls it."""
    estimator = operator.raw_operator
    writer = Writer(scope, container)
    name = _sums(writer, operator, centred(forest_of(estimator)))
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
    forest = forest_of(estimator)
    sums = _sums(writer, operator, forest)
    probabilities = _link(estimator)(writer, sums, forest)
    writer.node("Cast", [probabilities], operator.outputs[1].full_name, to=guess_proto_type(operator.outputs[1].type))
    best = writer.node("ArgMax", [probabilities], axis=1, keepdims=0)
    classes = list(get_label_classes(scope, estimator))
    texts = all(isinstance(label, str) for label in classes)
    labels = writer.constant([str(c) if texts else int(c) for c in classes], TensorProto.STRING if texts else TensorProto.INT64)
    writer.node("Gather", [labels, best], operator.outputs[0].full_name, axis=0)


def _link(estimator: Any) -> Callable[[Writer, str, Forest], str]:
    """How the sums become probabilities."""
    loss = getattr(estimator, "_loss", None)
    if loss is None:
        return lambda _writer, sums, _forest: sums
    name = type(loss).__name__
    if name not in {"HalfBinomialLoss", "HalfMultinomialLoss", "ExponentialLoss"}:
        raise NotConvertible(f"its loss is {name}")

    def link(writer: Writer, sums: str, forest: Forest) -> str:
        if len(forest.base) > 1:
            return writer.node("Softmax", [sums], axis=1)
        if name == "ExponentialLoss":
            sums = writer.node("Mul", [sums, writer.constant([[2.0]])])
        second = writer.node("Sigmoid", [sums])
        first = writer.node("Sub", [writer.constant([[1.0]]), second])
        return writer.node("Concat", [first, second], axis=1)

    return link


def register() -> None:
    """From now on, and in this process, skl2onnx uses the converters of this module."""
    for name in ("DecisionTree", "ExtraTree", "ExtraTrees", "RandomForest", "GradientBoosting", "HistGradientBoosting"):
        register_converter(f"Sklearn{name}Classifier", convert_classifier, overwrite=True, options=_CLASSIFIER_OPTIONS)
        register_converter(f"Sklearn{name}Regressor", convert_regressor, overwrite=True, options=_REGRESSOR_OPTIONS)
