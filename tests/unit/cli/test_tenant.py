"""`turnout tenant`: what it offers, and what it asks for before it asks the service."""

import pytest
from click.testing import CliRunner

from app.cli.main import main

pytestmark = pytest.mark.unit


@pytest.fixture
def turnout(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return lambda *arguments: CliRunner().invoke(main, ["tenant", *arguments], env={"TURNOUT_HOME": str(home), "TURNOUT_TOKEN": "t"})


def test_every_command_is_there_and_helps(turnout):
    shown = turnout("--help").output
    commands = ["create", "list", "show", "limits", "settings", "suspend", "resume", "revoke", "map", "unmap", "erase", "export"]
    assert all(f"  {name} " in shown for name in commands)
    assert {turnout(name, "--help").exit_code for name in commands} == {0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["limits", "acme"], "Nothing to change"),
        (["settings", "acme"], "Nothing to change"),
        (["limits", "acme", "--burst", "many"], "not a valid integer"),
        (["suspend", "acme"], "Missing option '--reason'"),
        (["revoke", "acme", "--reason", "x"], "Exactly one of --subject and --jti"),
        (["revoke", "acme", "--subject", "a", "--jti", "b", "--reason", "x"], "Exactly one of --subject and --jti"),
        (["erase", "acme", "--reason", "x"], "Missing option '--confirm'"),
        (["map", "acme", "--issuer", "https://a"], "Missing option '--external-id'"),
        (["export", "acme"], "Missing option '--out'"),
    ],
)
def test_wrong_usage_is_status_2_and_asks_nobody(turnout, arguments, said):
    result = turnout(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_an_export_says_that_the_embedded_database_is_not_running_and_leaves_nothing(turnout, tmp_path):
    result = turnout("export", "acme", "--out", str(tmp_path / "out.jsonl"))
    assert result.exit_code == 1
    assert "runs while the service runs" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_an_export_into_a_folder_that_is_not_there_is_status_1(turnout, tmp_path, monkeypatch):
    monkeypatch.setattr("app.cli.tenant_export.database_urls", lambda _settings: {})
    result = turnout("export", "acme", "--out", str(tmp_path / "none" / "out.jsonl"))
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr
