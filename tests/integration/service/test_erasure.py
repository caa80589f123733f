"""A unit is erased while the machine's drain is stopped; afterwards nothing of it is anywhere: tables, spool, home."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.dummy import DummyRegressor

from app.db.embedded.server import EmbeddedPostgres
from app.journal.layout import HELD, QUARANTINE
from app.kernel.home import SPOOL, TOMBSTONES
from tests.support.database import execute
from tests.support.service import own_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("erasure")]

UNIT, OTHER, CANARY = "zoe.zebra@example.org", "abe@example.org", 746_271.125
CREATE = "mutation($input: CreateTenantInput!) { createTenant(input: $input) { id settings { captureInputs } } }"
EXPERIMENT = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }"
START = 'mutation { startExperiment(key: "price") { status } }'
OUTCOME = """mutation($unit: ID, $prediction: ID, $key: String) {
  recordOutcome(input: { metric: "spent", value: 3, unit: $unit, predictionId: $prediction, idempotencyKey: $key }) { id pending } }"""
ERASE = "mutation($unit: ID!, $reason: String!) { eraseUnit(unit: $unit, reason: $reason) { id at rows } }"
CAPTURED = "query($id: ID!) { capturedInput(predictionId: $id) }"
HASH = "query($unit: ID!) { unitHash(unit: $unit) }"
AUDIT = "{ auditLog(first: 1) { edges { node { action subject reason before after } } } }"
TABLES = """
select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Service]:
    with own_service() as running:
        yield running


@pytest.fixture(scope="module")
def url(machine: Service) -> str:
    server = EmbeddedPostgres(machine.home)
    assert server.join()
    return server._superuser_url("turnout")


def tenant(machine: Service, name: str, **settings: Any) -> Client:
    made = machine.client("platform", "OPERATOR").ask(CREATE, input={"id": name, "name": name.title(), "settings": settings})
    assert made["createTenant"]["id"] == name
    return machine.client(name)


def with_experiment(admin: Client) -> None:
    """Half of the units get version 2; a third variant answers in the shadow; UNIT is forced into the candidate."""
    for value in (1.0, 2.0):
        admin.ready("price", "REGRESSION", DummyRegressor(strategy="constant", constant=value).fit([[0.0]], [value]))
    admin.ask('mutation { promote(model: "price", version: 1) { version } }')
    variants = [
        {"name": "control", "version": 1, "control": True}, {"name": "candidate", "version": 2},
        {"name": "dark", "version": 2, "shadow": True, "weight": 0},
    ]  # fmt: skip
    plan = {"key": "price", "model": "price", "variants": variants, "primaryMetric": {"name": "spent", "kind": "MEAN"}}
    admin.ask(EXPERIMENT, input={**plan, "overrides": [{"unit": "forced-" + UNIT, "variant": "candidate"}]})
    assert admin.ask(START)["startExperiment"] == {"status": "RUNNING"}


@contextmanager
def drain_stopped(machine: Service) -> Iterator[None]:
    (pid,) = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_drain(entry, machine)]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_drain(process: Path, machine: Service) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"app.journal" in words and str(machine.home).encode() in words


def eventually(ask: Callable[[], Any], wanted: Any, within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while (found := ask()) != wanted:
        assert time.monotonic() < end, f"{found} is not {wanted}"
        time.sleep(0.1)


def tables_with(url: str, *needles: str) -> dict[str, int]:
    """Rows by table in which one of the texts is, also inside bytes, of every table that there is."""
    likes = " or ".join(f"t::text like '%{form}%'" for needle in needles for form in (needle, needle.encode().hex()))
    counts = {name: execute(url, f'select count(*) from "{name}" t where {likes}')[0][0] for (name,) in execute(url, TABLES)}
    return {name: count for name, count in counts.items() if count}


def files_with(home: Path, *needles: str) -> list[str]:
    """Files of the data folder in which one of the texts is; the database's own are asked by their tables."""
    found = []
    for path in home.rglob("*"):
        inner = path.relative_to(home)
        if path.is_file() and inner.parts[0] not in {"pg", "run", TOMBSTONES} and any(n.encode() in path.read_bytes() for n in needles):
            found.append(str(inner))
    return found


def lines_with(machine: Service, *needles: str) -> list[str]:
    return [line for line in machine.log.read_text().splitlines() if any(needle in line for needle in needles)]


def test_a_unit_erased_while_the_drain_is_stopped_is_nowhere_once_it_runs_again(machine: Service, url: str) -> None:
    admin = tenant(machine, "forgetful", captureInputs=True)
    with_experiment(admin)
    unit_hash = admin.ask(HASH, unit=UNIT)["unitHash"]
    counted = [admin.predict("price", [float(n)], unit=unit) for n in range(3) for unit in (UNIT, OTHER)]
    admin.ask(OUTCOME, unit=UNIT, key="a")
    admin.ask(OUTCOME, prediction=counted[0]["id"])
    eventually(lambda: execute(url, "select count(*) from exposures where unit_hash = $1", unit_hash)[0][0], 1)
    eventually(lambda: execute(url, "select count(*) from unit_values where unit_hash = $1", unit_hash)[0][0], 1)
    assert {"predictions", "captured_inputs", "exposures", "outcomes", "unit_values"} <= tables_with(url, unit_hash).keys()

    with drain_stopped(machine):
        late = [admin.predict("price", [float(n)], unit=unit) for n in range(3) for unit in (UNIT, OTHER)]
        assert admin.ask(OUTCOME, prediction=late[0]["id"])["recordOutcome"]["pending"]
        erased = admin.ask(ERASE, unit=UNIT, reason="she asked for it")["eraseUnit"]
        assert tables_with(url, unit_hash, UNIT).keys() == {"tombstones"}
        assert files_with(machine.home, unit_hash) != []
    spool = machine.home / SPOOL
    eventually(lambda: admin.ask(CAPTURED, id=late[1]["id"])["capturedInput"] is None, False)
    eventually(lambda: files_with(spool, unit_hash), [], within_s=60.0)  # a segment lives for half a minute
    eventually(lambda: execute(url, "select count(*) from outcomes where pending")[0][0], 0)
    eventually(lambda: execute(url, "select count(*) from stale_units")[0][0], 0)

    assert erased["rows"] >= 3 + 3 + 2 + 1 + 1  # answers, inputs, outcomes, the exposure, its value
    assert tables_with(url, unit_hash, UNIT).keys() == {"tombstones"}
    assert files_with(machine.home, unit_hash, UNIT) == []
    assert lines_with(machine, unit_hash, UNIT) == []
    assert [path.name for folder in (HELD, QUARANTINE) for path in (spool / folder).iterdir()] == []
    assert execute(url, "select count(*) from predictions where unit_hash is null")[0][0] == 6, "they are usage"
    assert admin.ask(CAPTURED, id=late[0]["id"]) == {"capturedInput": None}
    other = admin.ask(CAPTURED, id=late[1]["id"])["capturedInput"]
    assert other == {"columns": other["columns"], "rows": [[0.0]], "rowCount": 1, "cut": False}
    ((node,),) = [[edge["node"]] for edge in admin.ask(AUDIT)["auditLog"]["edges"]]
    assert (node["action"], node["subject"], node["reason"]) == ("eraseUnit", f"erasure:{erased['id']}", "she asked for it")


def test_erasing_is_for_admins_and_the_reason_does_not_name_the_unit(machine: Service, url: str) -> None:
    admin = tenant(machine, "careful")
    assert admin.refused(ERASE, unit=UNIT, reason=f"{UNIT} asked for it")["extensions"]["code"] == "BAD_USER_INPUT"
    assert admin.refused(ERASE, unit=UNIT, reason=" ")["extensions"]["code"] == "BAD_USER_INPUT"
    assert admin.refused(ERASE, unit="", reason="why")["extensions"]["code"] == "BAD_USER_INPUT"
    for roles in (["READER"], ["PREDICTOR"], ["PUBLISHER"], ["EXPERIMENTER"]):
        other = machine.client("careful", *roles)
        assert other.refused(ERASE, unit=UNIT, reason="why")["extensions"]["code"] == "FORBIDDEN"
        assert other.refused(CAPTURED, id="x")["extensions"]["code"] == "FORBIDDEN"
    assert tables_with(url, UNIT) == {}


def test_nothing_of_the_input_is_kept_anywhere_where_capture_is_off_and_only_sealed_where_it_is_on(machine: Service, url: str) -> None:
    texts = (str(CANARY), "746271")
    for name, captures in (("shy", False), ("watchful", True)):
        admin = tenant(machine, name, captureInputs=captures)
        admin.serve("price", "REGRESSION", DummyRegressor(strategy="constant", constant=1.0).fit([[0.0]], [1.0]))
        with drain_stopped(machine):
            made = admin.predict("price", [CANARY], unit=OTHER)
            assert files_with(machine.home, made["id"].replace("-", "")) != [], "it waits in the spool"
            assert files_with(machine.home, *texts) == []
        eventually(lambda made=made: execute(url, "select count(*) from predictions where id = $1", made["id"])[0][0], 1)
        kept = execute(url, "select count(*) from captured_inputs where prediction_id = $1", made["id"])[0][0]
        assert (kept, tables_with(url, *texts)) == (int(captures), {})
        told = admin.ask(CAPTURED, id=made["id"])["capturedInput"]
        assert (told and told["rows"]) == ([[CANARY]] if captures else None)
    for client in (machine.client("shy"), admin):
        never = [client.ask(CAPTURED, id=id_) for id_ in ("x", "00000000-0000-7000-8000-000000000000")]
        assert never == [{"capturedInput": None}] * 2
    assert machine.client("shy").ask(CAPTURED, id=made["id"]) == {"capturedInput": None}, "another tenant's is not there"
    assert lines_with(machine, *texts) == []
