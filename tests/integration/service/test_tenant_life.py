"""A tenant's life seen from outside: two serving processes, real tokens, the command line."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.service.test_registry import constant
from tests.integration.service.test_replicas import promoted
from tests.support import tokens
from tests.support.service import PREDICT, ROOT, Client, environment, free_port, own_service, start_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.service import Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("tenant-life")]

WORKERS = 2
VIEWER = "{ viewer { tenant } }"
SUSPEND = 'mutation($id: String!) { suspendTenant(tenant: $id, reason: "unpaid") { status } }'
RESUME = "mutation($id: String!) { resumeTenant(tenant: $id) { status } }"
ERASE = 'mutation($id: String!) { eraseTenant(tenant: $id, confirm: $id, reason: "ended") { id at rows } }'
REVOKE = (
    'mutation($tenant: String, $subject: String, $jti: String) { revokeTokens(tenant: $tenant, subject: $subject, jti: $jti, reason: "x") }'
)
SETTINGS = "mutation($id: String!, $settings: TenantSettingsInput!) { updateTenantSettings(tenant: $id, settings: $settings) { id } }"
LIMITS = "mutation($id: String!, $limits: TenantLimitsInput!) { updateTenantLimits(tenant: $id, limits: $limits) { limits { burst } } }"


@pytest.fixture(scope="module")
def pair() -> Iterator[Service]:
    """A service of two serving processes that also trusts tests' tokens' issuer."""
    with own_service("--workers", str(WORKERS)) as running:
        yield running


@pytest.fixture(scope="module")
def operator(pair: Service) -> Client:
    return pair.client("platform", "OPERATOR")


def workers(service: Service) -> list[int]:
    """Process ids of the serving processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == service.process.pid and b"app.main" in command:
                found.append(int(entry.name))
    assert len(found) == WORKERS
    return found


@contextmanager
def alone(service: Service, pid: int) -> Iterator[None]:
    """Only this serving process answers: the others stand still."""
    others = [other for other in workers(service) if other != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        until(lambda: all(map(stands_still, others)))
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def everywhere(service: Service, client: Client, query: str = VIEWER, **variables: Any) -> list[Any]:
    """What each serving process answers: the data, or the error's code."""
    answers = []
    for pid in workers(service):
        with alone(service, pid):
            body = client.post(query, **variables).json()
        answers.append(body["errors"][0]["extensions"]["code"] if body.get("errors") else body["data"])
    return answers


def stands_still(pid: int) -> bool:
    """Whether all of its threads do: none takes a connection that the only one awake should have."""
    states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


@contextmanager
def change(service: Service) -> Iterator[Callable[..., None]]:
    """Around a change: gives what asserts that every serving process answers so at once.

    A change waits two seconds to be heard by all. Where the service said in its log that somebody did not serve it by then, as on a
    machine that stands still for so long, it must come about soon.
    """
    said = late(service)

    def counts(client: Client, wanted: list[Any] | Callable[[list[Any]], bool], query: str = VIEWER, **variables: Any) -> None:
        holds = wanted if callable(wanted) else wanted.__eq__
        answers = everywhere(service, client, query, **variables)
        end = time.monotonic() + 60
        while not holds(answers) and late(service) > said and time.monotonic() < end:
            answers = everywhere(service, client, query, **variables)
        assert holds(answers), answers

    yield counts


def late(service: Service) -> int:
    """How often the log said that a change was not served by everybody when its two seconds were over."""
    text = service.log.read_text()
    return sum(map(text.count, ("is not heard of by every replica", "the picture was not refreshed after a change")))


def turnout(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(service.home), capture_output=True, text=True, check=False, timeout=60)


def test_suspending_counts_at_every_process_at_once_also_for_tokens_that_it_has_seen(pair: Service, operator: Client) -> None:
    known = {"viewer": {"tenant": "suspended"}}
    with change(pair) as counts:
        admin = pair.new_tenant("suspended")
        counts(admin, [known] * WORKERS)
    for _ in range(3):
        with change(pair) as counts:
            assert operator.ask(SUSPEND, id="suspended") == {"suspendTenant": {"status": "SUSPENDED"}}
            counts(admin, ["TENANT_SUSPENDED"] * WORKERS)
        with change(pair) as counts:
            assert operator.ask(RESUME, id="suspended") == {"resumeTenant": {"status": "ACTIVE"}}
            counts(admin, [known] * WORKERS)


def test_a_revoked_token_is_refused_by_every_process_though_each_has_it_in_its_memory(pair: Service) -> None:
    known = {"viewer": {"tenant": "revoking"}}
    with change(pair) as counts:
        admin = pair.new_tenant("revoking")
        stolen, other = pair.client("revoking", "PREDICTOR", subject="stolen"), pair.client("revoking", "PREDICTOR", subject="other")
        for client in (stolen, other):
            counts(client, [known] * WORKERS)
    with change(pair) as counts:
        assert admin.ask(REVOKE, subject="stolen") == {"revokeTokens": True}
        counts(stolen, ["UNAUTHENTICATED"] * WORKERS)
    assert everywhere(pair, other) == [known] * WORKERS
    answer = stolen.post(VIEWER)
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (401, "A valid bearer token is needed.")


def test_limits_count_at_every_process_at_once(pair: Service, operator: Client) -> None:
    admin = pair.new_tenant("limited")
    burst = "{ viewer { limits { burst } } }"
    everywhere(pair, admin)
    with change(pair) as counts:
        operator.ask(LIMITS, id="limited", limits={"burst": 4321})
        counts(admin, [{"viewer": {"limits": {"burst": 4321}}}] * WORKERS, burst)


def test_a_changed_holdout_changes_who_takes_part_at_every_process(pair: Service, operator: Client) -> None:
    admin = pair.new_tenant("held-out")
    admin.serve("m", "CLASSIFICATION", constant(1))
    admin.ready("m", "CLASSIFICATION", constant(2))
    plan = {
        "key": "e", "model": "m", "primaryMetric": {"name": "bought", "kind": "PROPORTION"},
        "variants": [{"name": "a", "version": 1, "control": True}, {"name": "b", "version": 2}],
    }  # fmt: skip
    admin.ask("mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }", input=plan)
    query = 'query($unit: ID!) { predict(model: "m", features: [1, 2], unit: $unit) { experiment variant reason } }'
    with change(pair) as counts:
        admin.ask('mutation { startExperiment(key: "e", rollout: 100) { key } }')
        counts(admin, lambda answers: all(answer["predict"]["variant"] in ("a", "b") for answer in answers), query, unit="u-1")
    inside = everywhere(pair, admin, query, unit="u-1")
    with change(pair) as counts:
        operator.ask(SETTINGS, id="held-out", settings={"holdoutPercent": 100})
        held_out = {"experiment": "e", "variant": None, "reason": "HOLDOUT"}
        counts(admin, [{"predict": held_out}] * WORKERS, query, unit="u-1")
    with change(pair) as counts:
        operator.ask(SETTINGS, id="held-out", settings={"holdoutPercent": 0})
        counts(admin, inside, query, unit="u-1")


def test_an_erased_tenants_models_are_closed_and_its_tokens_are_strangers_at_every_process(pair: Service, operator: Client) -> None:
    admin = pair.new_tenant("erased")
    admin.ready("m", "CLASSIFICATION", constant(1))
    assert promoted(admin, 1)["appliedEverywhere"]
    assert [answer["predict"]["version"] for answer in everywhere(pair, admin, PREDICT, model="m", row=[1, 2])] == [1] * WORKERS
    with change(pair) as counts:
        done = operator.ask(ERASE, id="erased")["eraseTenant"]
        counts(admin, ["UNAUTHENTICATED"] * WORKERS)
    assert operator.refused('{ tenant(id: "erased") { id } }')["extensions"]["code"] == "NOT_FOUND"
    taken = operator.refused('mutation { createTenant(input: {id: "erased", name: "x"}) { id } }')
    assert taken["extensions"]["code"] == "CONFLICT"
    assert operator.ask(ERASE, id="erased")["eraseTenant"]["id"] == done["id"]


def test_the_command_line_leads_a_tenant_through_its_life(pair: Service, tmp_path: Path) -> None:
    def said(*arguments: str) -> Any:
        done = turnout(pair, "tenant", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert said("create", "acme", "--name", "Acme")["status"] == "ACTIVE"
    assert "acme" in [each["id"] for each in said("list")]
    assert said("limits", "acme", "--burst", "7", "--rows-per-day", "9")["limits"]["rowsPerDay"] == 9
    changed = said("settings", "acme", "--holdout-percent", "2.5", "--capture-inputs")["settings"]
    assert (changed["holdoutPercent"], changed["captureInputs"]) == (2.5, True)
    assert said("map", "acme", "--issuer", "https://a", "--external-id", "Org 1")["names"] == [
        {"issuer": "https://a", "externalId": "Org 1"}
    ]
    shown = said("show", "acme")
    assert (shown["limits"]["burst"], shown["settings"]["retentionDays"], len(shown["names"])) == (7, 90, 1)
    assert said("unmap", "acme", "--issuer", "https://a", "--external-id", "Org 1")["names"] == []
    assert said("suspend", "acme", "--reason", "unpaid")["status"] == "SUSPENDED"
    assert said("resume", "acme")["status"] == "ACTIVE"
    revoked = turnout(pair, "tenant", "revoke", "acme", "--subject", "ada", "--reason", "left")
    assert (revoked.returncode, revoked.stdout) == (0, "")
    assert turnout(pair, "tenant", "revoke", "acme", "--reason", "left").returncode == 2
    assert turnout(pair, "tenant", "limits", "acme").returncode == 2
    assert turnout(pair, "tenant", "erase", "acme", "--confirm", "other", "--reason", "x").returncode == 1
    assert said("erase", "acme", "--confirm", "acme", "--reason", "ended")["rows"] >= 0
    assert "acme" not in [each["id"] for each in said("list")]


def until_landed(client: Client, prediction: str) -> None:
    """Returns once the prediction's input is in the database: the spool is drained beside the answers."""
    until(lambda: client.ask("query($id: ID!) { capturedInput(predictionId: $id) }", id=prediction)["capturedInput"] is not None)


def test_an_export_holds_every_row_of_the_tenant_and_none_of_another(pair: Service, operator: Client, tmp_path: Path) -> None:
    admin, other = pair.new_tenant("exported"), pair.new_tenant("not-exported")
    for client in (admin, other):
        client.serve("m", "CLASSIFICATION", constant(1))
    operator.ask(SETTINGS, id="exported", settings={"captureInputs": True})
    predicted = admin.predict("m", [3.5, 4], unit="u-1")["id"]
    until_landed(admin, predicted)
    out = tmp_path / "exported.jsonl"
    done = turnout(pair, "tenant", "export", "exported", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    head, *lines, end = [json.loads(line) for line in out.read_text().splitlines()]
    assert (head["tenant"], head["format"]) == ("exported", 1)
    by_table: dict[str, list[Any]] = {}
    for line in lines:
        by_table.setdefault(line["table"], []).append(line["row"])
    assert end == {"end": True, "rows": {table: len(by_table.get(table, [])) for table in end["rows"]}}
    assert {"models", "model_versions", "aliases", "artifacts", "artifact_chunks", "audit_entries", "promotions", "tenants"} <= set(
        by_table
    )
    assert {"predictions", "outcomes", "exposures"} <= set(end["rows"])
    ((captured,), (prediction,)) = (by_table["captured_inputs"], by_table["predictions"])
    assert (captured["prediction_id"], captured["input"]["rows"], "sealed" in captured) == (predicted, [[3.5, 4.0]], False)
    assert (prediction["id"], prediction["model"]) == (predicted, "m")
    (tenant,) = by_table["tenants"]
    assert "wrapped_secret" not in tenant
    assert {row["tenant_id"] for rows in by_table.values() for row in rows} == {tenant["tenant_id"]}
    again = turnout(pair, "tenant", "export", "exported", "--out", str(out))
    assert (again.returncode, "overwrites nothing" in again.stderr) == (2, True)
    missing = turnout(pair, "tenant", "export", "nobody", "--out", str(tmp_path / "none"))
    assert (missing.returncode, list(tmp_path.iterdir())) == (1, [out])


def test_an_issuer_that_is_taken_out_of_the_settings_is_trusted_no_more_after_the_next_start(tmp_path: Path) -> None:
    """And until then its tokens are good; a tenant is made by the first one where the issuer may."""
    key = tmp_path / "k1.pem"
    key.write_bytes(tokens.public_pem())
    plain = {"audience": tokens.AUDIENCE, "algorithms": ["RS256"], "keyFile": str(key), "tenantClaim": "org_id"}
    going, staying = {**plain, "issuer": tokens.ISSUER, "createTenants": True}, {**plain, "issuer": "https://other.example"}
    with own_service(TURNOUT_JWT_ISSUERS=json.dumps([going, staying])) as service:
        leaver, stayer = (
            Client(service, tokens.good_token(iss=issuer["issuer"], org_id="first", roles=["ADMIN"])) for issuer in (going, staying)
        )
        assert leaver.ask(VIEWER) == stayer.ask(VIEWER) == {"viewer": {"tenant": "first"}}
        service.stop()
        again = start_service(service.home, free_port(), TURNOUT_JWT_ISSUERS=json.dumps([staying]))
        try:
            leaver.service = stayer.service = again
            assert leaver.post(VIEWER).status_code == 401
            assert stayer.ask(VIEWER) == {"viewer": {"tenant": "first"}}
        finally:
            assert again.stop() == 0
