"""The life of an experiment over GraphQL alone: what is taken, what is refused and in which words, and what serves in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.dummy import DummyClassifier

from tests.support.service import PROMOTE, ROOT, environment

if TYPE_CHECKING:
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

WHOLE = """{ key model status source hypothesis rollout variants { name version alias weight control shadow }
  primaryMetric { name kind direction aggregation } secondaryMetrics { name } guardrails { name aggregation } plannedUnits plannedLooks layer
  targeting { attribute operator values } createdBy startedAt endedAt revision }"""
CREATE = f"mutation($input: CreateExperimentInput!) {{ createExperiment(input: $input) {WHOLE} }}"
UPDATE = f"mutation($key: String!, $input: UpdateExperimentInput!) {{ updateExperiment(key: $key, input: $input) {WHOLE} }}"
VARIANTS = [{"name": "now", "version": 1, "control": True}, {"name": "new", "version": 2}]
CLICKED = {"name": "clicked", "kind": "PROPORTION"}


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    client = service.new_tenant("experiment-tests")
    for answer in ("a", "b"):
        client.ready("coin", "CLASSIFICATION", DummyClassifier(strategy="constant", constant=answer).fit([[0], [1]], ["a", "b"]))
    client.ask(PROMOTE, model="coin", version=1)
    return client


def step(name: str, arguments: str = "") -> str:
    return f"mutation($key: String!) {{ {name}Experiment(key: $key{arguments}) {{ status rollout startedAt endedAt revision }} }}"


def draft(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "model": "coin", "variants": VARIANTS, "primaryMetric": CLICKED, **more}


def test_a_plan_in_few_words_gets_the_contracts_defaults(admin: Client) -> None:
    made = admin.ask(CREATE, input=draft("few-words"))["createExperiment"]
    assert made == {
        "key": "few-words", "model": "coin", "status": "DRAFT", "source": "TURNOUT", "hypothesis": None, "rollout": 0,
        "variants": [
            {"name": "now", "version": 1, "alias": None, "weight": 1, "control": True, "shadow": False},
            {"name": "new", "version": 2, "alias": None, "weight": 1, "control": False, "shadow": False},
        ],
        "primaryMetric": {"name": "clicked", "kind": "PROPORTION", "direction": "INCREASE", "aggregation": "ANY"},
        "secondaryMetrics": [], "guardrails": [], "plannedUnits": None, "plannedLooks": 1, "layer": None, "targeting": [],
        "createdBy": "tester", "startedAt": None, "endedAt": None, "revision": 1,
    }  # fmt: skip
    assert admin.ask(f'{{ experiment(key: "few-words") {WHOLE} }}') == {"experiment": made}


def test_nulls_are_as_good_as_left_out(admin: Client) -> None:
    nothing = dict.fromkeys(
        ("hypothesis", "secondaryMetrics", "guardrails", "plannedUnits", "plannedLooks", "layer", "targeting", "overrides")
    )
    made = admin.ask(CREATE, input=draft("nulls", **nothing))["createExperiment"]
    assert (made["plannedLooks"], made["guardrails"], made["plannedUnits"]) == (1, [], None)


def test_a_draft_is_changed_in_part_and_null_clears(admin: Client) -> None:
    slow = {"name": "slow", "kind": "MEAN", "direction": "DECREASE"}
    admin.ask(CREATE, input=draft("changing", hypothesis="more clicks", layer="page", plannedUnits=2**53, guardrails=[slow]))
    first = admin.ask(UPDATE, key="changing", input={"hypothesis": None, "plannedUnits": 4000, "plannedLooks": 4})["updateExperiment"]
    assert (first["hypothesis"], first["layer"], first["plannedUnits"], first["plannedLooks"], first["revision"]) == (
        None,
        "page",
        4000,
        4,
        2,
    )
    assert first["guardrails"] == [{"name": "slow", "aggregation": "SUM"}]
    rules = [{"attribute": "country", "operator": "IN", "values": ["NO", "SE"]}]
    more = {"targeting": rules, "layer": None, "guardrails": [], "overrides": [{"unit": "me", "variant": "new"}]}
    second = admin.ask(UPDATE, key="changing", input=more)["updateExperiment"]
    assert (second["targeting"], second["layer"], second["guardrails"], second["plannedUnits"]) == (rules, None, [], 4000)


@pytest.mark.parametrize(
    ("more", "code", "why"),
    [
        ({"variants": VARIANTS[:1]}, "BAD_USER_INPUT", "There are 1 variants; there must be 2 to 10"),
        ({"key": "unleash-coin"}, "BAD_USER_INPUT", "are kept for experiments that are born in Unleash"),
        ({"plannedLooks": 3}, "BAD_USER_INPUT", "so plannedUnits is needed"),
        ({"plannedUnits": 99}, "BAD_USER_INPUT", "it must be at least 100"),
        ({"overrides": [{"unit": "me", "variant": "other"}]}, "BAD_USER_INPUT", "none that answers"),
        (
            {"targeting": [{"attribute": "a", "operator": "LIKE", "values": ["x"]}]},
            "BAD_USER_INPUT",
            "operator is 'LIKE': it must be one of",
        ),
        ({"model": "none"}, "NOT_FOUND", "There is no model named 'none'."),
        ({"variants": [VARIANTS[0], {"name": "new", "version": 9}]}, "NOT_FOUND", "There is no version 9 of the model 'coin'."),
    ],
)
def test_what_cannot_be_tried_is_refused_with_a_code_and_a_sentence(admin: Client, more: dict[str, Any], code: str, why: str) -> None:
    error = admin.refused(CREATE, input={**draft("refused"), **more})
    assert (error["extensions"]["code"], error["extensions"]["retryable"]) == (code, False)
    assert why in error["message"]


def test_a_metric_is_the_same_in_all_experiments_of_a_tenant(admin: Client) -> None:
    admin.ask(CREATE, input=draft("says-what-clicked-is"))
    error = admin.refused(CREATE, input=draft("says-otherwise", primaryMetric={"name": "clicked", "kind": "MEAN"}))
    assert (error["extensions"]["code"], error["extensions"]["retryable"]) == ("CONFLICT", False)
    assert "The metric 'clicked' of your tenant is PROPORTION INCREASE ANY" in error["message"]


def test_a_key_names_one_experiment(admin: Client) -> None:
    admin.ask(CREATE, input=draft("few-words-twice"))
    error = admin.refused(CREATE, input=draft("few-words-twice"))
    assert (error["extensions"]["code"], error["extensions"]["retryable"]) == ("CONFLICT", False)
    assert "There is an experiment with the key 'few-words-twice' already" in error["message"]


def test_from_start_to_a_new_production(admin: Client) -> None:
    admin.ask(CREATE, input=draft("whole-life"))
    assert admin.ask(step("start", ", rollout: 5"), key="whole-life")["startExperiment"]["rollout"] == 5
    admin.ask(CREATE, input=draft("second"))
    error = admin.refused(step("start"), key="second")
    assert error["extensions"]["code"] == "CONFLICT"
    assert "The experiment 'whole-life' runs on the model 'coin'" in error["message"]
    error = admin.refused(UPDATE, key="whole-life", input={"variants": [{**VARIANTS[0], "weight": 9}, VARIANTS[1]]})
    assert error["extensions"]["code"] == "CONFLICT"
    assert "would move units from one variant to another" in error["message"]
    assert admin.refused('mutation { archiveModelVersion(model: "coin", version: 2) { status } }')["extensions"]["code"] == "CONFLICT"
    assert admin.refused(step("ramp", ", rollout: 0.05"), key="whole-life")["extensions"]["code"] == "BAD_USER_INPUT"
    assert admin.ask(step("ramp", ", rollout: 99.999"), key="whole-life")["rampExperiment"]["rollout"] == 99.999
    stopped = admin.ask(step("stop"), key="whole-life")["stopExperiment"]
    assert (stopped["status"], stopped["revision"]) == ("STOPPED", 4)
    assert admin.predict("coin", [1])["label"] == "a"
    promote = ', promoteVariant: "new", expectedRevision: 1, reason: "more clicks"'
    assert admin.ask(step("conclude", promote), key="whole-life")["concludeExperiment"]["status"] == "CONCLUDED"
    assert admin.predict("coin", [1])["label"] == "b"
    told = "{ auditLog(subject: SUBJECT) { edges { node { action reason } } } }"
    log = admin.ask(told.replace("SUBJECT", '"experiment:whole-life"'))["auditLog"]["edges"]
    assert [(e["node"]["action"], e["node"]["reason"]) for e in log] == [
        ("concludeExperiment", "more clicks"), ("stopExperiment", None), ("rampExperiment", None), ("startExperiment", None),
        ("createExperiment", None),
    ]  # fmt: skip


def test_lists_are_newest_first_by_model_and_status_a_page_at_a_time(service: Service) -> None:
    client = service.new_tenant("experiment-lists")
    client.ready("coin", "CLASSIFICATION", DummyClassifier().fit([[0], [1]], ["a", "b"]))
    for number in range(3):
        same = [{"name": "now", "version": 1, "control": True}, {"name": "again", "version": 1}]
        client.ask(CREATE, input=draft(f"e{number}", variants=same))
    client.ask(step("start"), key="e1")
    query = """query($status: ExperimentStatus, $model: String, $after: String) { experiments(first: 2, status: $status, model: $model, after: $after) {
      edges { node { key } } pageInfo { endCursor hasNextPage hasPreviousPage } } }"""

    def keys(**variables: Any) -> tuple[list[str], dict[str, Any]]:
        page = client.ask(query, **variables)["experiments"]
        return [edge["node"]["key"] for edge in page["edges"]], page["pageInfo"]

    first, info = keys()
    rest, end = keys(after=info["endCursor"])
    assert (first, rest, info["hasNextPage"], end["hasNextPage"], end["hasPreviousPage"]) == (["e2", "e1"], ["e0"], True, False, True)
    assert keys(status="RUNNING")[0] == ["e1"]
    assert keys(model="coin", status="DRAFT")[0] == ["e2", "e0"]
    assert keys(model="none")[0] == []


def test_the_whole_life_in_the_terminal(service: Service) -> None:
    client = service.new_tenant("experiment-terminal")
    for answer in ("a", "b"):
        client.ready("coin", "CLASSIFICATION", DummyClassifier(strategy="constant", constant=answer).fit([[0], [1]], ["a", "b"]))
    client.ask(PROMOTE, model="coin", version=1)

    def turnout(*arguments: str) -> Any:
        command = [sys.executable, "-m", "app.cli.main", "experiment", *arguments, "--url", service.url, "--token", client.token, "--json"]
        done = subprocess.run(command, cwd=ROOT, env=environment(service.home), capture_output=True, text=True, timeout=60, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else (done.returncode, done.stderr)

    plan = ("--key", "coins", "--model", "coin", "--control", "now=1", "--variant", "new=2", "--metric", "clicked")
    assert turnout("create", *plan)["status"] == "DRAFT"
    assert turnout("start", "coins", "--rollout", "5")["rollout"] == 5
    assert turnout("ramp", "coins", "50")["rollout"] == 50
    assert [found["key"] for found in turnout("list", "--status", "running")] == ["coins"]
    assert {each["variant"]: each["units"] for each in turnout("results", "coins")["variants"]} == {"now": 0, "new": 0}
    status, told = turnout("start", "coins")
    assert (status, "is RUNNING and cannot be started" in told) == (1, True)
    assert turnout("stop", "coins", "--reason", "enough")["status"] == "STOPPED"
    assert turnout("conclude", "coins", "--promote", "new")["status"] == "CONCLUDED"
    assert client.predict("coin", [1])["label"] == "b"
    assert turnout("show", "coins")["revision"] == 5
