"""One running service: what its processes know, and what the command line does with it."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, TURNOUT, Run, commands, file_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def run():
    with tempfile.TemporaryDirectory(prefix="turnout-e2e-") as folder:
        run = Run([TURNOUT, "serve", "--demo", "--port", "0", "--workers", "2"], Path(folder) / "home")
        assert not run.demo_failed, run.lines
        yield run
        run.close()


def pid_of(run, words):
    return sorted(pid for pid, command in commands(run.tree()).items() if words in command and command.startswith(str(ROOT / ".venv")))


def said(result):
    """The JSON that a command printed; what it complained about, where it printed none."""
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def test_no_child_knows_the_owner_of_the_database(run):
    """Neither in its environment nor in its command line; the serving processes' URLs are in no listing at all."""
    password = next((run.home / "pg").rglob("turnout_owner.password")).read_text().encode()
    runtime = next((run.home / "pg").rglob("turnout_runtime.password")).read_text().encode()
    for pid, _ in run.tree():
        known = b"".join(file_of(pid, name) for name in ("environ", "cmdline"))
        assert password not in known
        assert runtime not in known


def test_model_processes_have_no_setting_of_the_service(run):
    hosts = pid_of(run, "app.prediction.worker")
    assert hosts
    for pid in hosts:
        assert b"TURNOUT_" not in file_of(pid, "environ")


def test_the_command_line_shows_predicts_promotes_and_rolls_back(run):
    listed = {m["name"]: m for m in said(run.turnout("model", "list", "--tenant", "shop", "--json"))}
    assert sorted(listed) == ["diabetes-progression", "wine-cultivar"]
    assert listed["wine-cultivar"]["aliases"] == [{"name": "production", "revision": 1, "version": {"number": 1}}]
    row = json.loads((run.home / "demo-example.json").read_text())
    told = run.turnout("predict", "tumour", json.dumps(row), "--tenant", "clinic", "--unit", "p-1", "--json")
    assert said(told)["label"] == "benign"
    promoted = run.turnout("model", "promote", "tumour", "2", "--tenant", "clinic", "--reason", "try", "--json")
    assert {k: said(promoted)[k] for k in ("version", "previousVersion")} == {"version": 2, "previousVersion": 1}
    rolled_back = run.turnout("model", "rollback", "tumour", "--tenant", "clinic")
    assert rolled_back.returncode == 0
    assert "production" in rolled_back.stdout


def test_the_command_line_registers_and_waits_for_the_verdict(run, tmp_path):
    (tmp_path / "evil.joblib").write_bytes(b"this is no model")
    refused = run.turnout(
        "model",
        "register",
        str(tmp_path / "evil.joblib"),
        "--model",
        "evil",
        "--task",
        "classification",
        "--wait",
        "--json",
        "--tenant",
        "clinic",
    )
    assert (refused.returncode, "checking" in refused.stderr) == (1, True), refused.stderr
    version = json.loads(refused.stdout)
    assert version["status"] == "FAILED"
    assert version["statusReason"]


def test_a_tenant_is_created_once(run):
    made = run.turnout("tenant", "create", "bakery", "--name", "The Bakery", "--json")
    assert said(made)["id"] == "bakery"
    again = run.turnout("tenant", "create", "bakery", "--name", "The Bakery")
    assert (again.returncode, again.stdout) == (1, "")
    assert "(CONFLICT)" in again.stderr


def test_seeding_again_changes_nothing(run):
    before = run.turnout("model", "list", "--tenant", "shop", "--json").stdout
    assert "training" not in run.turnout("demo").stderr
    assert run.turnout("model", "list", "--tenant", "shop", "--json").stdout == before


def test_the_doctor_finds_a_healthy_service(run):
    examined = run.turnout("doctor", "--json")
    findings = said(examined)["findings"]
    assert [f for f in findings if f["level"] in {"unsafe", "unreachable"}] == []
    assert examined.returncode == 0
    assert {"service", "database", "tenants apart", "migrations", "prediction log", "sandbox"} <= {f["area"] for f in findings}
