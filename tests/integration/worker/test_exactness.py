"""What is served answers as scikit-learn does in the notebook that trained it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from app.kernel.clock import Deadline
from app.kernel.signature import ColumnType, InputKind, Task
from app.prediction.features import batch_from_rows
from tests.support.models import TEXTS, json_rows, mixed_frame, numbers_frame

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Lab

pytestmark = pytest.mark.integration
FRAME = numbers_frame()
MIXED = mixed_frame()
NAMED = np.where(FRAME["f0"] > 0, "ja", "nein")
THREE = np.digitize(FRAME["f0"], [-0.5, 0.5])
TARGET = (FRAME["f0"] * 3 + FRAME["f2"]).to_numpy()
SEEN_OFTEN = np.where(MIXED["visits"] > 4, "often", "seldom")
HOLES = FRAME.mask(np.random.default_rng(3).random(FRAME.shape) < 0.1)
OBJECTS = MIXED.drop(columns="member").astype(object)
NONES = pd.DataFrame({"city": pd.Series(["Oslo", None, "Riga", "Oslo"] * 10, dtype=object), "n": np.arange(40.0)})


def _columns(**options: Any) -> Any:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]), (OneHotEncoder(**options), ["city"]), remainder="passthrough"
    )


def _categories() -> pd.DataFrame:
    return MIXED.assign(city=MIXED["city"].astype("category"))


CLASSIFIERS: dict[str, tuple[Any, Any, Any]] = {
    "scaled logistic on a frame": (make_pipeline(StandardScaler(), LogisticRegression()), FRAME, NAMED),
    "logistic on an array, integer classes": (LogisticRegression(), FRAME.to_numpy(), THREE),
    "boolean classes": (LogisticRegression(), FRAME, FRAME["f0"] > 0),
    "float classes": (DecisionTreeClassifier(), FRAME.to_numpy(), THREE.astype(float)),
    "mixed frame": (make_pipeline(_columns(), LogisticRegression()), MIXED, SEEN_OFTEN),
    "mixed frame, unknown categories ignored": (
        make_pipeline(_columns(handle_unknown="ignore"), RandomForestClassifier(10, n_jobs=2)),
        MIXED,
        SEEN_OFTEN,
    ),
    "columns chosen by type": (
        make_pipeline(
            make_column_transformer(
                (OneHotEncoder(), make_column_selector(dtype_include="str")),
                (SimpleImputer(), make_column_selector(dtype_include=np.number)),
            ),
            GaussianNB(),
        ),
        MIXED,
        SEEN_OFTEN,
    ),
    "columns chosen by an index": (
        make_pipeline(
            make_column_transformer((StandardScaler(), MIXED.columns[:2]), (OrdinalEncoder(), MIXED.columns[2:])),
            HistGradientBoostingClassifier(max_iter=5),
        ),
        MIXED,
        SEEN_OFTEN,
    ),
    "boosting with categories by type": (HistGradientBoostingClassifier(max_iter=5), _categories(), SEEN_OFTEN),
    "boosting with missing values": (HistGradientBoostingClassifier(max_iter=5), HOLES, NAMED),
    "boosting with categories in an array": (
        HistGradientBoostingClassifier(max_iter=5, categorical_features=[1]),
        MIXED[["age", "visits"]].to_numpy(),
        SEEN_OFTEN,
    ),
    "object array with texts": (
        make_pipeline(make_column_transformer((OneHotEncoder(), [2]), (SimpleImputer(), [0, 1])), LogisticRegression()),
        OBJECTS.to_numpy(),
        SEEN_OFTEN,
    ),
    "missing texts learnt as None": (
        make_pipeline(make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"), LogisticRegression(max_iter=1000)),
        NONES,
        [0, 1] * 20,
    ),
    "imputed texts": (
        make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["city"]), (KNNImputer(), ["age", "visits"])
            ),
            LogisticRegression(),
        ),
        MIXED,
        SEEN_OFTEN,
    ),
    "target encoder": (
        make_pipeline(make_column_transformer((TargetEncoder(random_state=0), ["city"]), (SimpleImputer(), ["age"])), LogisticRegression()),
        MIXED,
        SEEN_OFTEN,
    ),
    "tf-idf": (make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, [1, 0] * 4),
    "character n-grams and no probabilities": (
        make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), strip_accents="unicode"), LinearSVC()),
        TEXTS,
        ["gut", "schlecht"] * 4,
    ),
    "union of vectorisers": (
        make_pipeline(make_union(CountVectorizer(), TfidfVectorizer(analyzer="char")), ComplementNB()),
        TEXTS,
        [1, 0] * 4,
    ),
    "hashed texts, many classes": (
        make_pipeline(HashingVectorizer(n_features=64), SGDClassifier(loss="log_loss", random_state=0)),
        TEXTS,
        [0, 1, 2, 3] * 2,
    ),
    "text and numbers in a frame": (
        make_pipeline(make_column_transformer((TfidfVectorizer(), "review"), (StandardScaler(), ["stars"])), LogisticRegression()),
        pd.DataFrame({"review": TEXTS, "stars": np.arange(8.0)}),
        [1, 0] * 4,
    ),
    "linear svc": (LinearSVC(), FRAME, NAMED),
    "ridge classifier": (RidgeClassifier(), FRAME.to_numpy(), NAMED),
    "perceptron": (Perceptron(), FRAME, THREE),
    "svc": (SVC(), FRAME, THREE),
    "k nearest neighbours": (KNeighborsClassifier(n_jobs=2), FRAME, NAMED),
    "k nearest neighbours by brute force": (KNeighborsClassifier(algorithm="brute"), FRAME, NAMED),
    "gaussian process": (GaussianProcessClassifier(1.0 * RBF(1.0)), FRAME.to_numpy(), THREE),
    "perceptrons in layers": (make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=30, random_state=0)), FRAME, THREE),
    "stacking": (
        StackingClassifier([("tree", DecisionTreeClassifier(max_depth=3)), ("nb", GaussianNB())], LogisticRegression(), cv=3),
        FRAME,
        NAMED,
    ),
    "soft voting": (VotingClassifier([("lr", LogisticRegression()), ("nb", GaussianNB())], voting="soft", n_jobs=2), FRAME, NAMED),
    "hard voting": (VotingClassifier([("lr", LogisticRegression()), ("nb", GaussianNB())]), FRAME, THREE),
    "calibrated": (CalibratedClassifierCV(LinearSVC(), cv=3), FRAME, NAMED),
    "calibrated isotonic": (CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=3), FRAME, NAMED),
    "grid search": (
        GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, scoring="f1_macro", cv=3
        ),
        FRAME,
        THREE,
    ),
    "tuned threshold": (TunedThresholdClassifierCV(LogisticRegression(), cv=3), FRAME, FRAME["f0"] > 0.8),
    "a low threshold": (FixedThresholdClassifier(LogisticRegression(), threshold=0.05), FRAME, FRAME["f0"] > 0),  # not the likelier class
    "one against the rest": (OneVsRestClassifier(LogisticRegression()), FRAME, THREE),
    "ada boost": (AdaBoostClassifier(n_estimators=5), FRAME, NAMED),
    "bagging": (BaggingClassifier(DecisionTreeClassifier(), n_estimators=5, max_features=0.5, n_jobs=2, random_state=0), FRAME, NAMED),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=10), FRAME, THREE),
    "discriminant": (LinearDiscriminantAnalysis(), FRAME, THREE),
    "selected polynomials": (
        make_pipeline(
            PolynomialFeatures(2), SelectKBest(f_classif, k=5), LogisticRegressionCV(cv=3, l1_ratios=(0,), use_legacy_attributes=False)
        ),
        FRAME,
        NAMED,
    ),
    "numpy function": (make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()), FRAME.abs(), NAMED),
    "dummy": (DummyClassifier(strategy="prior"), FRAME, NAMED),
}
REGRESSORS: dict[str, tuple[Any, Any, Any]] = {
    "ridge": (make_pipeline(StandardScaler(), Ridge()), FRAME, TARGET),
    "column target": (Ridge(), FRAME.to_numpy(), TARGET.reshape(-1, 1)),
    "boosting": (HistGradientBoostingRegressor(max_iter=5), HOLES, TARGET),
    "forest": (ExtraTreesRegressor(10, n_jobs=2), FRAME, TARGET),
    "transformed target": (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), FRAME.abs(), np.abs(TARGET)),
    "splines and bins": (make_pipeline(make_union(SplineTransformer(), KBinsDiscretizer(3)), Ridge()), FRAME, TARGET),
    "svr": (SVR(), FRAME, TARGET),
    "neighbours": (KNeighborsRegressor(weights="distance"), FRAME, TARGET),
    "gaussian process": (GaussianProcessRegressor(RBF() + WhiteKernel()), FRAME, TARGET),
    "partial least squares": (PLSRegression(), FRAME, TARGET),
    "poisson": (PoissonRegressor(), FRAME, np.abs(TARGET)),
    "isotonic": (IsotonicRegression(out_of_bounds="clip"), FRAME[["f0"]], TARGET),
    "dummy": (DummyRegressor(), FRAME, TARGET),
}


def _rows(given: Any) -> list[Any]:
    if isinstance(given, pd.DataFrame):
        return json_rows(given)
    if isinstance(given, list):
        return [{"text": text} for text in given]
    return [[None if pd.isna(value) else value for value in row] for row in given[:12].tolist()]


def _fitted(estimator: Any, given: Any, target: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(given, target)


@pytest.mark.parametrize("name", CLASSIFIERS)
async def test_a_classifier_answers_as_in_the_notebook(lab: Lab, name: str) -> None:
    model = _fitted(*CLASSIFIERS[name])
    given = CLASSIFIERS[name][1]
    rows = _rows(given)
    head = given.head(len(rows)) if isinstance(given, pd.DataFrame) else given[: len(rows)]
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    scores = await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(20))
    await runtime.close()
    assert report.classes is not None
    assert scores.labels is not None
    assert [report.classes[i] for i in scores.labels] == [str(label) for label in model.predict(head).tolist()]
    if hasattr(model, "predict_proba"):
        assert scores.probabilities is not None
        np.testing.assert_allclose(scores.probabilities, model.predict_proba(head), rtol=0, atol=1e-9)
    else:
        assert scores.probabilities is None


@pytest.mark.parametrize("name", REGRESSORS)
async def test_a_regressor_answers_as_in_the_notebook(lab: Lab, name: str) -> None:
    model = _fitted(*REGRESSORS[name])
    given = REGRESSORS[name][1]
    rows = _rows(given)
    head = given.head(len(rows)) if isinstance(given, pd.DataFrame) else given[: len(rows)]
    artifact = lab.save(model)
    report = await lab.inspect(artifact, Task.REGRESSION, rows)
    runtime = await lab.open(artifact, report, Task.REGRESSION)
    scores = await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(20))
    await runtime.close()
    assert report.classes is None
    np.testing.assert_allclose(scores.values, np.asarray(model.predict(head)).ravel(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["mixed frame", "tf-idf", "boosting with categories by type", "object array with texts", "svc"])
async def test_a_signature_needs_no_sample_where_the_estimator_tells(lab: Lab, name: str) -> None:
    model = _fitted(*CLASSIFIERS[name])
    with_sample = await lab.inspect(model, rows=_rows(CLASSIFIERS[name][1]))
    without = await lab.inspect(model)
    assert without.failure is None
    assert without.signature is not None
    assert with_sample.signature is not None
    names = [column.name for column in with_sample.signature.columns]
    assert [c.type for c in without.signature.columns if c.name in ("city", "text")] == [
        ColumnType.STRING for name in names if name in ("city", "text")
    ]
    assert without.signature.kind is with_sample.signature.kind


async def test_the_mixed_frame_has_the_signature_that_its_encoders_and_sample_say(lab: Lab) -> None:
    model = _fitted(*CLASSIFIERS["mixed frame"])
    report = await lab.inspect(model, rows=_rows(MIXED))
    assert report.signature is not None
    assert report.signature.kind is InputKind.FRAME
    assert [(c.name, c.type.value, c.required, c.categories) for c in report.signature.columns] == [
        ("age", "NUMBER", False, None),
        ("visits", "NUMBER", False, None),
        ("city", "STRING", True, ("Oslo", "Riga", "Łódź", "東京")),
        ("member", "BOOLEAN", True, None),
    ]
