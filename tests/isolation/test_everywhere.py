"""Every way into the service, and every place where it leaves something behind: what is another tenant's is in none."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from graphql import GraphQLObjectType, GraphQLSchema, build_schema, extend_schema, parse
from sklearn.linear_model import LogisticRegression

from app.graphql.export import sdl
from tests.support.database import execute
from tests.support.service import PROMOTE, own_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.database import DatabaseUrls
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

NAME, UNIT, KEY = "canary-model-q7", "canary-unit-q7@example.org", "canary-experiment-q7"
METRICS, FEATURE, REASON = "token-of-the-metrics", 8_675_309.25, "canary-reason-q7"
# Arguments below the root, and what another tenant's value for each is. Those of the root are called one by one in test_isolation.
NESTED = {
    ("Model", "versions", "first"): None,
    ("Model", "versions", "after"): "cursor",
    ("Model", "version", "number"): None,
    ("Alias", "history", "first"): None,
    ("Alias", "history", "after"): "cursor",
    ("Experiment", "results", "metric"): "name",
    ("Experiment", "shadowResults", "metric"): "name",
}


def nested_arguments(schema: GraphQLSchema) -> set[tuple[str, str, str]]:
    """(type, field, argument) of all that is not at the root."""
    roots = {root.name for root in (schema.query_type, schema.mutation_type) if root is not None}
    types = [kind for name, kind in schema.type_map.items() if isinstance(kind, GraphQLObjectType) and name not in roots]
    return {(t.name, f, a) for t in types if not t.name.startswith("__") for f, field in t.fields.items() for a in field.args}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """With a token for the metrics, as in production."""
    with own_service(TURNOUT_METRICS_TOKEN=METRICS) as running:
        yield running


@pytest.fixture(scope="module")
def victim(service: Service) -> Client:
    """A tenant with a model that serves, an experiment, and predictions about a unit."""
    admin = service.new_tenant("canary-tenant-q7")
    x = np.array([[0.0, 1.0], [1.0, 0.0]] * 5)
    admin.serve(NAME, "CLASSIFICATION", LogisticRegression().fit(x, [0, 1] * 5))
    admin.ask(PROMOTE, model=NAME, version=1, alias="canary", reason=REASON)
    experiment = {"key": KEY, "model": NAME, "primaryMetric": {"name": "canary-metric", "kind": "MEAN"}}
    arms = [{"name": "a", "version": 1, "control": True}, {"name": "b", "version": 1}]
    admin.ask("mutation($i: CreateExperimentInput!) { createExperiment(input: $i) { key } }", i={**experiment, "variants": arms})
    capture = 'mutation { updateTenantSettings(tenant: "canary-tenant-q7", settings: {captureInputs: true}) { id } }'
    service.client("platform", "OPERATOR").ask(capture)
    for _ in range(3):
        admin.predict(NAME, [FEATURE, 1.0], unit=UNIT)
    return admin


@pytest.fixture(scope="module")
def stranger(service: Service) -> Client:
    admin = service.new_tenant("canary-stranger-q7")
    x = np.array([[0.0, 1.0], [1.0, 0.0]] * 5)
    admin.serve("mine", "CLASSIFICATION", LogisticRegression().fit(x, [0, 1] * 5))
    return admin


def test_every_argument_below_the_root_is_listed_with_what_it_would_be_of_another_tenants() -> None:
    assert nested_arguments(build_schema(sdl())) == set(NESTED)


def test_a_new_argument_is_seen_wherever_it_is_added() -> None:
    toy = extend_schema(build_schema(sdl()), parse("extend type Column { toy(of: ID!): String } extend type Query { toy: Int }"))
    assert nested_arguments(toy) - set(NESTED) == {("Column", "toy", "of")}


def test_cursors_of_another_tenants_lists_below_the_root_lead_to_nothing_of_theirs(victim: Client, stranger: Client) -> None:
    theirs = victim.ask(
        f'{{ model(name: "{NAME}") {{ versions {{ pageInfo {{ endCursor }} }} aliases {{ history {{ pageInfo {{ endCursor }} }} }} }} }}'
    )["model"]
    cursors = [theirs["versions"]["pageInfo"]["endCursor"], theirs["aliases"][0]["history"]["pageInfo"]["endCursor"]]
    for versions in cursors:
        for history in cursors:
            answer = stranger.post(
                'query($v: String, $h: String) { model(name: "mine") { versions(after: $v) { edges { node { number artifactDigest } } }'
                " aliases { history(after: $h) { edges { node { model reason } } } } } }",
                v=versions, h=history,
            ).text  # fmt: skip
            assert NAME not in answer
            assert REASON not in answer


FIELD = 'model(name: "MODEL") { name versions { edges { node { number } } } }'


def test_the_id_of_their_prediction_leads_to_no_input_and_takes_no_outcome(victim: Client, stranger: Client) -> None:
    theirs, nowhere = victim.predict(NAME, [FEATURE, 1.0], unit=UNIT)["id"], "0198a000-0000-7000-8000-000000000000"
    captured = "query($id: ID!) { capturedInput(predictionId: $id) }"
    end = time.monotonic() + 60
    while (kept := victim.ask(captured, id=theirs)["capturedInput"]) is None:
        assert time.monotonic() < end
    assert kept["rows"] == [[FEATURE, 1.0]]
    assert stranger.ask(captured, id=theirs) == stranger.ask(captured, id=nowhere) == {"capturedInput": None}
    stranger.ask('mutation { declareMetric(input: {name: "canary-metric", kind: MEAN}) { name } }')
    outcome = 'mutation($id: ID!) { recordOutcome(input: {metric: "canary-metric", value: 1, predictionId: $id}) { id } }'

    def refusal(prediction: str) -> tuple[str, str]:
        error = stranger.refused(outcome, id=prediction)
        return error["extensions"]["code"], error["message"].replace(prediction, "ID")

    assert refusal(theirs) == refusal(nowhere)


def test_results_by_a_metric_of_theirs_are_those_of_a_metric_that_is_nowhere(victim: Client, stranger: Client) -> None:
    arms = [{"name": "a", "version": 1, "control": True}, {"name": "b", "version": 1}]
    own = {"key": "own", "model": "mine", "primaryMetric": {"name": "own-metric", "kind": "MEAN"}, "variants": arms}
    stranger.ask("mutation($i: CreateExperimentInput!) { createExperiment(input: $i) { key } }", i=own)
    victim.ask('mutation { declareMetric(input: {name: "canary-metric-2", kind: MEAN}) { name } }')
    for field, inner in (("results", "metric notes looks"), ("shadowResults", "variant")):
        asked = f'query($m: String) {{ experiment(key: "own") {{ {field}(metric: $m) {{ {inner} }} }} }}'
        answers = []
        for metric in ("canary-metric-2", "absent-metric-2"):
            answer = stranger.post(asked, m=metric).json()
            answer.pop("extensions")  # the first time the document is unseen, and costs more
            for error in answer.get("errors", []):
                error["extensions"].pop("requestId", None)
            answers.append(json.dumps(answer).replace(metric, "METRIC"))
        assert answers[0] == answers[1]
        assert '"path": ["experiment"' in answers[0] or '{"experiment": {"' in answers[0]  # it was asked, not refused as a document


DOCUMENTS: dict[str, str] = {
    "plain": f"{{ {FIELD} }}",
    "alias": f"{{ mine: {FIELD} other: {FIELD} }}",
    "fragment": '{ ...all } fragment all on Query { model(name: "MODEL") { ...names } } fragment names on Model { name description }',
    "inline fragment": f"{{ ... on Query {{ {FIELD} }} }}",
    "directive": f"{{ {FIELD.replace('{ name', '@include(if: true) { name', 1)} }}",
    "experiment beside": f'{{ {FIELD} experiment(key: "MODEL") {{ key }} }}',
    "batch": '{ predictBatch(model: "MODEL", rows: [[1, 2]]) { id } }',
}


def as_post(stranger: Client, document: str) -> Any:
    return httpx.post(f"{stranger.service.url}/graphql", json={"query": document}, headers=stranger.headers).json()


def as_get(stranger: Client, document: str) -> Any:
    query = urllib.parse.urlencode({"query": document})
    headers = {**stranger.headers, "Apollo-Require-Preflight": "1"}
    return httpx.get(f"{stranger.service.url}/graphql?{query}", headers=headers).json()


def as_persisted(stranger: Client, document: str) -> Any:
    """First with the document, then by its digest alone."""
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": hashlib.sha256(document.encode()).hexdigest()}}
    url = f"{stranger.service.url}/graphql"
    httpx.post(url, json={"query": document, "extensions": extensions}, headers=stranger.headers)
    return httpx.post(url, json={"extensions": extensions}, headers=stranger.headers).json()


def as_array(stranger: Client, document: str) -> Any:
    body = [{"query": document}, {"query": document}]
    return httpx.post(f"{stranger.service.url}/graphql", json=body, headers=stranger.headers).json()


@pytest.mark.parametrize("way", [as_post, as_get, as_persisted, as_array])
@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=list(DOCUMENTS))
def test_by_every_way_in_what_is_theirs_and_what_is_nowhere_get_the_same_answer(
    victim: Client, stranger: Client, way: Callable[[Client, str], Any], document: str
) -> None:
    assert victim.ask(DOCUMENTS["plain"].replace("MODEL", NAME))["model"]["name"] == NAME

    def said(name: str) -> str:
        answer = way(stranger, document.replace("MODEL", name))
        for one in answer if isinstance(answer, list) else [answer]:
            one.get("extensions", {}).pop("cost", None)
            one["errors"].sort(key=lambda error: json.dumps(error["path"]) if "path" in error else "")
            for error in one["errors"]:
                error["extensions"].pop("requestId", None)
                error.pop("locations", None)
        return json.dumps(answer).replace(name, "NAME")

    absent = "a" * len(NAME)
    assert said(NAME) == said(absent)
    assert '"errors"' in said(NAME)


def test_a_document_that_another_tenant_sent_is_not_known_by_its_digest(victim: Client, stranger: Client) -> None:
    document = DOCUMENTS["plain"].replace("MODEL", NAME) + " # of the victim alone"
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": hashlib.sha256(document.encode()).hexdigest()}}
    url = f"{victim.service.url}/graphql"
    assert "errors" not in httpx.post(url, json={"query": document, "extensions": extensions}, headers=victim.headers).json()
    answer = httpx.post(url, json={"extensions": extensions}, headers=stranger.headers).json()
    assert answer["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"


def test_an_upload_of_their_bytes_says_nothing_of_who_had_them(victim: Client, stranger: Client) -> None:
    data = b"not a model, but the same bytes"
    assert victim.upload(data) == stranger.upload(data) == hashlib.sha256(data).hexdigest()


def test_no_log_line_metric_or_file_holds_units_values_or_what_another_tenants_request_named(
    service: Service, victim: Client, stranger: Client
) -> None:
    answer = stranger.post(f'{{ model(name: "{NAME}") {{ name }} experiment(key: "{KEY}") {{ key }} }}')
    requests = {error["extensions"]["requestId"] for error in answer.json()["errors"]}
    lines = service.log.read_text().splitlines()
    for line in lines:
        assert UNIT not in line
        assert str(FEATURE) not in line
        assert not any(request in line for request in requests) or (NAME not in line and KEY not in line)
    metrics = httpx.get(f"{service.url}/metrics").text
    shown = httpx.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {METRICS}"}).text
    assert "canary-tenant-q7" in shown
    assert "turnout_" in metrics
    for canary in ("canary-tenant-q7", NAME, KEY, UNIT, REASON):
        assert canary not in metrics
    files = [path for folder in ("spool", "artifacts") for path in (service.home / folder).rglob("*")]
    assert files
    for path in files:
        assert not any(canary in str(path) for canary in ("canary-tenant-q7", NAME, KEY, UNIT))
        if path.is_file() and "spool" in path.parts:
            data = path.read_bytes()
            assert UNIT.encode() not in data
            assert np.float64(FEATURE).tobytes() not in data
            assert str(FEATURE).encode() not in data


TENANT_TABLES_OPEN = """
    select relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
      and not (relrowsecurity and relforcerowsecurity)"""


def test_a_new_table_with_a_tenant_is_seen_until_its_rows_are_separated(database_urls: DatabaseUrls) -> None:
    assert execute(database_urls.owner, TENANT_TABLES_OPEN) == []
    execute(database_urls.owner, "create table toy (tenant_id uuid not null, secret text)")
    assert [row[0] for row in execute(database_urls.owner, TENANT_TABLES_OPEN)] == ["toy"]
    execute(database_urls.owner, "alter table toy enable row level security")
    assert [row[0] for row in execute(database_urls.owner, TENANT_TABLES_OPEN)] == ["toy"]
    execute(database_urls.owner, "alter table toy force row level security")
    assert execute(database_urls.owner, TENANT_TABLES_OPEN) == []
