"""Apollo Client and urql against a service in production: what their build tools list is pushed, and is all that their callers may run."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jose import jwt
from sklearn.dummy import DummyClassifier

from tests.support.npm import node
from tests.support.service import ROOT, Client, environment, own_service

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("clients")]

CLIENTS = Path(__file__).parent / "clients"
SCHEMA = ROOT / "app" / "graphql" / "schema.graphql"
SECRET = "a-shared-secret-of-32-bytes-at-least-1234"
MANIFESTS = ["persisted-query-manifest.json", "replaceDocumentWithHash/persisted-documents.json"]
REFUSED = "With your roles only registered documents run, and this one is not registered."


def token(tenant, role):
    claims = {"iss": "https://id.example", "aud": "turnout", "sub": "somebody", "org": tenant, "roles": [role]}
    return jwt.encode({**claims, "iat": int(time.time()), "exp": int(time.time()) + 3600}, SECRET, algorithm="HS256")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the clients' build tools wrote."""
    folder = tmp_path_factory.mktemp("clients")
    node(CLIENTS, "manifests.mjs", OUT=str(folder), SCHEMA=str(SCHEMA))
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service in production, with a tenant that has a model and a metric."""
    folder = tmp_path_factory.mktemp("keys")
    for name, text in (("secret", SECRET), ("master", "ab" * 32)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    issuer = {"issuer": "https://id.example", "audience": "turnout", "algorithms": ["HS256"], "keyFile": str(folder / "secret")}
    issuers = json.dumps([{**issuer, "tenantClaim": "org", "subjectClaim": "sub", "rolesClaim": "roles"}])
    more = {"TURNOUT_ENV": "production", "TURNOUT_MASTER_KEY_FILE": str(folder / "master"), "TURNOUT_JWT_ISSUERS": issuers}
    with own_service("--workers", "2", **more) as running:
        operator = Client(running, token("platform", "OPERATOR"))
        operator.ask('mutation { createTenant(input: {id: "garden", name: "Garden"}) { id } }')
        admin = Client(running, token("garden", "ADMIN"))
        admin.serve("flowers", "CLASSIFICATION", DummyClassifier().fit([[0, 0], [1, 1]], ["rose", "iris"]))
        admin.ask('mutation { declareMetric(input: {name: "bought", kind: PROPORTION}) { name } }')
        running.admin = admin
        yield running


@pytest.fixture(scope="module")
def pushed(service, out):
    """What `turnout documents push` says of each manifest."""
    told = []
    for manifest in MANIFESTS:
        command = [sys.executable, "-m", "app.cli.main", "documents", "push", str(out / manifest), "--url", service.url, "--json"]
        env = environment(service.home, TURNOUT_TOKEN=service.admin.token)
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    return told


def run(script, service, out, role="PREDICTOR"):
    """By name, what came of each request that the script made."""
    environ = {"TURNOUT_URL": service.url, "TURNOUT_TOKEN": token("garden", role), "OUT": str(out), "NODE_ENV": "production"}
    lines = [json.loads(line) for line in node(CLIENTS, script, **environ).splitlines()]
    return {line["name"]: line for line in lines}


def body_of(line):
    (sent,) = line["sent"]
    assert sent["method"] == "POST"
    return json.loads(sent["body"])


def test_the_ids_in_the_manifests_are_those_under_which_the_documents_are_registered(out, pushed):
    apollo, codegen = (json.loads((out / manifest).read_text()) for manifest in MANIFESTS)
    assert {each["id"] for each in pushed[0]} == {each["id"] for each in apollo["operations"]}
    assert {f"sha256:{each['id']}" for each in pushed[1]} == set(codegen)
    assert [sorted(each["operations"][0] for each in told) for told in pushed] == [["Bought", "Predict"]] * 2
    assert {each["state"] for told in pushed for each in told} == {"registered"}


def test_apollo_sends_the_ids_of_its_manifest_and_no_text(service, out, pushed):
    said = run("apollo.mjs", service, out)
    assert said["query"]["data"]["predict"] | {"id": ""} == {
        "__typename": "Prediction", "id": "", "version": 1, "label": "iris", "reason": "ALIAS",
    }  # fmt: skip
    assert said["mutation"]["data"]["recordOutcome"]["id"]
    ids = {each["operations"][0]: each["id"] for each in pushed[0]}
    for name, operation in (("query", "Predict"), ("mutation", "Bought")):
        body = body_of(said[name])
        assert "query" not in body
        assert body["extensions"]["persistedQuery"] == {"version": 1, "sha256Hash": ids[operation]}


def test_urql_sends_the_ids_of_graphql_codegen_and_no_text(service, out, pushed):
    said = run("urql.mjs", service, out)
    for name in ("documentId query", "persisted query"):
        assert said[name]["data"]["predict"] | {"id": ""} == {"id": "", "version": 1, "label": "iris", "reason": "ALIAS"}
    for name in ("documentId mutation", "persisted mutation"):
        assert said[name]["data"]["recordOutcome"]["id"]
    ids = {each["operations"][0]: f"sha256:{each['id']}" for each in pushed[1]}
    assert body_of(said["documentId query"])["documentId"] == ids["Predict"]
    assert body_of(said["persisted mutation"])["extensions"]["persistedQuery"]["sha256Hash"] == ids["Bought"]
    assert not any("query" in body_of(line) for name, line in said.items() if name != "automatic")


@pytest.mark.parametrize("script", ["apollo.mjs", "urql.mjs"])
def test_what_is_not_registered_is_refused_to_a_predictor_and_runs_for_others_by_the_protocol_of_automatic_ids(
    service, out, pushed, script
):
    refused = run(script, service, out)["automatic"]
    assert (refused["data"], REFUSED in refused["error"]) == (None, True)
    # A role that is not held to registered documents: the id alone, then with its text.
    found = run(script, service, out, role="EXPERIMENTER")["automatic"]
    assert found["data"]["viewer"]["tenant"] == "garden"
    assert len(found["sent"]) == 2


def test_the_page_for_clients_shows_what_is_tried_here():
    page = (ROOT / "docs" / "clients.md").read_text()
    packages = json.loads((CLIENTS / "package.json").read_text())["dependencies"]
    for name in ("@apollo/client", "@urql/core"):
        assert f"`{name}` {packages[name]}" in page
    for word in ("generatePersistedQueryIdsFromManifest", "replaceDocumentWithHash", "embedHashInDocument", "preferGetMethod: false"):
        assert word in page
        assert any(word in script.read_text() for script in CLIENTS.glob("*.mjs"))


def test_the_lock_file_names_no_registry_and_pins_every_package():
    lock = json.loads((CLIENTS / "package-lock.json").read_text())
    packages = [package for path, package in lock["packages"].items() if path]
    assert all("resolved" not in package and package["integrity"].startswith("sha512-") for package in packages)
    assert not re.search(r"registry\.|npmjs", (CLIENTS / "package-lock.json").read_text())
    assert "omit-lockfile-registry-resolved=true" in (CLIENTS / ".npmrc").read_text()
