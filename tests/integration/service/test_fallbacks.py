"""A version that fails is answered for by its fallback, end to end: degraded, in the log as such, and counted in its arm."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.support.moody import ENDS, HANGS, NAN, RAISES, moody
from tests.support.service import PREDICT, PROMOTE, own_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service

pytestmark = pytest.mark.integration
UPDATE = "mutation($model: String!, $input: UpdateModelInput!) { updateModel(name: $model, input: $input) { fallback { kind } } }"
BATCH = """query($model: String!, $rows: [FeatureRow!]) { predictBatch(model: $model, rows: $rows) {
  version reason degraded classes labels probabilities values } }"""
LINE = np.array([[0.0], [1.0]])


@pytest.fixture(scope="module")
def trusting() -> Iterator[Service]:
    with own_service(TURNOUT_ARTIFACT_TRUST="full", TURNOUT_REQUEST_TIMEOUT_S="4") as running:
        yield running


def tenant(service: Service, name: str) -> Client:
    return service.new_tenant(name)


def moody_behind_a_line(client: Client, model: str = "m") -> None:
    """Version 1 answers the row's number, version 2, in production, twice that, in its moods."""
    client.serve(model, "REGRESSION", LinearRegression().fit(LINE, LINE[:, 0]))
    client.serve(model, "REGRESSION", moody(model), sample=[[float(value)] for value in range(5)])


def falls_back(client: Client, model: str, **fallback: Any) -> None:
    client.ask(UPDATE, model=model, input={"fallback": fallback})


def told(answer: dict[str, Any]) -> tuple[Any, ...]:
    return (answer["version"], answer["reason"], answer["degraded"], round(answer["value"], 9))


@pytest.mark.parametrize(("name", "mood"), [("raises", RAISES), ("ends", ENDS), ("nan", NAN), ("hangs", HANGS)])
def test_whatever_a_version_does_its_previous_one_answers(trusting: Service, name: str, mood: float) -> None:
    client = tenant(trusting, f"prev-{name}")
    moody_behind_a_line(client)
    falls_back(client, "m", kind="PREVIOUS")
    assert told(client.predict("m", [1.5])) == (2, "ALIAS", False, 3.0)
    assert told(client.predict("m", [mood])) == (1, "FALLBACK", True, mood)
    end = time.monotonic() + 60
    while (answer := client.predict("m", [2.5]))["degraded"] and time.monotonic() < end:  # while the next worker starts
        time.sleep(0.1)
    assert told(answer) == (2, "ALIAS", False, 5.0)


def test_a_batch_is_answered_by_one_version_and_a_pinned_request_by_none_but_its_own(trusting: Service) -> None:
    client = tenant(trusting, "batches")
    moody_behind_a_line(client)
    falls_back(client, "m", kind="VERSION", version=1)
    answer = client.ask(BATCH, model="m", rows=[[1.0], [RAISES]])["predictBatch"]
    assert (answer["version"], answer["reason"], answer["degraded"]) == (1, "FALLBACK", True)
    assert answer["values"] == pytest.approx([1.0, RAISES])
    refused = client.refused(PREDICT, model="m", row=[RAISES], version=2)
    assert refused["extensions"]["code"] == "MODEL_FAILED"
    assert refused["extensions"]["retryable"] is False
    assert "not in the mood" in refused["message"]


def test_a_bad_output_is_a_typed_error(trusting: Service) -> None:
    client = tenant(trusting, "outputs")
    moody_behind_a_line(client)
    error = client.refused(PREDICT, model="m", row=[NAN])
    assert (error["extensions"]["code"], error["extensions"]["problems"][0]["problem"]) == ("MODEL_FAILED", "BAD_OUTPUT")


def test_an_input_that_ends_workers_is_refused_with_the_reason(trusting: Service) -> None:
    client = tenant(trusting, "poison")
    moody_behind_a_line(client)
    problems = [client.refused(PREDICT, model="m", row=[ENDS])["extensions"]["problems"][0]["problem"] for _ in range(3)]
    assert problems == ["WORKER_DIED", "QUARANTINED", "QUARANTINED"]
    error = client.refused(PREDICT, model="m", row=[ENDS])
    assert (error["extensions"]["code"], error["extensions"]["retryable"]) == ("MODEL_FAILED", False)
    assert "ended on this input twice (it ended by itself (status 3))" in error["message"]
    assert told(client.predict("m", [1.0])) == (2, "ALIAS", False, 2.0)


def test_before_anything_is_in_production_a_fixed_answer_is_given(trusting: Service) -> None:
    client = tenant(trusting, "cold")
    labels = np.array(["no", "yes"])
    client.ready("c", "CLASSIFICATION", LogisticRegression().fit(LINE, labels))
    assert client.refused(PREDICT, model="c", row=[1.0])["extensions"]["code"] == "NOT_FOUND"
    falls_back(client, "c", kind="ANSWER", answer="no")
    answer = client.predict("c", {"whatever": "it is"})
    expected = {
        "version": 0,
        "reason": "FALLBACK",
        "degraded": True,
        "label": "no",
        "probability": None,
        "probabilities": None,
        "value": None,
    }
    assert {name: answer[name] for name in expected} == expected
    batch = client.ask(BATCH, model="c", rows=[[1.0], [2.0]])["predictBatch"]
    assert (batch["version"], batch["labels"], batch["probabilities"], batch["classes"]) == (0, ["no", "no"], None, ["no"])
    client.ask(PROMOTE, model="c", version=1)
    assert (client.predict("c", [1.0])["version"], client.predict("c", [1.0])["degraded"]) == (1, False)


def test_a_version_that_goes_on_failing_is_left_alone_and_health_and_metrics_say_so(trusting: Service) -> None:
    client = tenant(trusting, "breaking")
    moody_behind_a_line(client)
    opened = metric(trusting, 'turnout_breaker_changes_total{state="OPEN"}')
    failed = 0
    while (refused := refusal(client, [[RAISES], [100.0 + failed]]))["code"] == "MODEL_FAILED":  # each batch is an input of its own
        failed += 1
        assert failed < 30
    assert (refused["code"], refused["retryable"]) == ("MODEL_UNAVAILABLE", True)
    assert 0 < refused["retryAfterMs"] <= 6_001
    # Five in a row open it; on a machine that then stands still for seconds one more may try, fails, and opens it again.
    assert metric(trusting, 'turnout_breaker_changes_total{state="OPEN"}') - opened == failed - 4 >= 1
    health = httpx.get(f"{trusting.url}/health", timeout=30).json()
    assert "OPEN" in {model["breaker"] for model in health["models"]}
    assert metric(trusting, "turnout_breakers_open") >= 1

    falls_back(client, "m", kind="PREVIOUS")
    answer = client.predict("m", [1.0])
    assert (answer["version"], answer["degraded"]) in {(1, True), (2, False)}
    end = time.monotonic() + 60
    while (answer := client.predict("m", [1.0]))["degraded"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert told(answer) == (2, "ALIAS", False, 2.0)


def refusal(client: Client, rows: list[list[float]]) -> dict[str, Any]:
    """What the one error of a batch that must have one says."""
    said: dict[str, Any] = client.refused(BATCH, model="m", rows=rows)["extensions"]
    return said


def metric(service: Service, series: str) -> float:
    """Of one series; 0 where there is none yet."""
    lines = httpx.get(f"{service.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} "))
