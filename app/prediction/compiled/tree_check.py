"""Reads the trees of a stranger's graph before onnxruntime does: they must be trees, and no more than their bytes let expect.

onnxruntime (1.31, measured) looks at ranges itself, but follows branches by recursion, so that a chain of 20,000 ends the process,
and builds a tree again for each root that names it, so that 36 KiB become a gigabyte.
Source: ONNX operator TreeEnsemble, version 5 of ai.onnx.ml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from app.prediction.compiled.graph_wire import GraphRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_LEVELS = 1_000
MOST_TARGETS = 1_000
MOST_FEATURES = 1_000_000  # categories become columns of their own; onnxruntime compares with the columns that are there
BYTES_A_NODE = 64  # what onnxruntime keeps of a branch or a leaf
_SUM, _NONE, _BRANCH_LEQ = 1, 0, 0
_NUMBERS = frozenset({"aggregate_function", "n_targets", "post_transform"})
_LISTS = frozenset({
    "leaf_targetids", "nodes_falseleafs", "nodes_falsenodeids", "nodes_featureids", "nodes_missing_value_tracks_true",
    "nodes_trueleafs", "nodes_truenodeids", "tree_roots",
})  # fmt: skip
_TENSORS = frozenset({"leaf_weights", "nodes_modes", "nodes_splits"})


def check_trees(node: Any, onnx: Any) -> int:
    """Bytes that the trees of a TreeEnsemble take when they are loaded. Raises GraphRefused."""
    numbers, arrays = _read(node, onnx)
    if numbers["aggregate_function"] != _SUM or numbers["post_transform"] != _NONE:
        raise GraphRefused("its graph has trees that do more than add up")
    if not 1 <= numbers["n_targets"] <= MOST_TARGETS:
        raise GraphRefused(f"its graph has trees with {numbers['n_targets']:,} sums; at most {MOST_TARGETS:,} are taken")
    branches, leaves = len(arrays["nodes_splits"]), len(arrays["leaf_weights"])
    flags = ("nodes_trueleafs", "nodes_falseleafs", "nodes_missing_value_tracks_true")
    per_branch = (*flags, "nodes_truenodeids", "nodes_falsenodeids", "nodes_featureids", "nodes_modes")
    if not branches or any(len(arrays[name]) != branches for name in per_branch) or len(arrays["leaf_targetids"]) != leaves:
        raise GraphRefused("its graph has trees whose parts do not fit together")
    if (arrays["nodes_modes"] != _BRANCH_LEQ).any():
        raise GraphRefused("its graph has trees that branch by more than size")
    bounds = dict.fromkeys(flags, 2) | {"nodes_featureids": MOST_FEATURES, "leaf_targetids": numbers["n_targets"]}
    if not all(_within(arrays[name], bound) for name, bound in bounds.items()):
        raise GraphRefused("its graph has trees with impossible numbers")
    _check_shape(arrays, branches, leaves)
    return (branches + leaves) * BYTES_A_NODE


def _read(node: Any, onnx: Any) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
    kinds = onnx.AttributeProto
    wanted = dict.fromkeys(_NUMBERS, kinds.INT) | dict.fromkeys(_LISTS, kinds.INTS) | dict.fromkeys(_TENSORS, kinds.TENSOR)
    found = {attribute.name: attribute for attribute in node.attribute}
    if len(found) != len(node.attribute) or {name: attribute.type for name, attribute in found.items()} != wanted:
        raise GraphRefused("its graph has trees of other parts than those that are taken")
    arrays = {name: np.fromiter(found[name].ints, dtype=np.int64, count=len(found[name].ints)) for name in _LISTS}
    for name in _TENSORS:
        arrays[name] = onnx.numpy_helper.to_array(found[name].t).reshape(-1)
    return {name: found[name].i for name in _NUMBERS}, arrays


def _check_shape(arrays: dict[str, NDArray[Any]], branches: int, leaves: int) -> None:
    """Each branch and each leaf has one place alone, and no branch is too many levels below its root."""
    below = np.concatenate([arrays["nodes_truenodeids"], arrays["nodes_falsenodeids"]])
    ends = np.concatenate([arrays["nodes_trueleafs"], arrays["nodes_falseleafs"]]).astype(bool)
    roots = arrays["tree_roots"]
    inner = np.concatenate([roots, below[~ends]])
    if not _each_once(inner, branches) or not _each_once(below[ends], leaves):
        raise GraphRefused("its graph has trees that are no trees")
    level, reached = roots, 0
    for _ in range(MOST_LEVELS):
        reached += len(level)
        level = np.concatenate([below[at][~ends[at]] for at in (level, level + branches)])
        if not len(level):
            break
    if len(level) or reached != branches:  # branches that no root leads to are in a circle
        raise GraphRefused(f"its graph has trees of more than {MOST_LEVELS:,} levels, or circles")


def _each_once(numbers: NDArray[np.int64], count: int) -> bool:
    return len(numbers) == count and _within(numbers, count) and bool((np.bincount(numbers, minlength=count) == 1).all())


def _within(numbers: NDArray[np.int64], bound: int) -> bool:
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < bound)
