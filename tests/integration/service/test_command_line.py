"""The command line against a real service: emergency stop, retirement, fallbacks, documents, and who is not found."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from sklearn.dummy import DummyClassifier

from app.cli.main import main
from tests.support.models import regressor

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.support.service import Client, Service

    Turnout = Callable[..., Result]

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]


def constant(value: int) -> DummyClassifier:
    return DummyClassifier(strategy="constant", constant=value).fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    return service.new_tenant("commands")


@pytest.fixture
def turnout(service: Service, admin: Client) -> Turnout:
    """`turnout ...` in another folder than the service's, which it knows by TURNOUT_URL alone."""
    given = {"TURNOUT_HOME": str(service.home), "TURNOUT_URL": f"{service.url}/", "TURNOUT_TOKEN": admin.token, "TURNOUT_PORT": "1"}
    return lambda *arguments: CliRunner().invoke(main, list(arguments), env=given)


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_withdrawn_version_serves_nobody_and_the_command_tells_what_serves_now_and_where(admin: Client, turnout: Turnout) -> None:
    admin.serve("stopped", "CLASSIFICATION", constant(0))
    admin.serve("stopped", "CLASSIFICATION", constant(1))
    shown = turnout("model", "withdraw", "stopped", "2", "--reason", "wrong units")
    assert shown.exit_code == 0
    version, alias = (next(line for line in shown.stdout.splitlines() if line.startswith(name)) for name in ("stopped", "production"))
    assert version.split()[:5] == ["stopped", "2", "WITHDRAWN", "wrong", "units"]
    assert alias.split() == ["production", "version", "1", "everywhere", "(1)"]
    assert admin.predict("stopped", [1.0, 2.0])["version"] == 1
    last = turnout("model", "withdraw", "stopped", "1", "--reason", "that one, too")
    assert "nothing: version 1 is WITHDRAWN" in last.stdout
    assert "everywhere" not in last.stdout  # no alias moved, so nobody has told of that
    again = told(turnout("model", "withdraw", "stopped", "1", "--reason", "again", "--json"))
    assert (again["status"], again["statusReason"], again["aliases"][0]["version"]["status"]) == ("WITHDRAWN", "that one, too", "WITHDRAWN")


def test_a_withdrawal_without_a_reason_is_wrong_usage(turnout: Turnout) -> None:
    assert turnout("model", "withdraw", "stopped", "1").exit_code == 2


def test_a_version_that_nothing_uses_is_retired_and_one_that_serves_is_not(admin: Client, turnout: Turnout) -> None:
    admin.serve("retired", "CLASSIFICATION", constant(0))
    admin.serve("retired", "CLASSIFICATION", constant(1))
    assert told(turnout("model", "archive", "retired", "1", "--json"))["status"] == "ARCHIVED"
    refused = turnout("model", "archive", "retired", "2", "--reason", "old")
    assert (refused.exit_code, "(CONFLICT)" in refused.stderr) == (1, True)


def test_who_answers_for_a_model_is_set_in_one_command_and_listed(admin: Client, turnout: Turnout) -> None:
    admin.serve("backed", "CLASSIFICATION", constant(0))
    label = admin.predict("backed", [1.0, 2.0])["label"]
    for options, expected, words in (
        (("--previous",), {"kind": "PREVIOUS", "version": None, "answer": None}, "the previous version"),
        (("--version", "1"), {"kind": "VERSION", "version": 1, "answer": None}, "version 1"),
        (("--answer", label), {"kind": "ANSWER", "version": None, "answer": label}, f'the answer "{label}"'),
    ):
        assert told(turnout("model", "fallback", "backed", *options, "--json"))["fallback"] == expected
        (row,) = [line for line in turnout("model", "list").stdout.splitlines() if line.startswith("backed ")]
        assert row.rstrip().endswith(words)
    assert turnout("model", "fallback", "backed", "--none").stdout.splitlines()[-1].split() == ["backed", "nobody"]
    refused = turnout("model", "fallback", "backed", "--answer", "no such class")
    assert (refused.exit_code, "is no class of the model" in refused.stderr) == (1, True)


def test_a_regression_s_answer_is_a_number_or_refused(admin: Client, turnout: Turnout) -> None:
    admin.serve("measured", "REGRESSION", regressor()[0])
    assert told(turnout("model", "fallback", "measured", "--answer", "12.5", "--json"))["fallback"]["answer"] == 12.5
    for text in ("many", "nan"):
        assert "must be a number" in turnout("model", "fallback", "measured", "--answer", text).stderr


@pytest.mark.parametrize("options", [(), ("--previous", "--none"), ("--version", "1", "--answer", "a")])
def test_more_or_less_than_one_fallback_is_wrong_usage(turnout: Turnout, options: tuple[str, ...]) -> None:
    result = turnout("model", "fallback", "backed", *options)
    assert (result.exit_code, "Exactly one of" in result.stderr) == (2, True)


def test_a_promotion_tells_who_serves_it(admin: Client, turnout: Turnout) -> None:
    admin.ready("told", "CLASSIFICATION", constant(0))
    end = time.monotonic() + 60
    while not (promotion := told(turnout("model", "promote", "told", "1", "--json")))["appliedEverywhere"]:  # a call waits two seconds
        assert time.monotonic() < end
    assert len(promotion["appliedBy"]) == 1
    assert turnout("model", "promote", "told", "1").stdout.rstrip().endswith("everywhere (1)")


def test_documents_that_are_not_there_are_named_with_status_1_and_the_others_are_removed(turnout: Turnout, tmp_path: Any) -> None:
    (tmp_path / "viewer.graphql").write_text("{ viewer { tenant } }")
    (document,) = told(turnout("documents", "push", str(tmp_path), "--json"))
    result = turnout("documents", "remove", "nothing", f"sha256:{document['id']}", "--json")
    assert result.exit_code == 1
    assert "Not registered: nothing." in result.stderr
    assert {each["id"]: each["state"] for each in json.loads(result.stdout)} == {document["id"]: "removed", "nothing": "was not there"}
    assert told(turnout("documents", "list", "--json")) == []


def test_a_tenant_that_is_not_there_is_said_to_be_possible(turnout: Turnout) -> None:
    result = turnout("model", "list", "--tenant", "nosuch")
    assert result.exit_code == 1
    assert "does the tenant exist (turnout tenant list)" in result.stderr


def test_the_doctor_tells_what_is_configured_and_what_the_service_says_of_itself(turnout: Turnout) -> None:
    found = {f["area"]: f["text"] for f in json.loads(turnout("doctor", "--json").stdout)["findings"]}
    assert "1 serving process(es) configured here" in found["settings"]
    assert "ready, 1 serving process(es) heard of" in found["service"]
