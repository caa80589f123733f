"""From outside: where a version comes from, what trained it, two versions side by side, skops files, damaged bytes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import skops.io
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from app.db.embedded.server import EmbeddedPostgres
from app.registry.signing import public_text, sign
from tests.support.database import execute, remove_home
from tests.support.models import Reducing, logistic_on_frame, mixed_frame_pipeline, regressor
from tests.support.service import PROMOTE, REGISTER, ROOT, dumped, environment, free_port, start_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]
VERSION = """query($model: String!, $number: Int!) { model(name: $model) { version(number: $number) {
  status statusReason warning artifactDeletedAt lineage { trainingData gitCommit pipelineRun parentVersion }
  environment { python scikitLearn numpy trainedWith estimator } } } }"""
COMPARE = """query($model: String!, $a: Int!, $b: Int!) { compareModelVersions(model: $model, a: $a, b: $b) {
  a { number } b { number } metrics { name a b difference } breaksCallersOfA { code message } breaksCallersOfB { code }
  columnsAdded columnsRemoved classesEqual sampleOf
  answers { compared agreement largestDifference unavailable
    rows { row agree difference a { label probability value } b { label probability value } } } } }"""


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    return service.new_tenant("lives")


def version(admin: Client, model: str, number: int) -> dict[str, Any]:
    return admin.ask(VERSION, model=model, number=number)["model"]["version"]


def test_lineage_and_environment_are_shown(admin: Client) -> None:
    estimator, _ = logistic_on_frame()
    lineage = {"trainingData": "s3://data/3", "gitCommit": "4f2c1d", "pipelineRun": None, "parentVersion": None}
    number = admin.ready("lineage", "CLASSIFICATION", estimator, lineage=lineage)
    shown = version(admin, "lineage", number)
    assert shown["lineage"] == lineage
    environment = shown["environment"]
    assert environment["estimator"] == "Pipeline(StandardScaler, LogisticRegression)"
    assert (environment["scikitLearn"], environment["trainedWith"]) == ("1.9.1", "scikit-learn 1.9.1")
    assert environment["numpy"] == np.__version__
    assert (shown["warning"], shown["artifactDeletedAt"]) == (None, None)


def test_another_scikit_learn_is_a_warning_or_a_failure_with_what_to_do(admin: Client) -> None:
    data = pickle.dumps(logistic_on_frame()[0])
    warned = admin.register("older", "CLASSIFICATION", data.replace(b"1.9.1", b"1.7.2"))
    shown = version(admin, "older", warned["number"])
    assert shown["status"] == "READY"
    assert "Trained with scikit-learn 1.7.2, served with 1.9.1: answers may differ." in shown["warning"]
    assert shown["statusReason"] is None
    gone = data.replace(b"1.9.1", b"0.9.1").replace(b"LogisticRegression", b"LogisticRegressioM")
    failed = version(admin, "older", admin.register("older", "CLASSIFICATION", gone)["number"])
    assert failed["status"] == "FAILED"
    assert "It was trained with scikit-learn 0.9.1; this service runs 1.9.1. Train it again with 1.9.1" in failed["statusReason"]
    assert failed["environment"]["trainedWith"] == "scikit-learn 0.9.1"


def test_a_skops_file_is_served_as_the_notebook_answers(admin: Client) -> None:
    estimator, rows = mixed_frame_pipeline()
    admin.serve("skops", "CLASSIFICATION", skops.io.dumps(estimator), sample=rows)
    answer = admin.predict("skops", rows[0])
    assert answer["label"] in ("often", "seldom")
    joblib = admin.ready("skops", "CLASSIFICATION", estimator, sample=rows)
    assert admin.predict("skops", rows[0], version=joblib)["probabilities"] == answer["probabilities"]


def test_a_hostile_skops_file_is_failed_with_its_reason(admin: Client) -> None:
    data = skops.io.dumps(FunctionTransformer(np.save))
    failed = admin.register("hostile", "CLASSIFICATION", data)
    assert failed["status"] == "FAILED"
    assert "numpy.save, which is not on the allow-list" in failed["statusReason"]


# --- two versions side by side


def test_two_versions_of_a_classifier_side_by_side(admin: Client) -> None:
    estimator, rows = logistic_on_frame()
    other, _ = logistic_on_frame()
    other.named_steps["logisticregression"].coef_[0, 0] *= -1
    a = admin.ready("sides", "CLASSIFICATION", estimator, sample=rows, metrics={"auc": 0.75, "note": "x"})
    b = admin.ready("sides", "CLASSIFICATION", other, sample=rows, metrics={"auc": 1.0, "rows": 7})
    found = admin.ask(COMPARE, model="sides", a=a, b=b)["compareModelVersions"]
    assert found["metrics"] == [
        {"name": "auc", "a": 0.75, "b": 1.0, "difference": 0.25},
        {"name": "note", "a": "x", "b": None, "difference": None},
        {"name": "rows", "a": None, "b": 7, "difference": None},
    ]
    assert found["breaksCallersOfA"] == found["breaksCallersOfB"] == found["columnsAdded"] == found["columnsRemoved"] == []
    assert (found["classesEqual"], found["sampleOf"]) == (True, b)
    answers = found["answers"]
    assert (answers["compared"], answers["unavailable"]) == (len(rows), None)
    for row, sent in zip(answers["rows"], rows, strict=True):
        assert row["row"] == sent
        of_a, of_b = admin.predict("sides", sent, version=a), admin.predict("sides", sent, version=b)
        assert (row["a"]["label"], row["b"]["label"]) == (of_a["label"], of_b["label"])
        assert row["a"]["probability"] == pytest.approx(of_a["probability"], abs=1e-6)
        assert row["agree"] is (of_a["label"] == of_b["label"])
    assert answers["agreement"] == sum(row["agree"] for row in answers["rows"]) / len(rows)
    assert 0 < answers["agreement"] < 1
    assert answers["largestDifference"] == max(row["difference"] for row in answers["rows"])


def test_a_regressors_answers_agree_to_six_digits_or_not(admin: Client) -> None:
    estimator, rows = regressor()
    a = admin.ready("numbers", "REGRESSION", estimator, sample=rows)
    estimator.named_steps["ridge"].intercept_ += 0.5
    b = admin.ready("numbers", "REGRESSION", estimator)
    found = admin.ask(COMPARE, model="numbers", a=a, b=b)["compareModelVersions"]
    assert found["sampleOf"] == a
    assert found["answers"]["agreement"] == 0.0
    assert found["answers"]["largestDifference"] == pytest.approx(0.5, abs=1e-4)
    same = admin.ask(COMPARE, model="numbers", a=a, b=a)["compareModelVersions"]["answers"]
    assert (same["agreement"], same["largestDifference"]) == (1.0, 0.0)


def test_signatures_that_differ_are_told_from_both_sides(admin: Client) -> None:
    a = admin.ready("columns", "REGRESSION", LinearRegression().fit([[0.0], [1.0]], [0, 1]), sample=[{"old": n} for n in range(5)])
    b = admin.ready(
        "columns", "REGRESSION", LinearRegression().fit([[0.0, 1.0], [1.0, 0.5]], [0, 1]), sample=[{"old": n, "new": 2} for n in range(5)]
    )
    found = admin.ask(COMPARE, model="columns", a=a, b=b)["compareModelVersions"]
    assert (found["columnsAdded"], found["columnsRemoved"]) == (["new"], [])
    assert [entry["code"] for entry in found["breaksCallersOfA"]] == ["COLUMN_ADDED"]
    assert [entry["code"] for entry in found["breaksCallersOfB"]] == ["COLUMN_REMOVED"]
    assert found["answers"]["rows"] == []
    assert f"Version {a} does not take the sample of version {b}" in found["answers"]["unavailable"]


def test_what_cannot_answer_is_said_and_the_rest_is_there(admin: Client) -> None:
    estimator, rows = logistic_on_frame()
    a = admin.ready("silent", "CLASSIFICATION", estimator, sample=rows)
    b = admin.ready("silent", "CLASSIFICATION", LogisticRegression().fit([[0], [1]], ["x", "y"]))
    without = admin.ready("silent", "CLASSIFICATION", LogisticRegression().fit([[0], [2]], ["x", "y"]))
    admin.ask('mutation { archiveModelVersion(model: "silent", version: 2) { status } }')
    found = admin.ask(COMPARE, model="silent", a=a, b=b)["compareModelVersions"]
    assert found["classesEqual"] is False
    assert found["answers"]["unavailable"] == f"Version {b} is ARCHIVED: only READY versions are asked."
    found = admin.ask(COMPARE, model="silent", a=without, b=without)["compareModelVersions"]
    assert found["answers"]["unavailable"] == "Neither version was registered with a sample."
    assert admin.refused(COMPARE, model="silent", a=a, b=99)["extensions"]["code"] == "NOT_FOUND"


# --- damaged bytes


@pytest.fixture(scope="module")
def as_superuser(service: Service) -> Any:
    """Runs a statement as only somebody with the whole database in hand can."""
    server = EmbeddedPostgres(service.home)
    server.start()  # joins the one that runs
    return lambda statement, *arguments: execute(server._superuser_url("turnout"), statement, *arguments)


FLIP = """update artifact_chunks c set data = set_byte(data, 100, get_byte(data, 100) # 1)
  from artifacts a where a.upload_id = c.upload_id and a.tenant_id = c.tenant_id and a.digest = $1 returning 1"""


def flip_cached(service: Service, digest: str) -> int:
    """How many copies there were."""
    copies = list((service.home / "artifacts").glob(f"*/{digest}"))
    for copy in copies:
        data = bytearray(copy.read_bytes())
        data[100] ^= 1
        copy.write_bytes(data)
    return len(copies)


def serving(admin: Client, model: str) -> str:
    """A model that serves "old"; the digest of what is not registered yet and would answer "new"."""
    admin.serve(model, "CLASSIFICATION", answering("old", model))
    return admin.upload(dumped(answering("new", model)))


def answering(constant: str, model: str) -> Any:
    """Bytes that no other model has: a good copy of these on this machine would be as good as the database's."""
    return DummyClassifier(strategy="constant", constant=constant, random_state=zlib.crc32(model.encode())).fit([[0], [1]], ["old", "new"])


def test_one_flipped_bit_in_the_database_fails_the_version_and_the_old_one_serves_on(admin: Client, as_superuser: Any) -> None:
    digest = serving(admin, "flipped")
    assert len(as_superuser(FLIP, digest)) == 1
    given = {"model": "flipped", "task": "CLASSIFICATION", "artifactDigest": digest}
    number = admin.ask(REGISTER, input=given)["registerModelVersion"]["number"]
    end = time.monotonic() + 120
    while (shown := version(admin, "flipped", number))["status"] == "VALIDATING" and time.monotonic() < end:
        time.sleep(0.05)
    assert shown["status"] == "FAILED"
    assert "is refused: its bytes are not those that were uploaded" in shown["statusReason"]
    assert admin.refused(PROMOTE, model="flipped", version=number)["extensions"]["code"] == "NOT_PROMOTABLE"
    assert admin.predict("flipped", [0])["label"] == "old"
    assert admin.serve("flipped", "CLASSIFICATION", answering("new", "flipped")) == number + 1, "what its reason advises, helps"
    assert admin.predict("flipped", [0])["label"] == "new"


def test_bytes_that_were_damaged_after_the_check_are_not_promoted(service: Service, admin: Client, as_superuser: Any) -> None:
    digest = serving(admin, "later")
    number = admin.ready("later", "CLASSIFICATION", answering("new", "later"))
    assert len(as_superuser(FLIP, digest)) == 1
    assert flip_cached(service, digest) == 1
    refused = admin.refused(PROMOTE, model="later", version=number)
    assert [b["code"] for b in refused["extensions"]["blockers"]] == ["ARTIFACT_REFUSED"]
    assert admin.predict("later", [0])["label"] == "old"


def test_one_flipped_bit_in_this_machines_copy_heals_from_the_database(service: Service, admin: Client) -> None:
    digest = serving(admin, "healed")
    number = admin.ready("healed", "CLASSIFICATION", answering("new", "healed"))
    assert flip_cached(service, digest) == 1
    admin.ask(PROMOTE, model="healed", version=number)
    assert admin.predict("healed", [0])["label"] == "new"


# --- a service that takes signed artifacts alone


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def signed_only(key: Ed25519PrivateKey) -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="turnout-signed-"))
    folder.chmod(0o711)
    keys = json.dumps([public_text(key.public_key())])
    running = start_service(folder / "home", free_port(), TURNOUT_ARTIFACT_TRUST="signed-only", TURNOUT_ARTIFACT_KEYS=keys)
    try:
        yield running
    finally:
        status = running.stop()
        remove_home(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)
        assert status == 0


def test_signed_only_serves_what_was_signed_and_refuses_the_rest(signed_only: Service, key: Ed25519PrivateKey) -> None:
    admin = signed_only.new_tenant("signers")
    data = dumped(answering("old", "taken"))
    unsigned = admin.upload(data)
    given = {"model": "signed", "task": "CLASSIFICATION", "artifactDigest": unsigned}
    refused = admin.refused(REGISTER, input=given)
    assert refused["extensions"]["code"] == "BAD_USER_INPUT"
    assert "has no signature. Sign the file (turnout artifact sign FILE --key KEY)" in refused["message"]
    assert upload(admin, data, "nonsense").status_code == 400
    assert upload(admin, data, str(sign(Ed25519PrivateKey.generate(), unsigned))).status_code == 400
    assert upload(admin, data, str(sign(key, unsigned))).json() == {"digest": unsigned, "sizeBytes": len(data)}
    admin.serve("signed", "CLASSIFICATION", data)
    assert admin.predict("signed", [0])["label"] == "old"
    hostile = dumped(Reducing(os.system, "true"))
    assert upload(admin, hostile, str(sign(key, hashlib.sha256(hostile).hexdigest()))).status_code == 201
    failed = admin.register("signed", "CLASSIFICATION", hostile)
    assert "posix.system, which is not on the allow-list" in failed["statusReason"], "a signature opens no door"


@pytest.mark.slow
def test_the_demo_says_how_to_sign_its_models_and_signs_them(signed_only: Service, key: Ed25519PrivateKey, tmp_path: Path) -> None:
    private = tmp_path / "private.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def demo(*options: object, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli.main", "demo", "--url", signed_only.url, *map(str, options)]
        return subprocess.run(command, cwd=ROOT, env=environment(signed_only.home, **more), capture_output=True, text=True, check=False)

    told = {"TURNOUT_ARTIFACT_TRUST": "signed-only", "TURNOUT_ARTIFACT_KEYS": json.dumps([public_text(key.public_key())])}
    for refused, trained in ((demo(**told), False), (demo(), True)):  # a command that knows the service's settings, and one that does not
        assert refused.returncode == 1
        assert "turnout demo --key private.pem" in refused.stderr
        assert ("training" in refused.stderr) is trained
    done = demo("--key", private)
    assert done.returncode == 0, done.stderr
    assert "Two demo tenants are ready" in done.stdout
    clinic = signed_only.client("clinic")
    assert clinic.predict("tumour", json.loads((signed_only.home / "demo-example.json").read_text()))["version"] >= 1
    assert demo(**told).returncode == 0, "nothing is missing any more"


def upload(admin: Client, data: bytes, signature: str) -> httpx.Response:
    headers = admin.headers | {"Artifact-Signature": signature}
    return httpx.post(f"{admin.service.url}/artifacts", content=data, headers=headers, timeout=30)


def test_the_command_line_signs_and_registers(signed_only: Service, key: Ed25519PrivateKey, tmp_path: Path) -> None:
    admin = signed_only.new_tenant("signing-cli")
    file, private, lineage = tmp_path / "model.skops", tmp_path / "private.pem", tmp_path / "lineage.json"
    file.write_bytes(skops.io.dumps(answering("old", "given")))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    lineage.write_text('{"gitCommit": "4f2c1d"}')

    def turnout(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli.main", *map(str, arguments)]
        env = environment(signed_only.home, TURNOUT_TOKEN=admin.token)
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    register = ("model", "register", file, "--model", "cli", "--task", "classification", "--wait", "--url", signed_only.url)
    unsigned = turnout(*register)
    assert unsigned.returncode == 1
    assert "turnout artifact sign FILE --key KEY" in unsigned.stderr
    signature = turnout("artifact", "sign", file, "--key", private).stdout.strip()
    done = turnout(*register, "--signature", signature, "--lineage", lineage, "--json")
    assert done.returncode == 0, done.stderr
    assert version(admin, "cli", 1)["lineage"]["gitCommit"] == "4f2c1d"
