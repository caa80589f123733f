"""Artifacts that cannot be served say why, in words that a data scientist can act on."""

from __future__ import annotations

import functools
import gzip
import os
import pickle
import zlib
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from app.kernel.signature import Column, ColumnType, Task
from tests.support.models import (
    Reducing,
    json_rows,
    logistic_on_array,
    logistic_on_frame,
    mixed_frame_pipeline,
    numbers_frame,
    regressor,
    text_pipeline,
)

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Lab

pytestmark = pytest.mark.integration
FRAME = numbers_frame()
ABOVE = FRAME["f0"] > 0
LIST = "not on the allow-list"


def _object_array(payload: Any) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = payload
    return array


HOSTILE: dict[str, tuple[Any, str]] = {
    "a command": (Reducing(os.system, "true"), "posix.system, which is " + LIST),
    "code": (Reducing(exec, "1"), "builtins.exec"),
    "a command in an object array": (_object_array(Reducing(os.system, "true")), "posix.system"),
    "a partial command": (Reducing(functools.partial, os.system, "true"), "system"),
    "a partial of a harmless function": (Reducing(functools.partial, np.mean), "functools.partial"),
    "another load": (Reducing(joblib.load, "/x"), "joblib"),
    "numpy's load": (Reducing(np.load, "/x"), "numpy.load"),
    "a transformer that runs a command": (make_pipeline(FunctionTransformer(os.system), LogisticRegression()), "posix.system"),
    "getattr": (Reducing(getattr, "", "join"), "builtins.getattr"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_is_not_on_the_list_is_named(lab: Lab, name: str) -> None:
    artifact, reason = HOSTILE[name]
    report = await lab.inspect(artifact)
    assert report.failure is not None
    assert reason in report.failure
    assert LIST in report.failure


FAILURES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a container": (
        {"model": LogisticRegression()},
        {},
        "The artifact holds a dict, which has no predict method. Save the fitted estimator itself",
    ),
    "a transformer": (StandardScaler().fit(FRAME), {}, "holds a transformer"),
    "not fitted": (make_pipeline(StandardScaler(), LogisticRegression()), {}, "not fitted"),
    "clusters": (KMeans(2).fit(FRAME), {}, "Clusterers and outlier detectors"),
    "outliers": (IsolationForest(n_estimators=5).fit(FRAME), {}, "Clusterers and outlier detectors"),
    "a regressor as a classifier": (regressor()[0], {}, "is a regressor, but the model's task is CLASSIFICATION"),
    "a classifier as a regressor": (
        logistic_on_frame()[0],
        {"task": Task.REGRESSION},
        "is a classifier, but the model's task is REGRESSION",
    ),
    "several outputs": (RandomForestClassifier(3).fit(FRAME, np.c_[ABOVE, ABOVE]), {}, "multi-output"),
    "several labels": (KNeighborsClassifier().fit(FRAME, np.c_[ABOVE, ~ABOVE].astype(int)), {}, "multi-output"),
    "several targets": (
        LinearRegression().fit(FRAME, FRAME[["f0", "f1"]]),
        {"task": Task.REGRESSION},
        "multi-output or multi-label (2 answers a row)",
    ),
    "columns that do not fit": (
        logistic_on_frame()[0],
        {"columns": tuple(Column(name, ColumnType.NUMBER) for name in ("f0", "f1", "f2", "height"))},
        "it lacks 'f3' and it has 'height', which the estimator does not know",
    ),
    "too many columns": (
        logistic_on_array()[0],
        {"columns": (Column("a", ColumnType.NUMBER),)},
        "has 1 columns, but the estimator was fitted on 4",
    ),
    "an optional column that is needed": (
        logistic_on_frame()[0],
        {"columns": tuple(Column(f"f{i}", ColumnType.NUMBER, required=i != 2) for i in range(4))},
        "lets f2 be missing",
    ),
    "a row of the sample mistyped": (
        logistic_on_frame()[0],
        {"rows": [*logistic_on_frame()[1][:2], {"f0": "1", "f1": 1, "f2": 1, "f3": 1}]},
        "sample[2], column 'f0': expected a finite number, got a text",
    ),
    "a row that the estimator fails on": (
        logistic_on_frame()[0],
        {"rows": [logistic_on_frame()[1][0], {"f0": None, "f1": 1, "f2": 1, "f3": 1}]},
        "sample[1]: the estimator failed: ValueError: Input X contains NaN",
    ),
    "an unknown category": (
        mixed_frame_pipeline()[0],
        {"rows": [*mixed_frame_pipeline()[1], mixed_frame_pipeline()[1][0] | {"city": "Atlantis"}]},
        "sample[12], column 'city': expected one of Oslo, Riga, Łódź, 東京",
    ),
    "rows of another width": (
        logistic_on_array()[0],
        {"rows": [{"a": 1, "b": 2}]},
        "The rows of the sample have 2 columns, but the estimator was fitted on 4",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_what_cannot_be_served_says_why(lab: Lab, name: str) -> None:
    artifact, options, reason = FAILURES[name]
    report = await lab.inspect(artifact, **options)
    assert report.failure is not None
    assert reason in report.failure


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The artifact is empty."),
        (b"hello, I am no model at all\n", "no joblib file"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (pickle.dumps(logistic_on_frame()[0])[:-200], "damaged"),
        (zlib.compress(pickle.dumps(logistic_on_frame()[0]))[:-50], "damaged"),
        (b"\x1f\x8b" + bytes(50), "damaged"),
        (b"\x80\x04\x8c\x0csklearn.base\x94\x8c\x16BaseEstimator.__init__\x94\x93.", LIST),
        (b"csklearn.linear_model._gone\nGone\n.", "sklearn.linear_model._gone.Gone, which is not there in this service"),
    ],
)
async def test_bytes_that_are_no_artifact_say_so(lab: Lab, content: bytes, reason: str) -> None:
    path = lab.folder / "bytes"
    path.write_bytes(content)
    report = await lab.inspect(path)
    assert report.failure is not None
    assert reason in report.failure


async def test_a_decompression_bomb_meets_the_memory_limit(lab: Lab) -> None:
    path = lab.folder / "bomb"
    mebibyte = gzip.compress(b"B" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20))
    path.write_bytes(gzip.compress(b"\x80\x04(") + mebibyte * 1100 + gzip.compress(b"l."))
    assert path.stat().st_size < 2 << 20
    report = await lab.inspect(path, timeout_s=60)
    assert report.failure == "It needs more memory than a model may use here (1024 MiB)."


@pytest.mark.parametrize("compress", [3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
async def test_compressed_artifacts_are_taken(lab: Lab, compress: Any) -> None:
    model, rows = logistic_on_frame()
    report = await lab.inspect(lab.save(model, compress), rows=rows)
    assert report.failure is None


async def test_a_plain_pickle_is_taken_too(lab: Lab) -> None:
    model, rows = text_pipeline()
    path = lab.folder / "plain.pkl"
    path.write_bytes(pickle.dumps(model))
    report = await lab.inspect(path, rows=rows)
    assert report.failure is None
    assert report.estimator == "Pipeline(TfidfVectorizer, LogisticRegression)"


async def test_an_older_scikit_learn_is_named(lab: Lab) -> None:
    model = LogisticRegression().fit(FRAME, ABOVE)
    old = pickle.dumps(model).replace(b"_sklearn_version\x94\x8c\x051.9.1", b"_sklearn_version\x94\x8c\x051.7.2")
    path = lab.folder / "old.pkl"
    path.write_bytes(old)
    report = await lab.inspect(path, rows=json_rows(FRAME))
    assert report.failure is None
    assert report.environment["trained_with"] == "scikit-learn 1.7.2"
    assert "Trained with scikit-learn 1.7.2" in report.warnings[0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_what_this_scikit_learn_has_not_is_named_with_both_versions(lab: Lab, protocol: int, pack: Any) -> None:
    model = LogisticRegression().fit(FRAME, ABOVE)
    path = lab.folder / "older.pkl"
    data = pickle.dumps(make_pipeline(StandardScaler(), model), protocol=protocol)
    path.write_bytes(pack(data.replace(b"LogisticRegression", b"LogisticRegressioM").replace(b"1.9.1", b"0.9.1")))
    report = await lab.inspect(path)
    assert report.failure == (
        "The artifact refers to sklearn.linear_model._logistic.LogisticRegressioM, which is not there in this service. "
        "It was trained with scikit-learn 0.9.1; this service runs 1.9.1. Train it again with 1.9.1, or load it where 0.9.1 is "
        "installed, check it, and build it anew with 1.9.1."
    )
    assert report.environment["trained_with"] == "scikit-learn 0.9.1"
    assert report.environment["scikit-learn"] == "1.9.1"


async def test_columns_take_their_names_from_the_sample_or_are_numbered(lab: Lab) -> None:
    model, rows = logistic_on_array()
    named = await lab.inspect(model, rows=[dict(zip(("height", "width", "depth", "mass"), row.values(), strict=True)) for row in rows])
    numbered = await lab.inspect(model)
    assert named.signature is not None
    assert numbered.signature is not None
    assert [column.name for column in named.signature.columns] == ["height", "width", "depth", "mass"]
    assert [column.name for column in numbered.signature.columns] == ["x0", "x1", "x2", "x3"]


async def test_given_columns_in_another_order_are_put_right_for_the_estimator(lab: Lab) -> None:
    from app.kernel.clock import Deadline
    from app.prediction.features import batch_from_rows

    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    columns = tuple(Column(name, ColumnType.NUMBER) for name in ("f3", "f1", "f0", "f2"))
    report = await lab.inspect(artifact, rows=rows, columns=columns)
    runtime = await lab.open(artifact, report)
    scores = await runtime.infer(
        batch_from_rows(report.signature, [[row["f3"], row["f1"], row["f0"], row["f2"]] for row in rows]), Deadline.after(20)
    )
    await runtime.close()
    np.testing.assert_allclose(scores.probabilities, model.predict_proba(FRAME.head(len(rows))), rtol=0, atol=1e-9)
