"""Answers equal scikit-learn's in a notebook, and bad rows are named: through GraphQL, sandbox and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from tests.support.service import BATCH, PREDICT

if TYPE_CHECKING:
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

RNG = np.random.default_rng(5)
N = 90
NUMBERS = RNG.normal(size=(N, 3))
FRAME = pd.DataFrame(
    {
        "age": np.where(RNG.random(N) < 0.2, np.nan, RNG.integers(18, 90, N)),
        "visits": RNG.integers(0, 9, N),
        "city": pd.Series(np.array(["Oslo", "Łódź", "東京"])[RNG.integers(0, 3, N)]),
        "member": RNG.random(N) < 0.5,
    }
)
TEXTS = [
    f"{a} {b}" for a in ("très bon", "mauvais", "отлично", "ужасно", "great", "bad") for b in ("café", "goût", "製品", "naïve", "stuff")
] * 3
SIGN = (NUMBERS[:, 0] > 0).astype(int)
THREE = np.array(["rød", "grønn", "blå"])[RNG.integers(0, 3, N)]
TEXT_CLASS = np.array([i % 2 for i in range(N)])

ENCODE = ColumnTransformer(
    [
        ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]),
        ("c", OneHotEncoder(handle_unknown="ignore"), ["city", "member"]),
    ]
)
ORDINAL = ColumnTransformer([("c", OrdinalEncoder(), ["city"])], remainder="passthrough")

KINDS: list[tuple[str, Any, Any, Any]] = [
    ("svc-labels-as-text", SVC(probability=True, random_state=0), NUMBERS, THREE),
    ("stacking", StackingClassifier([("a", KNeighborsClassifier()), ("b", LogisticRegression())]), NUMBERS, SIGN),
    ("voting-soft", VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(7))], voting="soft"), NUMBERS, SIGN),
    ("grid-search", GridSearchCV(RandomForestClassifier(5, random_state=0), {"max_depth": [2, 3]}, cv=2), NUMBERS, SIGN),
    ("extra-trees-parallel", ExtraTreesClassifier(9, n_jobs=2, random_state=0), NUMBERS, SIGN.astype(bool)),
    ("no-probabilities", RidgeClassifier(), NUMBERS, THREE),
    ("float-classes", LogisticRegression(), NUMBERS, SIGN + 1.0),
    ("mixed-frame", make_pipeline(ENCODE, LogisticRegression()), FRAME, SIGN),
    ("mixed-frame-boosting", make_pipeline(ORDINAL, HistGradientBoostingClassifier(max_iter=9)), FRAME, THREE),
    ("frame-missing-values", HistGradientBoostingRegressor(max_iter=9), FRAME[["age", "visits"]], NUMBERS[:, 0]),
    ("target-transformed", TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1), NUMBERS, SIGN + 1.0),
    ("gradient-boosting", GradientBoostingRegressor(n_estimators=9), NUMBERS, NUMBERS[:, 1]),
    ("sgd", make_pipeline(StandardScaler(), SGDRegressor(random_state=0)), NUMBERS, NUMBERS[:, 1]),
    ("tfidf", make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()), TEXTS, TEXT_CLASS),
    (
        "text-union",
        make_pipeline(FeatureUnion([("w", CountVectorizer()), ("c", TfidfVectorizer(analyzer="char"))]), MultinomialNB()),
        TEXTS,
        TEXT_CLASS,
    ),
    ("hashing", make_pipeline(HashingVectorizer(n_features=256, alternate_sign=False), MultinomialNB()), TEXTS, TEXT_CLASS),
]


def rows_of(data: Any) -> list[Any]:
    if isinstance(data, pd.DataFrame):
        return [
            {k: None if pd.isna(v) else v for k, v in zip(data.columns, row, strict=True)}
            for row in data.astype(object).to_numpy().tolist()
        ]
    return [[text] for text in data] if isinstance(data, list) else data.tolist()


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    return service.new_tenant("prediction-tests")


@pytest.mark.parametrize(("name", "estimator", "data", "target"), KINDS, ids=[kind[0] for kind in KINDS])
@pytest.mark.filterwarnings("ignore")
def test_answers_equal_scikit_learns(admin: Client, name: str, estimator: Any, data: Any, target: Any) -> None:
    estimator.fit(data, target)
    classifier = hasattr(estimator, "classes_")
    rows = rows_of(data)
    sample = {} if name in ("stacking", "tfidf", "frame-missing-values") else {"sample": rows[:20]}
    admin.serve(name, "CLASSIFICATION" if classifier else "REGRESSION", estimator, **sample)
    batch = admin.ask(BATCH, model=name, rows=rows)["predictBatch"]
    one = admin.predict(name, rows[4], unit="u")
    expected = estimator.predict(data)
    if not classifier:
        np.testing.assert_allclose(batch["values"], expected, rtol=0, atol=1e-9)
        assert one["value"] == pytest.approx(expected[4], abs=1e-9)
        assert (one["label"], batch["labels"], batch["classes"]) == (None, None, None)
        return
    assert batch["labels"] == [str(label) for label in expected]
    assert (one["label"], one["value"]) == (str(expected[4]), None)
    assert batch["classes"] == [str(c) for c in estimator.classes_]
    if not hasattr(estimator, "predict_proba"):
        assert (batch["probabilities"], one["probability"], one["probabilities"]) == (None, None, None)
        return
    chances = estimator.predict_proba(data)
    np.testing.assert_allclose(batch["probabilities"], chances, rtol=0, atol=1e-9)
    assert [p["label"] for p in one["probabilities"]] == batch["classes"]
    assert one["probability"] == pytest.approx(chances[4][batch["classes"].index(one["label"])], abs=1e-9)


def test_a_matrix_answers_as_rows_do_up_to_ten_thousand(admin: Client) -> None:
    estimator = LogisticRegression().fit(NUMBERS, SIGN)
    admin.serve("matrix", "CLASSIFICATION", estimator)
    data = RNG.normal(size=(10_000, 3))
    answer = admin.ask(BATCH, model="matrix", matrix={"data": data.tolist()})["predictBatch"]
    assert answer["rowCount"] == 10_000
    np.testing.assert_allclose(answer["probabilities"], estimator.predict_proba(data), rtol=0, atol=1e-9)
    reordered = admin.ask(BATCH, model="matrix", matrix={"columns": ["x2", "x0", "x1"], "data": data[:5, [2, 0, 1]].tolist()})
    assert reordered["predictBatch"]["probabilities"] == answer["probabilities"][:5]
    assert admin.refused(BATCH, model="matrix", rows=data[:1].tolist() * 10_001)["extensions"]["code"] == "BAD_USER_INPUT"
    assert admin.refused(BATCH, model="matrix")["extensions"]["code"] == "BAD_USER_INPUT"
    assert admin.refused(BATCH, model="matrix", rows=[], matrix=None)["extensions"]["code"] == "INVALID_FEATURES"


def test_every_wrong_column_is_named_in_one_error(admin: Client) -> None:
    columns = [("n", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]), ("v", StandardScaler(), ["visits"])]
    encode = ColumnTransformer([*columns, ("c", OneHotEncoder(handle_unknown="ignore"), ["city", "member"])])
    admin.serve("named", "CLASSIFICATION", make_pipeline(encode, LogisticRegression()).fit(FRAME, SIGN), sample=rows_of(FRAME)[:20])
    error = admin.refused(PREDICT, model="named", row={"age": "41", "city": 7, "colour": "red", "member": 1})
    assert error["extensions"]["code"] == "INVALID_FEATURES"
    assert [(p["name"], p["problem"]) for p in error["extensions"]["problems"]] == [
        ("age", "TYPE"), ("visits", "MISSING"), ("city", "TYPE"), ("member", "TYPE"), ("colour", "UNKNOWN"),
    ]  # fmt: skip


def test_a_prediction_says_which_version_answered_and_why(admin: Client) -> None:
    admin.serve("why", "CLASSIFICATION", LogisticRegression().fit(NUMBERS, SIGN))
    plain, pinned = admin.predict("why", [1, 2, 3]), admin.predict("why", [1, 2, 3], version=1)
    assert (plain["version"], plain["reason"], plain["degraded"]) == (1, "ALIAS", False)
    assert pinned["reason"] == "PINNED"
    assert UUID(plain["id"]).version == 7
    assert admin.refused(PREDICT, model="why", row=[1, 2, 3], version=1, alias="production")["extensions"]["code"] == "BAD_USER_INPUT"
    assert admin.refused(PREDICT, model="why", row=[1, 2, 3], alias="staging")["extensions"]["code"] == "NOT_FOUND"
    assert admin.refused(PREDICT, model="why", row=[1, 2, 3], version=7)["extensions"]["code"] == "NOT_FOUND"
    assert admin.refused(PREDICT, model="nothing", row=[1])["message"] == "There is no model named 'nothing'."
    assert admin.refused(PREDICT, model="why", row=[1, 2, 3], unit="")["extensions"]["code"] == "BAD_USER_INPUT"


def test_one_failed_alias_leaves_the_others(admin: Client) -> None:
    admin.serve("aliases", "CLASSIFICATION", LogisticRegression().fit(NUMBERS, SIGN))
    query = '{ a: predict(model: "aliases", features: [1, 2, 3]) { version } b: predict(model: "gone", features: [1]) { version } }'
    answer = admin.post(query).json()
    assert answer["data"] == {"a": {"version": 1}, "b": None}
    assert [(e["path"], e["extensions"]["code"]) for e in answer["errors"]] == [(["b"], "NOT_FOUND")]
    assert admin.post(query).headers["cache-control"] == "private, no-store"


def test_rows_of_a_day_are_counted_and_refused_beyond(service: Service) -> None:
    small = service.new_tenant("few-rows", rowsPerDay=10)
    small.serve("model", "CLASSIFICATION", LogisticRegression().fit(NUMBERS, SIGN))
    assert small.ask("{ viewer { quota { rowsLeftToday } } }")["viewer"]["quota"]["rowsLeftToday"] == 10
    small.ask(BATCH, model="model", rows=NUMBERS[:7].tolist())
    error = small.refused(BATCH, model="model", rows=NUMBERS[:4].tolist())
    assert error["extensions"]["code"] == "QUOTA_EXCEEDED"
    small.ask(BATCH, model="model", rows=NUMBERS[:3].tolist())
    assert small.ask("{ viewer { quota { rowsLeftToday } } }")["viewer"]["quota"]["rowsLeftToday"] == 0
