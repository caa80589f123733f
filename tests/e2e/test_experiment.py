"""A whole experiment by GraphQL alone, and its verdict beside one that is computed from the raw rows by other means."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from tests.support.database import execute
from tests.support.service import own_service

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

UNITS, REQUESTS, AT_ONCE = 4_000, 20_000, 8
PREDICT = """query($row: FeatureRow!, $unit: ID!) { predict(model: "tumour", features: $row, unit: $unit) {
  id version variant experiment reason } }"""
OUTCOMES = "mutation($inputs: [OutcomeInput!]!) { recordOutcomes(inputs: $inputs) { recorded { duplicate } rejected { message } } }"
OUTCOME = "mutation($input: OutcomeInput!) { recordOutcome(input: $input) { id pending duplicate value } }"
RESULTS = """{ experiment(key: "new-tumour") { status rollout results { metric verdict winner looks plannedLooks adjusted
  srm { pValue ok } variants { variant units exposures mean standardError difference differenceLow differenceHigh lift pValue
  sequentialLow sequentialHigh chanceToBeatControl verdict } } } }"""


@pytest.fixture(scope="module")
def service():
    with own_service("--workers", "2") as running:
        yield running


def chance_of(unit: int, variant: str) -> bool:
    """Whether the unit does what we hope for: more of them where the new version answers."""
    return random.Random(f"outcome-{unit}").random() < (0.6 if variant == "new" else 0.4)


def test_create_start_predict_record_read_conclude_and_production_serves_the_winner(service):
    admin = service.new_tenant("clinic")
    data, y = load_breast_cancer(return_X_y=True)
    old = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(data[:, :8], y)
    new = make_pipeline(StandardScaler(), LogisticRegression(C=1.0)).fit(data[:, :8], y)
    first = admin.serve("tumour", "CLASSIFICATION", old)
    second = admin.ready("tumour", "CLASSIFICATION", new)
    made = admin.ask(
        "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key status variants { name weight control } } }",
        input={
            "key": "new-tumour", "model": "tumour", "plannedUnits": UNITS, "plannedLooks": 4,
            "variants": [{"name": "old", "version": first, "control": True}, {"name": "new", "version": second}],
            "primaryMetric": {"name": "returned", "kind": "PROPORTION"},
        },
    )  # fmt: skip
    assert made["createExperiment"]["status"] == "DRAFT"
    started = admin.ask('mutation { startExperiment(key: "new-tumour") { status rollout } }')
    assert started == {"startExperiment": {"status": "RUNNING", "rollout": 100.0}}

    headers = {"Authorization": f"Bearer {service.token('clinic', 'PREDICTOR', subject='app')}"}
    variants: dict[int, set[str]] = {}
    answers: list[tuple[int, str, str]] = []  # unit, prediction, variant
    soon: list[bool] = []  # whether an outcome sent right after the answer was pending

    def ask(client: httpx.Client, number: int) -> None:
        unit = number % UNITS
        body = {"query": PREDICT, "variables": {"unit": f"patient-{unit}", "row": data[number % len(data), :8].tolist()}}
        answer = client.post("/graphql", json=body).json()["data"]["predict"]
        assert (answer["reason"], answer["experiment"]) == ("EXPERIMENT", "new-tumour"), answer
        assert answer["version"] == (second if answer["variant"] == "new" else first)
        variants.setdefault(unit, set()).add(answer["variant"])
        answers.append((unit, answer["id"], answer["variant"]))
        if number < UNITS and number % 20 == 0 and chance_of(unit, answer["variant"]):
            given = {"predictionId": answer["id"], "metric": "returned", "value": 1}
            told = client.post("/graphql", json={"query": OUTCOME, "variables": {"input": given}}).json()
            assert not told.get("errors"), told
            soon.append(told["data"]["recordOutcome"]["pending"])

    def worker(first_number: int) -> None:
        with httpx.Client(base_url=service.url, headers=headers, timeout=120) as client:
            for number in range(first_number, REQUESTS, AT_ONCE):
                ask(client, number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(worker, range(AT_ONCE)))
    assert len(answers) == REQUESTS
    assert all(len(seen) == 1 for seen in variants.values())  # the same unit in the same arm, on both workers
    assert any(soon), "no outcome came before its prediction was in the log: the race was not run"

    last = {unit: (prediction, variant) for unit, prediction, variant in answers}
    inputs = [
        {"predictionId": prediction, "metric": "returned", "value": 1, "idempotencyKey": f"k-{unit}"}
        for unit, (prediction, variant) in sorted(last.items())
        if chance_of(unit, variant)
    ]
    for start in range(0, len(inputs), 1_000):
        for duplicate in (False, True):  # a retry never counts twice
            told = admin.ask(OUTCOMES, inputs=inputs[start : start + 1_000])["recordOutcomes"]
            assert told["rejected"] == []
            assert {each["duplicate"] for each in told["recorded"]} == {duplicate}

    landed(service, "clinic", REQUESTS)
    found = admin.ask(RESULTS)["experiment"]["results"]
    expected = from_raw_rows(service, "clinic")
    held(found, expected)
    # The units' arms come of the tenant's own secret, and of a thousand honest splits one looks as if it were none.
    honest = found["srm"]["pValue"] >= 0.001
    assert found["srm"]["ok"] is honest
    assert (found["looks"], found["plannedLooks"]) == (4, 4)
    assert (found["verdict"], found["winner"]) == ("WINNER", "new") or not honest

    concluded = admin.ask('mutation { concludeExperiment(key: "new-tumour", promoteVariant: "new", reason: "it won") { status endedAt } }')[
        "concludeExperiment"
    ]
    assert concluded["status"] == "CONCLUDED"
    assert admin.predict("tumour", data[0, :8].tolist(), unit="patient-1")["version"] == second
    after = admin.predict("tumour", data[0, :8].tolist(), unit="patient-1")
    assert after["reason"] == "ALIAS"


def url_of(service, role: DatabaseRole) -> str:
    server = EmbeddedPostgres(service.home)
    assert server.join()
    return server.url(role)


def tenant_of(service, tenant: str):
    rows = execute(url_of(service, DatabaseRole.SYNC), "select id, tenant_id from tenants")
    return next(row["tenant_id"] for row in rows if row["id"] == tenant)


def landed(service, tenant: str, count: int) -> None:
    """Returns when all answers are in the log and everything was asked of the control that is going to be."""
    tenant_id, end, before, in_a_row = tenant_of(service, tenant), time.monotonic() + 300, -1, 0
    while time.monotonic() < end:
        url = url_of(service, DatabaseRole.RUNTIME)
        rows = execute(url, "select count(*) from predictions", tenant_id=tenant_id)[0][0]
        asked = execute(url, "select count(*) from shadow_answers", tenant_id=tenant_id)[0][0]
        in_a_row = in_a_row + 1 if rows == count and asked == before else 0
        if in_a_row == 6:
            return
        before = asked
        time.sleep(0.5)
    raise AssertionError(f"{rows} of {count} answers are in the log")


def from_raw_rows(service, tenant: str) -> dict[str, dict[str, float]]:
    """Means of what each unit did, per arm, and the difference: by numpy and scipy over predictions, outcomes and shadow answers."""
    tenant_id, url = tenant_of(service, tenant), url_of(service, DatabaseRole.RUNTIME)
    served = execute(
        url, "select id, at, unit_hash, variant, score from predictions where reason = 'EXPERIMENT' order by at, id", tenant_id=tenant_id
    )
    covariates = {
        row["prediction_id"]: row["score"]
        for row in execute(url, "select prediction_id, score from shadow_answers where kind = 'COVARIATE'", tenant_id=tenant_id)
    }
    happened: dict[str, list] = {}
    of_prediction = {row["id"]: row["unit_hash"] for row in served}
    for row in execute(url, "select prediction_id, occurred_at, value from outcomes", tenant_id=tenant_id):
        happened.setdefault(of_prediction[row["prediction_id"]], []).append((row["occurred_at"], row["value"]))
    units: dict[str, tuple] = {}
    requests: dict[str, int] = {}
    for row in served:
        units.setdefault(row["unit_hash"], row)
        requests[row["variant"]] = requests.get(row["variant"], 0) + 1
    arms: dict[str, list[tuple[float, float | None]]] = {}
    for unit, first in units.items():
        did = any(at >= first["at"] and value != 0 for at, value in happened.get(unit, ()))
        x = first["score"] if first["variant"] == "old" else covariates.get(first["id"])
        arms.setdefault(first["variant"], []).append((float(did), x))
    return {
        "units": {name: len(rows) for name, rows in arms.items()},
        "exposures": requests,
        "rows": {name: np.array([(y, np.nan if x is None else x) for y, x in rows]) for name, rows in arms.items()},
    }


def held(found, expected) -> None:
    by_name = {each["variant"]: each for each in found["variants"]}
    rows = expected["rows"]
    for name in ("old", "new"):
        arm, y = by_name[name], rows[name][:, 0]
        assert (arm["units"], arm["exposures"]) == (expected["units"][name], expected["exposures"][name])
        assert arm["mean"] == pytest.approx(y.mean(), abs=1e-9)
        assert arm["standardError"] == pytest.approx(y.std(ddof=1) / np.sqrt(len(y)), abs=1e-9)
    counts = [expected["units"]["old"], expected["units"]["new"]]
    assert sum(counts) == UNITS
    assert found["srm"]["pValue"] == pytest.approx(stats.chisquare(counts, [UNITS / 2] * 2).pvalue, abs=1e-9)
    assert found["adjusted"] is True
    control, new = without_what_was_foreseeable(rows["old"], rows["new"])
    welch = stats.ttest_ind(new, control, equal_var=False)
    assert by_name["new"]["difference"] == pytest.approx(new.mean() - control.mean(), abs=1e-9)
    assert by_name["new"]["lift"] == pytest.approx(new.mean() / control.mean() - 1, abs=1e-9)
    assert abs(welch.statistic) > 3  # far from any border, so that the verdict is no matter of luck
    assert by_name["new"]["differenceLow"] > 0
    assert all(by_name["old"][name] is None for name in ("difference", "differenceLow", "differenceHigh", "lift", "pValue"))


def without_what_was_foreseeable(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values less theta times the covariate about its mean, theta from least squares with an intercept an arm."""
    both = np.concatenate([old, new])
    y, x = both[:, 0], np.where(np.isnan(both[:, 1]), np.nanmean(both[:, 1]), both[:, 1]) - np.nanmean(both[:, 1])
    arm = np.repeat([0.0, 1.0], [len(old), len(new)])
    theta = np.linalg.lstsq(np.column_stack([1 - arm, arm, x]), y, rcond=None)[0][2]
    adjusted = y - theta * x
    return adjusted[: len(old)], adjusted[len(old) :]
