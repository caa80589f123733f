"""`turnout experiment` against a service that is a function: what it sends, what it shows, and how it ends."""

import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from graphql import build_schema, parse, validate

from app.cli import client, experiments
from app.cli.main import main
from app.graphql.export import sdl

pytestmark = pytest.mark.unit

CONTRACT = Path(__file__).parents[2] / "contract" / "contract.graphql"
EXPERIMENT = {
    "key": "boosted", "model": "tumour", "status": "RUNNING", "source": "TURNOUT", "hypothesis": None, "rollout": 12.5,
    "variants": [
        {"name": "now", "version": 1, "alias": None, "weight": 3, "control": True, "shadow": False},
        {"name": "dark", "version": 2, "alias": None, "weight": 1, "control": False, "shadow": True},
    ],
    "primaryMetric": {"name": "found", "kind": "PROPORTION", "direction": "INCREASE", "aggregation": "ANY"}, "secondaryMetrics": [],
    "guardrails": [], "plannedUnits": None, "plannedLooks": 1, "layer": None, "targeting": [], "createdAt": "2026-03-01T12:00:00+00:00",
    "createdBy": "ada", "startedAt": None, "endedAt": None, "revision": 2,
}  # fmt: skip
NOTHING = dict.fromkeys((
    "difference", "differenceLow", "differenceHigh", "lift", "liftLow", "liftHigh", "pValue", "sequentialLow", "sequentialHigh",
    "chanceToBeatControl", "verdict",
))  # fmt: skip
RESULTS = {
    "metric": "found", "verdict": "WINNER", "winner": "new", "looks": 3, "plannedLooks": 5, "computedAt": "2026-03-01T12:00:00+00:00",
    "srm": {"pValue": 0.41, "ok": True},
    "variants": [
        {"variant": "now", "units": 2000, "exposures": 9000, "mean": 0.1, "standardError": 0.0067, **NOTHING},
        {
            **NOTHING, "variant": "new", "units": 2010, "exposures": 9100, "mean": 0.12, "standardError": 0.0072, "difference": 0.02,
            "differenceLow": 0.001, "differenceHigh": 0.039, "lift": 0.2, "liftLow": 0.01, "liftHigh": 0.39, "pValue": 0.0401,
            "sequentialLow": -0.01, "sequentialHigh": 0.05, "chanceToBeatControl": 0.98, "verdict": "WINNER",
        },
    ],
}  # fmt: skip


@pytest.fixture
def turnout(tmp_path, monkeypatch):
    """Runs a command against a service that answers `run.data`, and keeps what it was asked in `run.asked`."""
    plain = httpx.Client

    def answer(request):
        run.asked.append(json.loads(request.content))
        return httpx.Response(200, json=run.data)

    monkeypatch.setattr(client.httpx, "Client", lambda **options: plain(**{**options, "transport": httpx.MockTransport(answer)}))

    def run(*arguments):
        environment = {"TURNOUT_HOME": str(tmp_path), "TURNOUT_TOKEN": "t"}
        return CliRunner().invoke(main, ["experiment", *arguments], env=environment)

    run.asked, run.data = [], {}
    return run


def documents():
    return {name: text for name, text in vars(experiments).items() if name.isupper() and isinstance(text, str) and not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(documents()))
def test_every_document_is_valid(name):
    schema = build_schema(CONTRACT.read_text() if name == "RESULTS" else sdl())
    assert validate(schema, parse(documents()[name])) == []


def test_options_are_a_whole_plan(turnout):
    turnout.data = {"data": {"createExperiment": EXPERIMENT}}
    result = turnout(
        "create", "--key", "boosted", "--model", "tumour", "--hypothesis", "finds more", "--control", "now=1:3", "--variant", "new=2",
        "--shadow", "dark=3", "--metric", "found", "--secondary", "spent:mean:decrease:last", "--guardrail", "slow:mean:decrease",
        "--units", "5000", "--looks", "5", "--layer", "ranking", "--target", "country in NO, SE", "--override", "a=b@x=new",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert turnout.asked[0]["variables"]["input"] == {
        "key": "boosted",
        "model": "tumour",
        "hypothesis": "finds more",
        "variants": [
            {"name": "now", "version": 1, "control": True, "shadow": False, "weight": 3},
            {"name": "new", "version": 2, "control": False, "shadow": False},
            {"name": "dark", "version": 3, "control": False, "shadow": True},
        ],
        "primaryMetric": {"name": "found", "kind": "PROPORTION"},
        "secondaryMetrics": [{"name": "spent", "kind": "MEAN", "direction": "DECREASE", "aggregation": "LAST"}],
        "guardrails": [{"name": "slow", "kind": "MEAN", "direction": "DECREASE"}],
        "plannedUnits": 5000,
        "plannedLooks": 5,
        "layer": "ranking",
        "targeting": [{"attribute": "country", "operator": "IN", "values": ["NO", "SE"]}],
        "overrides": [{"unit": "a=b@x", "variant": "new"}],
    }


def test_a_file_is_the_plan_and_options_go_over_it(turnout, tmp_path):
    turnout.data = {"data": {"createExperiment": EXPERIMENT}}
    plan = {"key": "x", "model": "m", "variants": [{"name": "a", "version": 1}], "primaryMetric": {"name": "n", "kind": "MEAN"}}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    assert turnout("create", str(file), "--key", "boosted", "--json").exit_code == 0
    assert turnout.asked[0]["variables"]["input"] == {**plan, "key": "boosted"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("create",), "key is missing: give FILE, or --key."),
        (("create", "--key", "x", "--model", "m"), "variants is missing: give FILE, or --control and --variant."),
        (("create", "--key", "x", "--control", "now"), "'now' is no variant: write NAME=VERSION"),
        (("create", "--key", "x", "--control", "now=1:"), "'now=1:' is no variant"),
        (("create", "--key", "x", "--metric", "a:b:c:d:e"), "'a:b:c:d:e' is no metric"),
        (("create", "--key", "x", "--target", "country IN"), "'country IN' is no rule"),
        (("create", "--key", "x", "--override", "new"), "'new' is no override"),
        (("create", "no-such-file.json"), "does not exist"),
        (("ramp", "x", "much"), "'much' is not a valid float"),
        (("list", "--status", "OVER"), "'OVER' is not one of"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_is_right(turnout, arguments, why):
    result = turnout(*arguments)
    assert (result.exit_code, turnout.asked) == (2, [])
    assert why in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("arguments", "field", "variables"),
    [
        (("start", "x"), "startExperiment", {"key": "x", "rollout": 100.0}),
        (("start", "x", "--rollout", "0.5"), "startExperiment", {"key": "x", "rollout": 0.5}),
        (("ramp", "x", "20"), "rampExperiment", {"key": "x", "rollout": 20.0}),
        (("stop", "x", "--reason", "why"), "stopExperiment", {"key": "x", "reason": "why"}),
        (("conclude", "x"), "concludeExperiment", {"key": "x", "variant": None, "revision": None, "reason": None}),
        (
            ("conclude", "x", "--promote", "new", "--expected-revision", "3"),
            "concludeExperiment",
            {"key": "x", "variant": "new", "revision": 3, "reason": None},
        ),
    ],
)
def test_each_step_sends_its_mutation_and_shows_what_came_of_it(turnout, arguments, field, variables):
    turnout.data = {"data": {field: EXPERIMENT}}
    result = turnout(*arguments)
    assert (result.exit_code, turnout.asked[0]["variables"]) == (0, variables)
    head, row = result.stdout.splitlines()
    assert head.split() == ["experiment", "model", "status", "rollout", "variants", "metric", "layer"]
    assert "now → 1 × 3 (control), dark → 2 (shadow)" in row
    assert row.startswith("boosted")
    assert "12.5 %" in row


def test_a_list_goes_on_over_pages_and_is_json_for_programs(turnout):
    turnout.data = {"data": {"experiments": {"edges": [{"node": EXPERIMENT}], "pageInfo": {"endCursor": "c", "hasNextPage": False}}}}
    result = turnout("list", "--model", "tumour", "--status", "running", "--json")
    assert json.loads(result.stdout) == [EXPERIMENT]
    assert turnout.asked[0]["variables"] == {"model": "tumour", "status": "RUNNING", "after": None}


def test_show_leaves_out_what_is_not_planned(turnout):
    turnout.data = {"data": {"experiment": EXPERIMENT}}
    shown = turnout("show", "boosted").stdout
    assert "found (PROPORTION INCREASE ANY)" in shown
    assert "2026-03-01T12:00:00+00:00 by ada" in shown
    assert "layer" not in shown


def test_results_are_a_table_with_a_sentence_above(turnout):
    turnout.data = {"data": {"experiment": {"key": "boosted", "status": "RUNNING", "results": RESULTS}}}
    first, _, control, new = turnout("results", "boosted", "--metric", "found").stdout.splitlines()
    assert turnout.asked[0]["variables"] == {"key": "boosted", "metric": "found"}
    assert first == "found: WINNER, new; look 3 of 5; the split is as asked for; 2026-03-01T12:00:00+00:00"
    assert control.split() == ["now", "2000", "9000", "0.1", "±", "0.0067"]
    for text in ("new", "0.02 (0.001 … 0.039)", "20 % (1 … 39)", "0.0401", "-0.01 … 0.05", "0.98", "WINNER"):
        assert text in new


def test_no_results_and_a_refusal_are_status_1(turnout):
    turnout.data = {"data": {"experiment": {"key": "boosted", "status": "DRAFT", "results": None}}}
    result = turnout("results", "boosted")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There are no results of boosted yet." in result.stderr
    turnout.data = {"data": {"stopExperiment": None}, "errors": [{"message": "It is a DRAFT.", "extensions": {"code": "CONFLICT"}}]}
    result = turnout("stop", "boosted")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "It is a DRAFT. (CONFLICT)" in result.stderr
