"""The trees of a fitted estimator, as arrays. Runs in a locked child only.

Everything is kept in the estimator's own 64 bits: thresholds, leaves, which way a missing value goes, and the order in which
leaves are added up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import AdaBoostClassifier

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NotConvertible(Exception):
    """There is no graph for this estimator; the text says why."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes by number. `weights`: (nodes, width) float64, of which those of leaves count; `target`: the sum that they are added to."""

    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    weights: NDArray[np.float64]
    target: int = 0


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose leaves add up, in this order.

    `targets`: how many sums there are. `rounds`: scikit-learn rounds its input to 32 bits first. `mean`: the sum is divided by the
    number of trees. Leaves hold one number, or, where a forest tells more than two classes apart, one for each class.
    """

    trees: tuple[Tree, ...]
    targets: int
    rounds: bool
    mean: bool = False

    @property
    def width(self) -> int:
        """How many numbers a leaf holds."""
        return int(self.trees[0].weights.shape[1])


def forest_of(estimator: Any) -> Forest:
    """The trees of a fitted tree, forest or boosting of trees; raises NotConvertible.

    Of a forest that tells two classes apart, leaves hold the share of the second.
    """
    if hasattr(estimator, "_predictors"):
        return _histogram_boosting(estimator)
    if isinstance(estimator, AdaBoostClassifier):
        return _adaptive_boosting(estimator)
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise NotConvertible("it has several outputs")
    if hasattr(estimator, "init_"):
        return _gradient_boosting(estimator)
    alone = not hasattr(estimator, "estimators_")
    found = [estimator.tree_] if alone else [held.tree_ for held in estimator.estimators_]
    classes = len(getattr(estimator, "classes_", ()))
    numbers = slice(1, 2) if classes == 2 else slice(0, max(1, classes))
    return Forest(tuple(_tree(tree, tree.value[:, 0, numbers]) for tree in found), 1, rounds=True, mean=not alone)


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
    return _from(base, trees, rounds=True)


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
    return _from(base, trees, rounds=False)


def _adaptive_boosting(estimator: Any) -> Forest:
    """Each tree has a vote; the sums are what its softmax is taken of, of two classes one half of the second's lead."""
    classes = len(estimator.classes_)
    if classes < 2 or any(len(held.classes_) != classes for held in estimator.estimators_):
        raise NotConvertible("some of its trees know not all classes")
    shares = estimator.estimator_weights_[: len(estimator.estimators_)] / estimator.estimator_weights_.sum() / (classes - 1)
    trees = []
    for held, share in zip(estimator.estimators_, shares.tolist(), strict=True):
        votes = np.where(np.arange(classes) == held.tree_.value[:, 0, :].argmax(axis=1)[:, None], 1.0, -1 / (classes - 1))
        trees.append(_tree(held.tree_, share * (votes[:, 1:] if classes == 2 else votes)))
    return Forest(tuple(trees), 1, rounds=True)


def _from(base: NDArray[np.float64], trees: list[Tree], *, rounds: bool) -> Forest:
    """Sums that begin with `base`, as scikit-learn's do: it is in the leaves of the first tree of each, so that not a bit differs."""
    begun: set[int] = set()
    for i, tree in enumerate(trees):
        if tree.target not in begun:
            begun.add(tree.target)
            trees[i] = replace(tree, weights=base[tree.target] + tree.weights)
    return Forest(tuple(trees), len(base), rounds=rounds)
