"""Usage, service level and the sealed audit log at a running service, and from a terminal."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.dummy import DummyClassifier

from app.db.embedded.server import EmbeddedPostgres
from tests.support.database import execute
from tests.support.service import BATCH, ROOT, environment, own_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]
PRICES = {
    "TURNOUT_CURRENCY": "NOK", "TURNOUT_PRICE_PER_MILLION_REQUESTS": "1000000", "TURNOUT_PRICE_PER_MILLION_ROWS": "2000000",
    "TURNOUT_SLO_LATENCY_MS": "60000", "TURNOUT_SLO_OBJECTIVE": "0.5",
}  # fmt: skip
USAGE = """query($from: DateTime!, $to: DateTime!) { usage(from: $from, to: $to) {
  requests rows computeMs artifactBytes costMicros currency byModel { model version requests rows computeMs }
  byDay { day model version requests rows computeMs artifactBytes } } }"""
LEVEL = "{ serviceLevel { requests failed late share objective errorBudgetLeft } }"


@pytest.fixture(scope="module")
def priced() -> Iterator[Service]:
    with own_service(**PRICES) as running:
        yield running


def today(days: int = 0) -> str:
    return (datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)).isoformat()


def server_of(service: Service) -> EmbeddedPostgres:
    server = EmbeddedPostgres(service.home)
    assert server.join()
    return server


def eventually(ask: Any, wanted: Any) -> Any:
    end = time.monotonic() + 60
    while (found := ask()) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return found


def turnout(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(service.home), capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def admin(priced: Service) -> Client:
    """Two predictions and a batch of five, answered by two versions."""
    admin = priced.new_tenant("used")
    admin.serve("coin", "CLASSIFICATION", DummyClassifier().fit([[0], [1]], [0, 1]))
    admin.predict("coin", [1])
    admin.predict("coin", [0])
    admin.serve("coin", "CLASSIFICATION", DummyClassifier(strategy="most_frequent").fit([[0], [1]], [0, 1]))
    admin.ask(BATCH, model="coin", rows=[[1]] * 5)
    return admin


def test_usage_says_what_was_answered_by_version_and_day_and_what_it_costs(admin: Client) -> None:
    def asked() -> dict[str, Any]:
        return admin.ask(USAGE, **{"from": yesterday, "to": today(1)})["usage"]

    yesterday = today(-1)  # the predictions were made a moment ago, and it may have been midnight since
    eventually(lambda: asked()["requests"], 3)
    found = asked()
    assert (found["requests"], found["rows"], found["costMicros"], found["currency"]) == (3, 7, 3 + 14, "NOK")
    assert [(m["model"], m["version"], m["requests"], m["rows"]) for m in found["byModel"]] == [("coin", 1, 2, 2), ("coin", 2, 1, 5)]
    assert found["computeMs"] == pytest.approx(sum(m["computeMs"] for m in found["byModel"]))
    of_days: Counter[int] = Counter()
    for day in found["byDay"]:
        of_days[day["version"]] += day["requests"]
    assert of_days == {1: 2, 2: 1}
    assert sum(d["artifactBytes"] for d in found["byDay"]) == found["artifactBytes"] > 0
    assert admin.refused(USAGE, **{"from": "2026-03-01T00:00:00", "to": today()})["extensions"]["code"] == "BAD_USER_INPUT"


def test_turnout_usage_prints_a_table_and_a_csv_by_tenant_day_model_and_version(priced: Service, admin: Client) -> None:
    yesterday = today(-1)
    eventually(lambda: admin.ask(USAGE, **{"from": yesterday, "to": today(1)})["usage"]["requests"], 3)
    table = turnout(priced, "usage", "--tenant", "used", "--url", priced.url)
    assert table.returncode == 0, table.stderr
    assert "0.000017 NOK" in table.stdout
    wide = turnout(priced, "usage", "--csv", "--tenant", "used", "--url", priced.url, "--from", "2026-01-01", "--to", today(1)[:10])
    assert wide.returncode == 0, wide.stderr
    rows = list(csv.DictReader(io.StringIO(wide.stdout)))
    assert [(r["tenant"], r["model"], r["version"], r["requests"], r["rows"]) for r in rows] == [
        ("used", "coin", "1", "2", "2"),
        ("used", "coin", "2", "1", "5"),
    ]


def test_the_service_level_counts_answers_and_not_the_callers_errors(admin: Client) -> None:
    admin.post('{ predict(model: "none", features: [1]) { id } }')
    admin.post('{ predict(model: "coin", features: "x") { id } }')
    admin.ask("{ viewer { tenant } }")
    level = {"requests": 3, "failed": 0, "late": 0, "share": 1.0, "objective": 0.5, "errorBudgetLeft": 1.0}
    assert eventually(lambda: admin.ask(LEVEL)["serviceLevel"], level) == level


def test_every_entry_of_a_running_service_is_sealed_under_a_pseudonym_and_shown_by_name(priced: Service, admin: Client) -> None:
    listed = admin.ask('{ auditLog(actor: "tester") { edges { node { actor action } } } }')["auditLog"]["edges"]
    assert {edge["node"]["actor"] for edge in listed} == {"tester"}
    actions = {edge["node"]["action"] for edge in listed}
    assert {"createTenant", "uploadArtifact", "registerModelVersion"} <= actions
    one = admin.ask('query { auditLog(action: "createTenant") { edges { node { actor } } } }')["auditLog"]["edges"]
    assert len(one) == 1
    none = admin.ask('query { auditLog(to: "2020-01-01T00:00:00Z") { edges { cursor } } }')["auditLog"]["edges"]
    assert none == []
    rows = execute(server_of(priced)._superuser_url("turnout"), "select actor, sequence, seal from audit_entries")
    assert all(row["seal"] is not None and row["actor"].startswith("person_") for row in rows)


def test_the_doctor_verifies_every_tenants_log_and_names_the_first_broken_entry(priced: Service, admin: Client, tmp_path: Any) -> None:
    def doctor(*more: str) -> list[dict[str, str]]:
        done = turnout(priced, "doctor", "--audit", "--json", *more)
        assert done.stdout, done.stderr
        return [finding for finding in json.loads(done.stdout)["findings"] if finding["area"] == "audit"]

    (fine,) = doctor()
    assert fine["level"] == "ok"
    assert "tenants hold" in fine["text"]
    url = server_of(priced)._superuser_url("turnout")
    ((tenant_id, sequence, seal),) = execute(url, "select h.* from audit_heads h join tenants t using (tenant_id) where t.id = 'used'")
    line = {"event": "audit_head", "tenant_id": str(tenant_id), "sequence": sequence, "seal": seal.hex()}
    heads = tmp_path / "log"
    heads.write_text(f"no JSON\n{json.dumps(line)}\n")
    assert [each["level"] for each in doctor("--heads", str(heads))] == ["ok"]
    heads.write_text(json.dumps({**line, "sequence": sequence + 1}))
    broken, _ = doctor("--heads", str(heads))
    assert broken["text"].startswith(f"used: entry {sequence + 1} is missing: the service's log has")
    heads.write_text(json.dumps({**line, "seal": "00"}))
    broken, _ = doctor("--heads", str(heads))
    assert "is another one than was written to the service's log" in broken["text"]
    execute(url, "update audit_entries set reason = 'forged' where tenant_id = $1 and sequence = 2", tenant_id)
    broken, rest = doctor()
    execute(url, "update audit_entries set reason = null where tenant_id = $1 and sequence = 2", tenant_id)
    assert (broken["level"], rest["level"]) == ("unsafe", "ok")
    assert broken["text"].startswith("used: entry 2 (")
    assert broken["text"].endswith("was changed, or does not stand where it stood")
