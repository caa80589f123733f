"""Trees as a hostile converter would write them: what is no tree, or grows when it is loaded, is refused before that."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from app.prediction.compiled import graph_check, tree_check
from app.prediction.compiled.graph_check import check_graph
from app.prediction.compiled.graph_wire import GraphRefused
from tests.support.graphs import graph_of

pytestmark = pytest.mark.unit

# x0 <= 0 → 1; otherwise x1 <= 0 → 2; otherwise 3
TREE: dict[str, Any] = {
    "n_targets": 1,
    "tree_roots": [0],
    "nodes_featureids": [0, 1],
    "nodes_splits": np.array([0.0, 0.0], dtype=np.float32),
    "nodes_modes": np.array([0, 0], dtype=np.uint8),
    "nodes_truenodeids": [0, 1],
    "nodes_trueleafs": [1, 1],
    "nodes_falsenodeids": [1, 2],
    "nodes_falseleafs": [0, 1],
    "nodes_missing_value_tracks_true": [0, 0],
    "leaf_targetids": [0, 0, 0],
    "leaf_weights": np.array([1.0, 2.0, 3.0], dtype=np.float32),
    "aggregate_function": 1,
    "post_transform": 0,
}


def trees(**changed: Any) -> bytes:
    attributes = {name: value for name, value in (TREE | changed).items() if value is not None}
    made = {name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value for name, value in attributes.items()}
    node = helper.make_node("TreeEnsemble", ["numbers"], ["values"], domain="ai.onnx.ml", **made)
    return bytes(graph_of([node], opsets={"": 21, "ai.onnx.ml": 5}, width=2).SerializeToString())


def chain(branches: int) -> dict[str, Any]:
    """A tree whose other way is always the next branch."""
    return {
        "nodes_featureids": [0] * branches,
        "nodes_splits": np.arange(branches, dtype=np.float32),
        "nodes_modes": np.zeros(branches, dtype=np.uint8),
        "nodes_truenodeids": list(range(branches)),
        "nodes_trueleafs": [1] * branches,
        "nodes_falsenodeids": [*range(1, branches), branches],
        "nodes_falseleafs": [0] * (branches - 1) + [1],
        "nodes_missing_value_tracks_true": [0] * branches,
        "leaf_targetids": [0] * (branches + 1),
        "leaf_weights": np.ones(branches + 1, dtype=np.float32),
    }


def refusal(**changed: Any) -> str:
    with pytest.raises(GraphRefused) as refused:
        check_graph(trees(**changed))
    return str(refused.value)


def test_trees_are_taken_as_they_are_and_answer() -> None:
    clean = check_graph(trees())
    assert check_graph(clean) == clean
    session = onnxruntime.InferenceSession(clean, providers=["CPUExecutionProvider"])
    rows = np.array([[-1, -1], [1, -1], [1, 1], [0, 5]], dtype=np.float32)
    assert session.run(None, {"numbers": rows})[0].ravel().tolist() == [1.0, 2.0, 3.0, 1.0]


@pytest.mark.parametrize(
    "changed",
    [
        {"tree_roots": [0, 0]},
        {"tree_roots": [1]},
        {"tree_roots": [0, 1]},
        {"tree_roots": [-1]},
        {"tree_roots": [2]},
        {"nodes_truenodeids": [1, 1]},
        {"nodes_truenodeids": [0, 3]},
        {"nodes_truenodeids": [-1, 1]},
        {"nodes_falsenodeids": [0, 2]},
        {"nodes_falsenodeids": [7, 2]},
        {"nodes_trueleafs": [0, 1]},
    ],
)
def test_what_is_named_twice_never_or_from_nowhere_is_no_tree(changed: dict[str, Any]) -> None:
    assert refusal(**changed) == "its graph has trees that are no trees"


def test_a_circle_beside_a_tree_is_refused() -> None:
    """Branches 1 and 2 lead to each other; each is named once, but no root leads there."""
    circle = chain(3) | {
        "nodes_truenodeids": [0, 1, 2],
        "nodes_falsenodeids": [3, 2, 1],
        "nodes_falseleafs": [1, 0, 0],
    }
    assert refusal(**circle) == "its graph has trees of more than 1,000 levels, or circles"


def test_a_chain_on_which_recursion_would_end_is_refused() -> None:
    check_graph(trees(**chain(tree_check.MOST_LEVELS)))
    assert refusal(**chain(tree_check.MOST_LEVELS + 1)) == "its graph has trees of more than 1,000 levels, or circles"


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_featureids": [0, -1]},
        {"nodes_featureids": [0, tree_check.MOST_FEATURES]},
        {"leaf_targetids": [0, 0, 1]},
        {"leaf_targetids": [0, -1, 0]},
        {"nodes_falseleafs": [0, 2]},
        {"nodes_missing_value_tracks_true": [0, -1]},
    ],
)
def test_numbers_out_of_range_are_refused(changed: dict[str, Any]) -> None:
    assert refusal(**changed) == "its graph has trees with impossible numbers"


@pytest.mark.parametrize("name", [name for name, value in TREE.items() if not isinstance(value, int) and name != "tree_roots"])
def test_a_part_that_is_longer_than_the_others_is_refused(name: str) -> None:
    value = TREE[name]
    longer = np.append(value, value[-1:]) if isinstance(value, np.ndarray) else [*value, value[-1]]
    assert refusal(**{name: longer}) == "its graph has trees whose parts do not fit together"


@pytest.mark.parametrize("name", TREE)
def test_a_part_that_is_missing_is_refused(name: str) -> None:
    assert refusal(**{name: None}) == "its graph has trees of other parts than those that are taken"


def test_parts_that_nobody_needs_are_refused() -> None:
    more = {"membership_values": np.array([1.0, np.nan], dtype=np.float32)}
    assert refusal(**more) == "its graph has trees of other parts than those that are taken"
    assert refusal(nodes_splits=[1, 2]) == "its graph has trees of other parts than those that are taken"


def test_a_part_that_is_given_twice_is_refused() -> None:
    model = onnx.load_from_string(trees())
    again = next(attribute for attribute in model.graph.node[0].attribute if attribute.name == "tree_roots")
    model.graph.node[0].attribute.append(again)
    with pytest.raises(GraphRefused, match="other parts than those that are taken"):
        check_graph(model.SerializeToString())


def test_trees_that_do_more_than_compare_and_add_up_are_refused() -> None:
    assert refusal(nodes_modes=np.array([0, 6], dtype=np.uint8)) == "its graph has trees that branch by more than size"
    assert refusal(aggregate_function=0) == "its graph has trees that do more than add up"
    assert refusal(post_transform=2) == "its graph has trees that do more than add up"


@pytest.mark.parametrize("targets", [0, -4, tree_check.MOST_TARGETS + 1, 2**40])
def test_a_number_of_sums_that_nobody_needs_is_refused(targets: int) -> None:
    assert refusal(n_targets=targets).endswith("sums; at most 1,000 are taken")


def test_what_trees_take_in_memory_counts_among_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tensors, nodes = 8 * 16, 8 * 7, 5 * tree_check.BYTES_A_NODE
    monkeypatch.setattr(graph_check, "MOST_CONSTANT_BYTES", whole + tensors + nodes)
    check_graph(trees())
    monkeypatch.setattr(graph_check, "MOST_CONSTANT_BYTES", whole + tensors + nodes - 1)
    assert "constants of more than" in refusal()


def test_the_operators_of_trees_in_single_precision_are_no_longer_taken() -> None:
    node = helper.make_node("TreeEnsembleRegressor", ["numbers"], ["values"], domain="ai.onnx.ml")
    with pytest.raises(GraphRefused, match="uses the operator TreeEnsembleRegressor"):
        check_graph(graph_of([node]).SerializeToString())
