"""Experiments on a real service of several processes: who gets which version, what is written down, and what arms cannot do."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from tests.integration.service.test_registry import constant
from tests.support.database import execute
from tests.support.service import own_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("experiments")]

WORKERS = 4
CREATE = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key status } }"
START = "mutation($key: String!, $rollout: Float! = 100) { startExperiment(key: $key, rollout: $rollout) { status rollout } }"
RAMP = "mutation($key: String!, $rollout: Float!) { rampExperiment(key: $key, rollout: $rollout) { rollout } }"
STOP = "mutation($key: String!) { stopExperiment(key: $key) { status } }"
WITHDRAW = 'mutation($version: Int!) { withdrawModelVersion(model: "m", version: $version, reason: "bad") { status } }'
ANSWER = "id version variant experiment reason"
PREDICT = f"""query($row: FeatureRow!, $unit: ID, $attributes: Attributes) {{
  predict(model: "m", features: $row, unit: $unit, attributes: $attributes) {{ {ANSWER} }} }}"""
BATCH = f'query($rows: [FeatureRow!], $unit: ID) {{ predictBatch(model: "m", rows: $rows, unit: $unit) {{ {ANSWER} }} }}'
PLENTY = {"requestsPerSecond": 1_000_000, "burst": 1_000_000, "concurrency": 10_000}
CONVERSION = {"name": "bought", "kind": "PROPORTION"}
CONTROL = {"name": "control", "version": 1, "control": True}
TREATMENT = {"name": "treatment", "version": 2}
CANDIDATE = {"name": "candidate", "version": 3, "shadow": True}


@pytest.fixture(scope="module")
def serving() -> Iterator[Service]:
    with own_service("--workers", str(WORKERS)) as running:
        yield running


def three_versions(service: Service, tenant: str) -> Client:
    """An ADMIN of a tenant whose model `m` has three versions; production is the first."""
    admin = service.new_tenant(tenant, **PLENTY)
    admin.serve("m", "CLASSIFICATION", constant(1))
    for number in (2, 3):
        assert admin.ready("m", "CLASSIFICATION", constant(number), description=f"v{number}") == number
    return admin


def begin(admin: Client, *variants: dict[str, Any], rollout: float = 100, **more: Any) -> None:
    """An experiment `e` that runs at every process when this returns."""
    given = {"key": "e", "model": "m", "variants": list(variants), "primaryMetric": CONVERSION, **more}
    admin.ask(CREATE, input=given)
    assert admin.ask(START, key="e", rollout=rollout)["startExperiment"] == {"status": "RUNNING", "rollout": rollout}
    everywhere(admin, lambda answer: answer["reason"] != "ALIAS")


def everywhere(admin: Client, true: Callable[[dict[str, Any]], bool], unit: str = "u0", **more: Any) -> None:
    """Returns when so many answers in a row, over a connection each, say so that every process gave one."""
    end, in_a_row = time.monotonic() + 30, 0
    while in_a_row < 16 * WORKERS:
        assert time.monotonic() < end, "it does not come to be so"
        in_a_row = in_a_row + 1 if true(ask(admin, unit, **more)) else 0


def ask(admin: Client, unit: str | None, **more: Any) -> dict[str, Any]:
    """One answer over a connection of its own: any process may give it."""
    return admin.ask(PREDICT, row=[1, 2], unit=unit, **more)["predict"]


class Log:
    """What the service's database holds of one tenant."""

    def __init__(self, service: Service, tenant: str) -> None:
        server = EmbeddedPostgres(service.home)
        assert server.start() is False, "joined: it is the service's"
        self._url = server.url(DatabaseRole.RUNTIME)
        (row,) = execute(server.url(DatabaseRole.SYNC), "select tenant_id from tenants where id = $1", tenant)
        self._tenant: UUID = row["tenant_id"]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in execute(self._url, sql, tenant_id=self._tenant)]

    def until(self, sql: str, true: Callable[[list[tuple[Any, ...]]], bool]) -> list[tuple[Any, ...]]:
        end = time.monotonic() + 30
        while not true(rows := self.rows(sql)):
            assert time.monotonic() < end, rows[:5]
            time.sleep(0.05)
        return rows


def test_a_unit_gets_the_same_arm_of_every_process_and_each_answer_is_in_the_log_with_its_reason(serving: Service) -> None:
    admin = three_versions(serving, "same-arm")
    begin(admin, CONTROL, TREATMENT)
    units = [f"u{n}" for n in range(40)]
    answers = [(unit, ask(admin, unit)) for _ in range(5) for unit in units]
    arms = {unit: {(a["variant"], a["version"]) for u, a in answers if u == unit} for unit in units}

    assert {a["reason"] for _, a in answers} == {"EXPERIMENT"}
    assert Counter(arm for found in arms.values() for arm in found).keys() == {("control", 1), ("treatment", 2)}
    assert all(len(found) == 1 for found in arms.values())

    log, ids = Log(serving, "same-arm"), {a["id"] for _, a in answers}
    found = log.until(
        "select id::text, version, variant, experiment, reason, propensity, unit_hash, flag_revision from predictions",
        lambda rows: ids <= {row[0] for row in rows},
    )
    told = {row[0]: row for row in found}
    for _, answer in answers:
        assert told[answer["id"]][1:6] == (answer["version"], answer["variant"], "e", "EXPERIMENT", 0.5)
    assert {row[7] is None for row in found if row[4] == "EXPERIMENT"} == {False}
    hashes = {told[a["id"]][6] for _, a in answers}
    assert len(hashes) == len(units)
    assert not hashes & set(units)


def test_exposures_are_what_the_log_holds_of_the_experiment_and_nothing_else(serving: Service) -> None:
    admin = three_versions(serving, "exposures")
    begin(admin, CONTROL, TREATMENT, overrides=[{"unit": "tester", "variant": "treatment"}])
    for unit in [*(f"u{n}" for n in range(20)), "tester", None]:
        ask(admin, unit)
    admin.ask(BATCH, rows=[[1, 2], [3, 4]], unit="u1")
    log = Log(serving, "exposures")
    logged = "select unit_hash, variant, count(*) from predictions where reason = 'EXPERIMENT' group by 1, 2 order by 1"
    counted = """select unit_hash, variant, sum(requests)::bigint from (
      select unit_hash, variant, 1 as requests from exposure_queue union all select unit_hash, variant, requests from exposures
    ) together group by 1, 2 order by 1"""
    log.until("select count(*) from predictions where reason in ('PINNED', 'NO_UNIT')", lambda rows: rows == [(2,)])
    rows = log.until(logged, lambda rows: len(rows) == 20)

    assert log.until(counted, lambda found: found == rows) == rows


def test_what_a_shadow_says_to_each_input_is_written_down_and_never_returned(serving: Service) -> None:
    admin = three_versions(serving, "shadowed")
    begin(admin, CONTROL, {**TREATMENT, "weight": 9}, CANDIDATE)
    answers = [ask(admin, f"v{n}") for n in range(30)]
    assert {a["version"] for a in answers} == {1, 2}
    log, of_arm = Log(serving, "shadowed"), {a["id"]: a for a in answers}
    shadows = log.until(
        "select prediction_id::text, version, served_version, served_variant, label, served_label, row from shadow_answers"
        " where kind = 'SHADOW'",
        lambda rows: of_arm.keys() <= {row[0] for row in rows},
    )
    covariates = log.until(
        "select prediction_id::text, version, served_variant, variant, score is not null from shadow_answers where kind = 'COVARIATE'",
        lambda rows: {i for i, a in of_arm.items() if a["variant"] == "treatment"} <= {row[0] for row in rows},
    )

    for row in shadows:
        if row[0] in of_arm:
            assert row[1:4] == (3, of_arm[row[0]]["version"], of_arm[row[0]]["variant"])
    assert len({row[0] for row in shadows}) == len(shadows)
    assert {(row[4], row[5], row[6]) for row in shadows} <= {("1", "1", 0), ("1", "0", 0)}
    assert {row[1:] for row in covariates} == {(1, "treatment", "control", True)}


def test_a_withdrawn_arm_falls_back_to_production_everywhere_and_no_request_fails(serving: Service) -> None:
    admin = three_versions(serving, "withdrawn")
    begin(admin, CONTROL, {**TREATMENT, "weight": 10_000})
    assert ask(admin, "u1")["version"] == 2
    admin.ask(WITHDRAW, version=2)
    everywhere(admin, lambda answer: answer["reason"] == "UNKNOWN_VARIANT")
    answer = ask(admin, "u1")

    assert {name: answer[name] for name in ("version", "variant", "experiment")} == {"version": 1, "variant": None, "experiment": "e"}
    metrics = httpx.get(f"{serving.url}/metrics", timeout=10).text
    (count,) = [
        float(line.split()[-1]) for line in metrics.splitlines() if line.startswith('turnout_flag_fallbacks_total{reason="missing"}')
    ]
    assert count >= 16 * WORKERS


def test_a_ramp_and_a_stop_reach_every_process_and_nobody_changes_arm(serving: Service) -> None:
    admin = three_versions(serving, "ramped")
    begin(admin, CONTROL, TREATMENT)
    units = [f"u{n}" for n in range(30)]
    before = {unit: ask(admin, unit)["variant"] for unit in units}
    admin.ask(RAMP, key="e", rollout=30)
    out = next(unit for unit in (f"o{n}" for n in range(1000)) if ask(admin, unit)["reason"] == "OUT_OF_ROLLOUT")
    everywhere(admin, lambda answer: answer["reason"] == "OUT_OF_ROLLOUT", unit=out)
    after = {unit: ask(admin, unit) for unit in units}

    assert {a["reason"] for a in after.values()} == {"EXPERIMENT", "OUT_OF_ROLLOUT"}
    assert all(a["variant"] in {None, before[unit]} for unit, a in after.items())
    admin.ask(STOP, key="e")
    everywhere(admin, lambda answer: (answer["reason"], answer["version"]) == ("ALIAS", 1))


def test_attributes_choose_who_takes_part_and_wrong_ones_are_refused_with_the_reason(serving: Service) -> None:
    admin = three_versions(serving, "targeted")
    begin(admin, CONTROL, TREATMENT, targeting=[{"attribute": "country", "operator": "IN", "values": ["NO", "SE"]}])
    told = [ask(admin, "u1", attributes=sent)["reason"] for sent in ({"country": "NO"}, {"country": "FI"}, {}, None)]
    assert told == ["EXPERIMENT", "NOT_TARGETED", "NOT_TARGETED", "NOT_TARGETED"]
    for wrong, why in (({"country": 5}, "strings"), ({"tenantId": "other"}, "'tenantId' is set by the service")):
        refused = admin.refused(PREDICT, row=[1, 2], unit="u1", attributes=wrong)
        assert refused["extensions"]["code"] == "BAD_USER_INPUT"
        assert why in refused["message"]
