"""skops files beside joblib's: the same estimators, the same answers, the same allow-list; told apart by their bytes."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from app.kernel.clock import Deadline
from app.kernel.signature import Task
from app.prediction.features import batch_from_rows
from tests.integration.worker.test_exactness import CLASSIFIERS, REGRESSORS
from tests.integration.worker.test_exactness import _fitted as fitted
from tests.integration.worker.test_exactness import _rows as rows_of
from tests.support.models import logistic_on_frame, numbers_frame

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.worker.conftest import Lab

pytestmark = pytest.mark.integration
FRAME = numbers_frame()
LIST = "not on the allow-list"
# What skops itself cannot write: it says so to whoever saves, and nothing reaches this service.
UNWRITABLE = {"columns chosen by an index"}


def save(lab: Lab, model: Any, name: str = "model.joblib", **options: Any) -> Path:
    path = lab.folder / name  # the name says joblib: it is the bytes that count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(skops.io.dumps(model, **options))
    return path


@pytest.mark.parametrize("name", sorted(CLASSIFIERS.keys() - UNWRITABLE))
async def test_a_classifier_answers_as_in_the_notebook(lab: Lab, name: str) -> None:
    model, given = fitted(*CLASSIFIERS[name]), CLASSIFIERS[name][1]
    rows = rows_of(given)
    head = given.head(len(rows)) if isinstance(given, pd.DataFrame) else given[: len(rows)]
    artifact = save(lab, model)
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


@pytest.mark.parametrize("name", REGRESSORS)
async def test_a_regressor_answers_as_in_the_notebook(lab: Lab, name: str) -> None:
    model, given = fitted(*REGRESSORS[name]), REGRESSORS[name][1]
    rows = rows_of(given)
    head = given.head(len(rows)) if isinstance(given, pd.DataFrame) else given[: len(rows)]
    artifact = save(lab, model)
    report = await lab.inspect(artifact, Task.REGRESSION, rows)
    runtime = await lab.open(artifact, report, Task.REGRESSION)
    scores = await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(20))
    await runtime.close()
    np.testing.assert_allclose(scores.values, np.asarray(model.predict(head)).ravel(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_compressed_files_are_taken(lab: Lab, compression: int) -> None:
    model, rows = logistic_on_frame()
    report = await lab.inspect(save(lab, model, compression=compression), rows=rows)
    assert report.failure is None
    assert report.estimator == "Pipeline(StandardScaler, LogisticRegression)"


async def test_it_is_the_bytes_that_count_not_the_name(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    path = lab.save(model)
    joblib_named_skops = path.rename(path.with_suffix(".skops"))
    assert (await lab.inspect(joblib_named_skops, rows=rows)).failure is None
    assert (await lab.inspect(save(lab, model, "model.joblib"), rows=rows)).failure is None


async def test_an_older_scikit_learn_is_named(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    path = rewritten(lab, model, lambda schema: json.loads(json.dumps(schema).replace('\\"1.9.1\\"', '\\"1.7.2\\"')))
    report = await lab.inspect(path, rows=rows)
    assert report.failure is None
    assert report.environment["trained_with"] == "scikit-learn 1.7.2"
    assert "Trained with scikit-learn 1.7.2" in report.warnings[0]


async def test_what_an_older_scikit_learn_had_is_named_with_both_versions(lab: Lab) -> None:
    def older(schema: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(schema).replace('\\"1.9.1\\"', '\\"0.24.2\\"')
        return json.loads(text.replace('"LogisticRegression"', '"RandomizedLogisticRegression"'))

    report = await lab.inspect(rewritten(lab, logistic_on_frame()[0], older))
    assert report.failure is not None
    assert "sklearn.linear_model._logistic.RandomizedLogisticRegression, which is not there in this service" in report.failure
    assert "trained with scikit-learn 0.24.2; this service runs 1.9.1" in report.failure
    assert report.environment["trained_with"] == "scikit-learn 0.24.2"


# --- hostile files


def rewritten(lab: Lab, model: Any, change: Any) -> Path:
    """A skops file of the model with its tree changed."""
    path = save(lab, model, "rewritten.skops")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = change(json.loads(parts["schema.json"]))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, json.dumps(schema) if name == "schema.json" else data)
    return path


def node(loader: str, module: str, name: str, number: Any = 7, **more: Any) -> dict[str, Any]:
    return {"__loader__": loader, "__module__": module, "__class__": name, "__id__": number, **more}


def text(value: str, number: int = 3) -> dict[str, Any]:
    return node("JsonNode", "builtins", "str", number, content=json.dumps(value))


def listed(*items: Any, kind: str = "list", number: int = 4) -> dict[str, Any]:
    return node(f"{kind.title()}Node", "builtins", kind, number, content=list(items))


NOTHING = {"content": {}, "key_types": listed(number=5)}
COMMAND = node("FunctionNode", "posix", "system", 8)
NODES: dict[str, tuple[dict[str, Any], str]] = {
    "a command": (COMMAND, "posix.system, which is " + LIST),
    "a command as a type": (node("TypeNode", "posix", "system"), "posix.system"),
    "a constructor": (
        node("ConstructorFromReduceNode", "subprocess", "Popen", content=listed(text("true"), kind="tuple")),
        "subprocess.Popen",
    ),
    "an object of the script": (node("ObjectNode", "__main__", "Model", content=None), "__main__.Model"),
    "code": (node("FunctionNode", "builtins", "exec"), "builtins.exec"),
    "a partial command": (
        node("PartialNode", "functools", "partial", content={"func": COMMAND, "args": listed(), "kwds": NOTHING, "namespace": NOTHING}),
        "functools.partial",
    ),
    "a partial whose function stands elsewhere": (
        listed(
            node("FunctionNode", "numpy", "mean", 9),
            node(
                "PartialNode",
                "functools",
                "partial",
                content={
                    "func": node("FunctionNode", "sklearn.utils.validation", "check_array", 9),
                    "args": listed(),
                    "kwds": NOTHING,
                    "namespace": NOTHING,
                },
            ),
        ),
        "one id stands for two different things",
    ),
    "one id twice, once as true": (listed(text("x", 1), {**text("y"), "__id__": True}), "an id is no whole number"),
    "a method": (
        node("MethodNode", "builtins", "str", content={"func": "format", "obj": text("x")}),
        "MethodNode (builtins.str), which is not on the allow-list",
    ),
    "a caller of methods": (node("OperatorFuncNode", "operator", "methodcaller", attrs=listed(text("system"))), "OperatorFuncNode"),
    "a loader that nobody knows": (node("ReduceNode", "posix", "system"), "ReduceNode"),
    "a bit generator that is none": (
        node(
            "RandomGeneratorNode",
            "numpy.random._generator",
            "Generator",
            content={
                "bit_generator": node("DictNode", "builtins", "dict", 8, content={"bit_generator": text("seed")}, key_types=listed()),
                "seed_seq": node("DictNode", "builtins", "dict", 9, **NOTHING),
            },
        ),
        "numpy.random.seed, which is " + LIST,
    ),
}


@pytest.mark.parametrize("name", NODES)
async def test_what_is_not_on_the_list_is_refused_by_name(lab: Lab, name: str) -> None:
    hostile, reason = NODES[name]
    report = await lab.inspect(rewritten(lab, [], lambda schema: {**hostile, "protocol": schema["protocol"]}))
    assert report.failure is not None
    assert reason in report.failure


async def test_a_command_that_skops_wrote_itself_is_refused(lab: Lab) -> None:
    report = await lab.inspect(save(lab, make_pipeline(FunctionTransformer(os.system), LogisticRegression())))
    assert report.failure is not None
    assert "posix.system, which is " + LIST in report.failure


async def test_an_operator_may_take_what_the_list_does_not_name(lab: Lab, trusting_lab: Lab) -> None:
    model = make_pipeline(FunctionTransformer(np.flip), LogisticRegression()).fit(FRAME.to_numpy(), FRAME["f0"] > 0)
    path = save(lab, model)
    assert "numpy.flip" in str((await lab.inspect(path)).failure)
    assert (await trusting_lab.inspect(path)).failure is None


async def test_an_old_file_is_to_be_saved_again(lab: Lab) -> None:
    report = await lab.inspect(rewritten(lab, LogisticRegression(), lambda schema: {**schema, "protocol": 0}))
    assert report.failure == "The skops file was saved with an old skops, or is damaged: save it again with skops 0.13 or newer."


def archive(**parts: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in parts.items():
            made.writestr(name.replace("_", "."), data)
    return buffer.getvalue()


def bomb() -> bytes:
    """A file that says that it unpacks to 4 GiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as made:
        made.writestr("schema.json", "{}")
        made.writestr("zeros.npy", bytes(1 << 20))
        made.infolist()[1].file_size = 4 << 30
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (archive(model_pkl=b"cposix\nsystem\n."), "a zip archive, but no skops file"),
        (archive(), "a zip archive, but no skops file"),
        (archive(schema_json=b"\x80\x04"), "its schema.json is not JSON"),
        (archive(schema_json=b"[]"), "its schema.json is not an object"),
        (archive(schema_json=b'{"a":' * 100_000), "nested too deeply"),
        (archive(schema_json=b"{}")[:-40], "damaged zip archive"),
        (bomb(), "unpacks to 4,294,967,298 bytes"),
    ],
    ids=["a pickle inside", "nothing inside", "no JSON", "no object", "depth", "cut short", "bomb"],
)
async def test_archives_that_are_no_skops_file_say_so(lab: Lab, data: bytes, reason: str) -> None:
    path = lab.folder / "archive"
    path.write_bytes(data)
    report = await lab.inspect(path)
    assert report.failure is not None
    assert reason in report.failure


async def test_an_array_beyond_the_memory_meets_the_limit(lab: Lab) -> None:
    def enlarged(data: bytes) -> bytes:
        return data.replace(b"'shape': (1, 4), }       ", b"'shape': (1, 4000000000)}")

    path = save(lab, LogisticRegression().fit(FRAME, FRAME["f0"] > 0), "large.skops")
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    assert any(enlarged(data) != data for data in parts.values())
    with zipfile.ZipFile(path, "w") as changed:
        for name, data in parts.items():
            changed.writestr(name, enlarged(data))
    report = await lab.inspect(path)
    assert report.failure == "It needs more memory than a model may use here (1024 MiB)."


async def test_a_cluster_is_no_classifier_in_this_format_either(lab: Lab) -> None:
    report = await lab.inspect(save(lab, KMeans(2).fit(FRAME)))
    assert report.failure is not None
    assert "Clusterers and outlier detectors" in report.failure


async def test_a_forest_of_five_hundred_trees_fits(lab: Lab) -> None:
    model = RandomForestClassifier(500, random_state=0).fit(FRAME, FRAME["f0"] > 0)
    report = await lab.inspect(save(lab, model))
    assert report.failure is None
