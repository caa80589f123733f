"""Each estimator: what serves it, and that a graph answers fresh rows as scikit-learn does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from app.kernel.signature import Task
from app.prediction.compiled.compare import Yardstick, difference, rows_of
from app.prediction.compiled.sessions import CompiledGraph
from app.prediction.features import batch_from_rows
from app.prediction.worker.calling import Caller
from tests.integration.compiling.conftest import Version, Workshop
from tests.support.models import TEXTS, json_rows, mixed_frame, quietly_fitted

pytestmark = [pytest.mark.integration, pytest.mark.slow]

C, R = Task.CLASSIFICATION, Task.REGRESSION
RNG = np.random.default_rng(5)
X = RNG.normal(size=(400, 6)) * [100.0, 1.0, 1.0, 1e-3, 1.0, 1.0] + [0.0, 1e3, 0.0, 0.0, 0.0, 0.0]
SIGNAL = X[:, 0] / 100 + X[:, 2] - X[:, 3] * 1e3 + RNG.normal(size=400) / 2
TWO, WORDS = (SIGNAL > 0).astype(int), np.array(["low", "middling", "high"])[np.digitize(SIGNAL, [-0.7, 0.7])]
LETTERS = np.array(list("abcdefghij"))[np.digitize(SIGNAL, np.quantile(SIGNAL, np.linspace(0.1, 0.9, 9)))]
TARGET, COUNTS = SIGNAL * 80 + 1e5, np.abs(SIGNAL) * 5
SCALE = StandardScaler

COMPILED: dict[str, tuple[Any, Any, Task]] = {
    "scaled-logistic": (make_pipeline(SCALE(), LogisticRegression()), TWO, C),
    "logistic-three-words": (make_pipeline(SCALE(), LogisticRegression()), WORDS, C),
    "histogram-boosting": (HistGradientBoostingClassifier(max_iter=60), TWO, C),
    "histogram-boosting-three-words": (HistGradientBoostingClassifier(max_iter=20), WORDS, C),
    "random-forest": (RandomForestClassifier(60, random_state=0), TWO, C),
    "scaled-random-forest-three-words": (make_pipeline(SCALE(), RandomForestClassifier(20, random_state=0)), WORDS, C),
    "random-forest-many-classes": (RandomForestClassifier(80, max_depth=6, random_state=0), LETTERS, C),
    "gradient-boosting-three-words": (GradientBoostingClassifier(n_estimators=15), WORDS, C),
    "gradient-boosting": (GradientBoostingClassifier(n_estimators=40), TWO, C),
    "gradient-boosting-exponential": (GradientBoostingClassifier(n_estimators=20, loss="exponential"), TWO, C),
    "mlp": (make_pipeline(SCALE(), MLPClassifier(max_iter=60)), TWO, C),
    "gaussian-bayes": (GaussianNB(), TWO, C),
    "tree": (DecisionTreeClassifier(), WORDS, C),
    "extra-trees": (ExtraTreesClassifier(40, random_state=0), TWO, C),
    "calibrated-linear-svc": (make_pipeline(SCALE(), CalibratedClassifierCV(LinearSVC())), TWO, C),
    "stacking": (StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=4))]), TWO, C),
    "voting": (VotingClassifier([("a", GaussianNB()), ("b", make_pipeline(SCALE(), LogisticRegression()))], voting="soft"), TWO, C),
    "linear-svc": (make_pipeline(SCALE(), LinearSVC()), WORDS, C),
    "ridge-classifier": (make_pipeline(SCALE(), RidgeClassifier()), TWO, C),
    "sgd-log": (make_pipeline(SCALE(), SGDClassifier(loss="log_loss", random_state=0)), TWO, C),
    "quadratic": (QuadraticDiscriminantAnalysis(reg_param=0.1), TWO, C),
    "ada-boost": (AdaBoostClassifier(n_estimators=10), TWO, C),
    "ada-boost-three-words": (AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=10), WORDS, C),
    "voting-of-trees": (
        VotingClassifier([("a", RandomForestClassifier(9)), ("b", HistGradientBoostingClassifier(max_iter=9))], voting="soft"),
        TWO,
        C,
    ),
    "stacking-of-trees": (StackingClassifier([("a", RandomForestClassifier(9)), ("b", ExtraTreesClassifier(9))]), WORDS, C),
    "calibrated-forest": (CalibratedClassifierCV(RandomForestClassifier(9)), TWO, C),
    "bagging": (BaggingClassifier(n_estimators=8), WORDS, C),
    "tree-of-two-classes": (DecisionTreeClassifier(max_depth=4), TWO, C),
    "tree-of-one-leaf": (DecisionTreeRegressor(), np.full(400, 2.5), R),
    "ridge": (Ridge(), TARGET, R),
    "linear": (LinearRegression(), TARGET, R),
    "elastic-net": (make_pipeline(SCALE(), ElasticNet()), TARGET, R),
    "mlp-regressor": (make_pipeline(SCALE(), MLPRegressor(max_iter=60)), TARGET - 1e5, R),
    "poisson": (make_pipeline(SCALE(), PoissonRegressor()), COUNTS, R),
    "svr": (make_pipeline(SCALE(), SVR()), SIGNAL, R),
    "extra-trees-regressor": (ExtraTreesRegressor(40, random_state=0), TARGET, R),
    "ada-boost-regressor": (AdaBoostRegressor(n_estimators=8, random_state=0), TARGET, R),
    "random-forest-regressor": (RandomForestRegressor(40, random_state=0), TARGET, R),
    "gradient-boosting-regressor": (GradientBoostingRegressor(n_estimators=40), TARGET, R),
    "histogram-boosting-regressor": (HistGradientBoostingRegressor(max_iter=40), TARGET, R),
    "histogram-boosting-poisson": (HistGradientBoostingRegressor(max_iter=20, loss="poisson"), COUNTS, R),
    "tree-regressor": (DecisionTreeRegressor(), TARGET, R),
    "bagging-regressor": (BaggingRegressor(n_estimators=8), TARGET, R),
}
NATIVE: dict[str, tuple[Any, Any, Task, str]] = {
    "neighbours": (KNeighborsClassifier(), TWO, C, "its graph has a graph within a node"),
    "gaussian-process": (GaussianProcessRegressor(), SIGNAL, R, "its graph has a graph within a node"),
    "target-transformed": (
        TransformedTargetRegressor(LinearRegression(), func=np.cbrt, inverse_func=np.sinh, check_inverse=False), SIGNAL, R,
        "there is no converter for TransformedTargetRegressor",
    ),
    "svc-probability": (make_pipeline(SCALE(), SVC(probability=True)), TWO, C, "from scikit-learn's, where 2.5e-10 is allowed"),
    "isotonic-calibration": (CalibratedClassifierCV(GaussianNB(), method="isotonic"), TWO, C, "scikit-learn's"),
}  # fmt: skip


def objects(data: Any, count: int) -> list[dict[str, Any]]:
    return [{f"x{i}": float(value) for i, value in enumerate(row)} for row in data[:count]]


def fresh_rows(count: int, far: float) -> Any:
    """Rows that neither the training nor the proof has seen, a third of them far out."""
    rng = np.random.default_rng(99)
    rows = rng.normal(size=(count, X.shape[1])) * X.std(axis=0) * rng.choice([1.0, 3.0, far], size=(count, 1)) + X.mean(axis=0)
    return np.where(rng.random(rows.shape) < 0.1, X[rng.integers(len(X), size=count)], rows)


def check(version: Version, estimator: Any, task: Task, rows: list[dict[str, Any]]) -> int:
    """How many of the rows the graph answered; each within the tolerance, and of the estimator's class."""
    assert version.compiled.graph is not None
    proof = version.compiled.proof
    batch = batch_from_rows(version.signature, rows)
    with np.errstate(all="ignore"):
        native = Caller(estimator, version.signature, task, version.classes)(batch)
    answer = CompiledGraph.from_bytes(version.compiled.graph, version.signature, task, len(version.classes)).answer(batch)
    sure = np.setdiff1d(np.arange(batch.rows), answer.doubtful)
    found = difference(rows_of(native, sure), rows_of(answer.scores, sure), Yardstick(proof.tolerance or 0.0, proof.middle))
    assert found.fault is None
    return len(sure)


@pytest.mark.parametrize("name", COMPILED)
async def test_it_is_compiled_and_answers_fresh_rows_as_scikit_learn_does(workshop: Workshop, name: str) -> None:
    estimator, target, task = COMPILED[name]
    quietly_fitted(estimator, X, target)
    version = await workshop.version(estimator, task, objects(X, 30))
    proof = version.compiled.proof
    assert proof.reason is None
    assert proof.rows >= 1_000
    assert (proof.speed_up or 0) > 1
    far = 3.0 if name == "poisson" else 1e4  # scikit-learn's own answers overflow beyond
    rows = objects(np.vstack([fresh_rows(1_000, far), X]), 1_400)
    assert check(version, estimator, task, rows) > 1_000


@pytest.mark.parametrize("name", NATIVE)
async def test_it_stays_with_scikit_learn_and_says_why(workshop: Workshop, name: str) -> None:
    estimator, target, task, reason = NATIVE[name]
    quietly_fitted(estimator, X, target)
    compiled = (await workshop.version(estimator, task, objects(X, 30))).compiled
    assert compiled.graph is None
    assert reason in (compiled.proof.reason or "")


async def test_categories_of_histogram_boosting_stay_with_scikit_learn(workshop: Workshop) -> None:
    coded = np.column_stack([X[:, 0], np.digitize(X[:, 2], [-1.0, 0.0, 1.0])])
    estimator = HistGradientBoostingClassifier(max_iter=5, categorical_features=[1]).fit(coded, TWO)
    compiled = (await workshop.version(estimator, C, objects(coded, 30))).compiled
    assert compiled.graph is None
    assert compiled.proof.reason == "histogram boosting with categorical features"


async def test_texts_stay_with_scikit_learn(workshop: Workshop) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [1, 0] * 4)
    compiled = (await workshop.version(estimator, C)).compiled
    assert compiled.graph is None
    assert compiled.proof.reason == "a graph does not split texts into words as scikit-learn does"


@pytest.mark.parametrize(
    "last", [LogisticRegression(), RandomForestClassifier(20, random_state=0), HistGradientBoostingClassifier(max_iter=20)]
)
@pytest.mark.parametrize("unknown", ["error", "ignore"])
async def test_frames_of_texts_and_numbers_are_compiled(workshop: Workshop, last: Any, unknown: str) -> None:
    frame = mixed_frame(200)
    numbers = make_pipeline(SimpleImputer(), SCALE())
    columns = make_column_transformer(
        (numbers, ["visits", "age"]), (OneHotEncoder(handle_unknown=unknown, sparse_output=False), ["city"]), remainder="passthrough"
    )
    estimator = make_pipeline(columns, last).fit(frame, np.where(frame["visits"] > 4, "often", "seldom"))
    version = await workshop.version(estimator, C, json_rows(frame, 40))
    assert version.compiled.proof.reason is None
    fresh = mixed_frame(400).sample(frac=1.0, random_state=1)
    assert check(version, estimator, C, json_rows(fresh, 400)) == 400


async def test_ordinal_categories_and_missing_numbers_are_compiled(workshop: Workshop) -> None:
    frame = mixed_frame(200)
    columns = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city"]), ("passthrough", ["age", "visits"])
    )
    estimator = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20)).fit(frame, frame["age"].fillna(0) > 40)
    version = await workshop.version(estimator, C, json_rows(frame, 40))
    assert version.compiled.proof.reason is None
    check(version, estimator, C, json_rows(mixed_frame(400), 400))


@pytest.mark.parametrize("estimator", [RandomForestRegressor(20, random_state=0), HistGradientBoostingRegressor(max_iter=20)])
async def test_a_missing_number_takes_the_branch_that_it_took_in_training(workshop: Workshop, estimator: Any) -> None:
    holes = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
    estimator.fit(holes, SIGNAL + np.isnan(holes[:, 0]) * 3)
    rows = [{k: None if np.isnan(v) else v for k, v in row.items()} for row in objects(holes, 400)]
    version = await workshop.version(estimator, R, rows[:30])
    assert version.compiled.proof.reason is None
    assert check(version, estimator, R, rows) == 400


async def test_a_signature_in_another_order_than_the_training_is_followed(workshop: Workshop) -> None:
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(6)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = make_pipeline(SCALE(), LogisticRegression()).fit(frame, TWO)
    from uuid import uuid4

    from app.kernel.inspection import InspectionRequest
    from app.kernel.signature import Column, ColumnType
    from app.prediction.runtimes.compiler import Compiler
    from tests.support.models import dump

    given = tuple(Column(f"x{i}", ColumnType.NUMBER) for i in (3, 0, 5, 1, 2, 4))
    path = dump(estimator, workshop.running.folder / "order.joblib")
    report = await workshop.running.connect().inspect(uuid4(), path, InspectionRequest(C, given, ()), 60.0)
    assert report.signature is not None
    compiled = await Compiler(workshop.running.socket).compile(uuid4(), path, report.signature, C, report.classes or (), (), 60.0)
    assert compiled.proof.reason is None
    check(Version(report.signature, report.classes or (), compiled), estimator, C, objects(X, 400))
