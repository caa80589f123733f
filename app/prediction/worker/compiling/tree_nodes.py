"""Trees as the attributes of one operator, in 64 bits. Runs in a locked child only.

Source: ONNX operator TreeEnsemble, version 5 of ai.onnx.ml: branches and leaves are counted apart, each through all trees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from app.prediction.worker.compiling.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SUM, _NONE, _BRANCH_LEQ = 1, 0, 0  # of aggregate_function, post_transform and nodes_modes


def sums_of(trees: Sequence[Tree], targets: int) -> dict[str, Any]:
    """What adds up the one number of each leaf, in the order of the trees, into the sum that its tree belongs to."""
    grown = [_with_a_branch(tree) for tree in trees]
    weights = [tree.weights[tree.leaf, 0] for tree in grown]
    return _attributes(grown, weights, [tree.target for tree in grown], targets)


def leaves_of(trees: Sequence[Tree]) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """What says for each tree the leaf that a row comes to, as a row's number in a table; and the table, (leaves, width)."""
    grown = [_with_a_branch(tree) for tree in trees]
    table = np.concatenate([tree.weights[tree.leaf] for tree in grown])
    ends = np.cumsum([tree.leaf.sum() for tree in grown])
    numbers = np.split(np.arange(len(table), dtype=np.float64), ends[:-1])
    return _attributes(grown, numbers, list(range(len(grown))), len(grown)), table


def _attributes(trees: Sequence[Tree], weights: list[NDArray[np.float64]], targets: list[int], count: int) -> dict[str, Any]:
    places = _places(trees)
    lefts = [(place[tree.left[~tree.leaf]], tree.leaf[tree.left[~tree.leaf]]) for tree, place in zip(trees, places, strict=True)]
    rights = [(place[tree.right[~tree.leaf]], tree.leaf[tree.right[~tree.leaf]]) for tree, place in zip(trees, places, strict=True)]
    thresholds = np.concatenate([tree.threshold[~tree.leaf] for tree in trees]).astype(np.float64)
    return {
        "n_targets": count,
        "tree_roots": [int(place[0]) for place in places],
        "nodes_featureids": _whole([tree.feature[~tree.leaf] for tree in trees]),
        "nodes_splits": numpy_helper.from_array(thresholds),
        "nodes_modes": numpy_helper.from_array(np.full(len(thresholds), _BRANCH_LEQ, dtype=np.uint8)),
        "nodes_truenodeids": _whole([place for place, _ in lefts]),
        "nodes_trueleafs": _whole([leaf for _, leaf in lefts]),
        "nodes_falsenodeids": _whole([place for place, _ in rights]),
        "nodes_falseleafs": _whole([leaf for _, leaf in rights]),
        "nodes_missing_value_tracks_true": _whole([tree.missing_left[~tree.leaf] for tree in trees]),
        "leaf_targetids": np.repeat(targets, [len(part) for part in weights]).tolist(),
        "leaf_weights": numpy_helper.from_array(np.concatenate(weights).astype(np.float64)),
        "aggregate_function": _SUM,
        "post_transform": _NONE,
    }


def _places(trees: Sequence[Tree]) -> list[NDArray[np.int64]]:
    """Of each tree's nodes, the number among all branches, or among all leaves."""
    places, branches, leaves = [], 0, 0
    for tree in trees:
        places.append(np.where(tree.leaf, leaves + np.cumsum(tree.leaf) - 1, branches + np.cumsum(~tree.leaf) - 1))
        branches += int((~tree.leaf).sum())
        leaves += int(tree.leaf.sum())
    return places


def _whole(parts: list[NDArray[Any]]) -> list[int]:
    found: list[int] = np.concatenate(parts).astype(np.int64).tolist()
    return found


def _with_a_branch(tree: Tree) -> Tree:
    """The tree; a single leaf as both ways of a branch, for the operator has no tree without one."""
    if not tree.leaf[0]:
        return tree
    no, one, two = np.zeros(3, dtype=np.int64), np.array([1, 0, 0]), np.array([2, 0, 0])
    weights = np.repeat(tree.weights[:1], 3, axis=0)
    return Tree(np.array([False, True, True]), no, no.astype(np.float64), one, two, no.astype(bool), weights, tree.target)
