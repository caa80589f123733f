"""A flag server's share beside the service's own experiments: which of the two decides, and who is held out of both."""

import pytest

from app.experiments.flags.building import FlagBuilder
from app.experiments.types import Decision, DecisionReason
from app.experiments.unleash.splitting import SplitDocument
from tests.unit.experiments.flags.making import UNITS, arms_of, decisions, experiment, fits, flags, tally

pytestmark = pytest.mark.unit


def share(enabled=True, rollout="100", tenant="clinic"):
    variants = [
        {"name": name, "weight": 500, "stickiness": "default", "payload": {"type": "json", "value": f'{{"version": {number}}}'}}
        for number, name in enumerate(("v1", "v2"), 1)
    ]
    strategy = {
        "name": "flexibleRollout",
        "parameters": {"rollout": rollout, "stickiness": "default", "groupId": "model.churn"},
        "constraints": [{"contextName": "tenantId", "operator": "IN", "values": ["clinic"]}],
        "variants": variants,
    }
    raw = {"meta": {"revisionId": 41}, "features": [{"name": "model.churn", "enabled": enabled, "strategies": [strategy]}]}
    return SplitDocument.of(raw, False).of_tenant(tenant)


def test_a_flag_of_a_flag_server_decides_where_no_experiment_of_the_service_runs():
    built = flags(unleash=share())
    decision = built.decide("churn", UNITS[0], None)
    assert (decision.reason, decision.experiment, decision.propensity, decision.flag_revision) == (
        DecisionReason.EXPERIMENT, "unleash-churn", 0.5, 41,
    )  # fmt: skip
    assert built.needed == {("churn", 1), ("churn", 2)}
    assert set(arms_of(built, UNITS[:200]).values()) == {"v1", "v2"}


def test_an_experiment_of_the_service_goes_before_a_flag_of_a_flag_server_which_is_told():
    built = flags(experiment(), unleash=share())
    assert {decision.experiment for decision in decisions(built, UNITS[:200]).values()} == {"ranking"}
    assert "Flag 'model.churn': the experiment 'ranking' runs on this model and decides; the flag is not asked." in built.problems


def test_who_is_held_out_is_held_out_of_a_flag_servers_flags_too():
    built = flags(experiment(model="fraud"), holdout=20.0, unleash=share(rollout="50"))
    found = decisions(built)
    held = {unit for unit, decision in found.items() if decision.reason is DecisionReason.HOLDOUT}
    assert held == {unit for unit, decision in decisions(built, model="fraud").items() if decision.reason is DecisionReason.HOLDOUT}
    propensities = {(d.reason.value, d.variant): d.propensity for d in found.values()}
    expected = {("HOLDOUT", None): 0.2, ("OUT_OF_ROLLOUT", None): 0.4, ("EXPERIMENT", "v1"): 0.2, ("EXPERIMENT", "v2"): 0.2}
    assert propensities == pytest.approx(expected)
    counts = tally(found)
    assert fits([counts[key] for key in expected], [*expected.values()])


def test_nobody_is_held_out_of_a_flag_that_is_off():
    built = flags(holdout=100.0, unleash=share(enabled=False))
    decision = built.decide("churn", UNITS[0], None)
    assert decision == Decision(DecisionReason.FLAG_OFF, "unleash-churn", None, None, None, 1.0, 41)


def test_a_request_without_a_unit_takes_no_part_in_a_flag_servers_flag():
    assert flags(unleash=share()).decide("churn", None, None) == Decision(
        DecisionReason.NO_UNIT, "unleash-churn", None, None, None, None, 41
    )


def test_another_tenants_share_concerns_no_model_and_needs_no_engine():
    build = FlagBuilder()
    built = build("bank", [], 0.0, 1, share(tenant="bank"), False)
    assert built.decide("churn", UNITS[0], None) is None
    assert len(build.engines) == 0
