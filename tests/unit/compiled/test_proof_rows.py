"""The proof's rows are where trees turn, and show a graph that rounds where scikit-learn does not, or does not where it does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch
from app.prediction.compiled.sessions import CompiledGraph
from app.prediction.worker.compiling import seams, tree_graphs
from app.prediction.worker.compiling.graphs import Form, Outputs, to_graph
from app.prediction.worker.compiling.rows import THRESHOLD_ROWS, RowMaker
from app.prediction.worker.compiling.thresholds import thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.unit

WIDTH = 4
SIGNATURE = Signature(tuple(Column(f"x{i}", ColumnType.NUMBER) for i in range(WIDTH)), InputKind.ARRAY)
RNG = np.random.default_rng(8)
X = RNG.normal(size=(600, WIDTH)) * [100.0, 1.0, 1e-3, 1.0] + [0.0, 1e3, 0.0, 0.0]
Y = X[:, 0] / 100 + X[:, 2] * 1e3 + X[:, 3]
FAMILIES = {"histogram": HistGradientBoostingRegressor(max_iter=30), "forest": RandomForestRegressor(20, random_state=0)}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param].fit(X, Y)


@pytest.fixture(scope="module", autouse=True)
def converter() -> Iterator[None]:
    """skl2onnx as it is in a locked child, and afterwards as it was."""
    from skl2onnx.common import _registration
    from skl2onnx.common._container import ModelComponentContainer

    kept = [dict(pool) for pool in (_registration._converter_pool, _registration._shape_calculator_pool)]
    add_node = ModelComponentContainer.add_node
    seams.mend()
    yield
    ModelComponentContainer.add_node = add_node
    for pool, before in zip((_registration._converter_pool, _registration._shape_calculator_pool), kept, strict=True):
        pool.clear()
        pool.update(before)


def own_thresholds(estimator: Any, column: int) -> NDArray[np.float64]:
    """Read from the estimator itself, not as the code under test reads them."""
    if isinstance(estimator, RandomForestRegressor):
        trees = [held.tree_ for held in estimator.estimators_]
        return np.concatenate([tree.threshold[tree.feature == column] for tree in trees])
    nodes = np.concatenate([stage[0].nodes for stage in estimator._predictors])
    return np.asarray(nodes["num_threshold"][(nodes["is_leaf"] == 0) & (nodes["feature_idx"] == column)])


def rows_of(estimator: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(all rows of the proof, those among them that are made on thresholds)."""
    maker = RowMaker(SIGNATURE, Batch(30, X[:30]), thresholds(estimator, WIDTH), [])
    numbers = maker.batch().numbers
    return numbers, numbers[maker.ordinary : maker.ordinary + THRESHOLD_ROWS]


def test_rows_on_thresholds_sit_on_the_estimators_own_thresholds(family: Any) -> None:
    _, rows = rows_of(family)
    own = [own_thresholds(family, column) for column in range(WIDTH)]
    assert all(len(values) for values in own)
    on = [bool((own[i % WIDTH] == row[i % WIDTH]).any()) for i, row in enumerate(rows)]
    assert sum(on) >= THRESHOLD_ROWS // 7  # one of seven; the others are right beside them
    beside = [float(np.abs(own[i % WIDTH] / row[i % WIDTH] - 1.0).min()) for i, row in enumerate(rows)]
    assert max(beside) < 2e-7  # two numbers of 32 bits next to each other are 1.2e-7 apart at most


def test_on_many_of_these_rows_rounding_to_32_bits_turns_a_branch(family: Any) -> None:
    _, rows = rows_of(family)
    values = np.array([row[i % WIDTH] for i, row in enumerate(rows)])
    own = [own_thresholds(family, column) for column in range(WIDTH)]
    turned = [bool(((value <= own[i % WIDTH]) != (float(np.float32(value)) <= own[i % WIDTH])).any()) for i, value in enumerate(values)]
    assert sum(turned) >= 30


def test_thresholds_behind_a_scaler_are_met_in_the_scaled_numbers(family: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), type(family)(**family.get_params())).fit(X, Y)
    _, rows = rows_of(pipeline)
    scaled = pipeline[0].transform(rows)
    own = [own_thresholds(pipeline[-1], column) for column in range(WIDTH)]
    assert sum(bool((own[i % WIDTH] == row[i % WIDTH]).any()) for i, row in enumerate(scaled)) >= 30


@pytest.mark.parametrize("rounds", [True, False])
def test_a_graph_that_rounds_otherwise_than_scikit_learn_is_found_out(family: Any, rounds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    right = rounds == isinstance(family, RandomForestRegressor)
    as_it_is = tree_graphs.forest_of
    monkeypatch.setattr(tree_graphs, "forest_of", lambda estimator: replace(as_it_is(estimator), rounds=rounds))
    data = to_graph(family, SIGNATURE, Task.REGRESSION, Form(True), Outputs(probabilities=False, labels=True))
    numbers, _ = rows_of(family)
    found = CompiledGraph.from_bytes(data, SIGNATURE, Task.REGRESSION, 0).answer(Batch(len(numbers), numbers)).scores.values
    assert found is not None
    off = np.abs(found - family.predict(numbers))
    assert (off.max() < 1e-12) if right else ((off > 1e-6).sum() >= 10)
