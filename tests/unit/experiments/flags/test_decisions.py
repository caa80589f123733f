"""Reasons in the contract's words, and the exact probability of each."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput, Unavailable
from app.experiments.flags.compiling import override_flag
from app.experiments.flags.engine import Engine, RawVariant
from app.experiments.types import Decision, DecisionReason, TargetingRule
from tests.unit.experiments.flags.making import (
    CONTROL,
    IN_NORWAY,
    NORDIC,
    TREATMENT,
    UNITS,
    arm,
    decisions,
    experiment,
    fits,
    flags,
)

pytestmark = pytest.mark.unit

UNIT = UNITS[0]


def test_a_model_that_no_flag_concerns_is_decided_by_its_alias():
    assert flags(experiment()).decide("another", UNIT, None) is None
    assert flags().decide("churn", UNIT, None) is None


def test_a_request_without_a_unit_takes_no_part():
    expected = Decision(DecisionReason.NO_UNIT, "ranking", None, None, None, None, 7)
    assert flags(experiment(targeting=[NORDIC]), holdout=5.0).decide("churn", None, IN_NORWAY) == expected


def test_an_arm_names_variant_version_experiment_and_revision():
    built = flags(experiment(variants=(arm("only", 9, 3, control=True),)))
    assert built.decide("churn", UNIT, None) == Decision(DecisionReason.EXPERIMENT, "ranking", "only", 9, None, 1.0, 7)


def test_who_is_not_targeted_is_told_from_who_is_out_of_the_rollout():
    built = flags(experiment(rollout=50.0, targeting=[NORDIC]))
    assert {d.reason for d in decisions(built, UNITS[:300], {"country": "DE"}).values()} == {DecisionReason.NOT_TARGETED}
    assert {d.reason for d in decisions(built, UNITS[:300]).values()} == {DecisionReason.NOT_TARGETED}
    assert {d.reason for d in decisions(built, UNITS[:300], IN_NORWAY).values()} == {
        DecisionReason.EXPERIMENT,
        DecisionReason.OUT_OF_ROLLOUT,
    }


def test_who_is_held_out_and_not_targeted_is_not_targeted():
    built = flags(experiment(targeting=[NORDIC]), holdout=100.0)
    assert built.decide("churn", UNIT, {"country": "DE"}).reason is DecisionReason.NOT_TARGETED
    assert built.decide("churn", UNIT, IN_NORWAY) == Decision(DecisionReason.HOLDOUT, "ranking", None, None, None, 1.0, 7)


def test_all_targeting_rules_must_hold():
    rules = [NORDIC, TargetingRule("appVersion", "SEMVER_GT", ("3.0.0",))]
    built = flags(experiment(targeting=rules))
    assert built.decide("churn", UNIT, {**IN_NORWAY, "appVersion": "3.0.1"}).reason is DecisionReason.EXPERIMENT
    assert built.decide("churn", UNIT, {**IN_NORWAY, "appVersion": "3.0.0"}).reason is DecisionReason.NOT_TARGETED
    assert built.decide("churn", UNIT, {"country": "DE", "appVersion": "3.0.1"}).reason is DecisionReason.NOT_TARGETED


def test_an_overridden_unit_gets_its_variant_and_is_no_part_of_the_experiment():
    overrides = [(unit, "treatment") for unit in UNITS[:50]] + [(unit, "control") for unit in UNITS[50:60]]
    built = flags(experiment(rollout=0.1, targeting=[NORDIC], overrides=overrides), holdout=100.0)
    found = decisions(built, UNITS[:60], {"country": "DE"})
    assert set(list(found.values())[:50]) == {Decision(DecisionReason.PINNED, "ranking", "treatment", 2, None, None, 7)}
    assert set(list(found.values())[50:]) == {Decision(DecisionReason.PINNED, "ranking", "control", 1, None, None, 7)}
    assert built.decide("churn", UNITS[60], IN_NORWAY).reason is DecisionReason.HOLDOUT


def test_an_override_moves_nobody_else():
    plain, other = experiment(rollout=50.0), experiment(rollout=50.0, overrides=[(UNIT, "treatment")])
    units = UNITS[1:2_000]
    assert decisions(flags(plain), units) == decisions(flags(other), units)


SHAPES = [
    (experiment(rollout=20.0, variants=(arm("a", 1, 3, control=True), arm("b", 2, 1), arm("c", 3, 6))), 0.0, None),
    (experiment(rollout=33.333), 12.5, None),
    (experiment(rollout=75.0, targeting=[NORDIC]), 5.0, IN_NORWAY),
    (experiment(rollout=40.0, layer="l", slots=((0, 10_000), (60_000, 90_000))), 10.0, None),
]


@pytest.mark.parametrize(("running", "holdout", "attributes"), SHAPES)
def test_propensities_add_up_to_one_and_are_the_shares_that_are_measured(running, holdout, attributes):
    found = decisions(flags(running, holdout=holdout), attributes=attributes)
    outcomes = {(d.reason, d.variant): d.propensity for d in found.values()}
    assert sum(outcomes.values()) == pytest.approx(1.0, abs=1e-12)
    counts = Counter((d.reason, d.variant) for d in found.values())
    assert fits([counts[key] for key in outcomes], [*outcomes.values()])


def test_propensities_are_exact():
    running = experiment(rollout=20.0, variants=(arm("a", 1, 3, control=True), arm("b", 2, 1)))
    of = {(d.reason.value, d.variant): d.propensity for d in decisions(flags(running, holdout=10.0)).values()}
    assert of[("EXPERIMENT", "a")] == pytest.approx(0.9 * 0.2 * 3 / 4, abs=1e-15)
    assert of[("EXPERIMENT", "b")] == pytest.approx(0.9 * 0.2 * 1 / 4, abs=1e-15)
    assert of[("OUT_OF_ROLLOUT", None)] == pytest.approx(0.9 * 0.8, abs=1e-15)
    assert of[("HOLDOUT", None)] == 0.1


def test_propensities_of_several_experiments_add_up_to_one_for_whatever_attributes():
    first = experiment("first", rollout=30.0, layer="l", slots=((0, 30_000),), targeting=[NORDIC])
    second = experiment("second", rollout=50.0, layer="l", slots=((50_000, 100_000),))
    built = flags(first, second, holdout=10.0)
    for attributes, shares in ((IN_NORWAY, {"first": 0.3, "second": 0.5}), (None, {"second": 0.5})):
        found = decisions(built, attributes=attributes)
        outcomes = {(d.experiment, d.reason, d.variant): d.propensity for d in found.values()}
        assert sum(outcomes.values()) == pytest.approx(1.0, abs=1e-12)
        assert {name for name, _, _ in outcomes} == {None, *shares}
        counts = Counter((d.experiment, d.reason, d.variant) for d in found.values())
        assert fits([counts[key] for key in outcomes], [*outcomes.values()])
        assert outcomes[(None, DecisionReason.OUT_OF_ROLLOUT, None)] == pytest.approx(0.9 * (1 - sum(shares.values())), abs=1e-12)


def test_of_several_experiments_none_of_which_targets_the_request_none_is_named():
    pair = [
        experiment(key, rollout=10.0, layer="l", slots=(slot,), targeting=[NORDIC])
        for key, slot in (("a", (0, 10_000)), ("b", (10_000, 20_000)))
    ]
    built = flags(*pair)
    assert built.decide("churn", UNIT, None) == Decision(DecisionReason.NOT_TARGETED, None, None, None, None, 1.0, 7)
    assert built.decide("churn", None, None) == Decision(DecisionReason.NO_UNIT, None, None, None, None, None, 7)


def test_an_override_of_one_of_several_experiments_counts():
    pair = [
        experiment("a", rollout=10.0, layer="l", slots=((0, 10_000),)),
        experiment("b", rollout=10.0, layer="l", slots=((10_000, 20_000),), overrides=[(UNIT, "treatment")]),
    ]
    assert flags(*pair).decide("churn", UNIT, None) == Decision(DecisionReason.PINNED, "b", "treatment", 2, None, None, 7)


def test_shadows_answer_nobody_and_are_told_apart():
    shadow = arm("shadow", 3, 5, shadow=True)
    built = flags(experiment(variants=(CONTROL, shadow, TREATMENT)))
    assert {d.variant for d in decisions(built, UNITS[:500]).values()} == {"control", "treatment"}
    assert built.shadows("ranking") == (shadow,)
    assert built.shadows("unheard-of") == ()
    assert built.needed == {("churn", 1), ("churn", 2), ("churn", 3)}


@pytest.mark.parametrize("answer", [RawVariant("unheard-of", True, None, True), Unavailable("The flag could not be evaluated.")])
def test_an_answer_that_is_no_arm_leaves_the_alias_to_answer(monkeypatch, answer):
    built = flags(experiment())

    def ask(self, flag, context):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Engine, "ask", ask)
    assert built.decide("churn", UNIT, None) == Decision(DecisionReason.UNKNOWN_VARIANT, "ranking", None, None, None, None, 7)


def test_what_a_caller_says_cannot_be_its_tenant_or_unit():
    """Targeting cannot name them, so a flag that asks for the tenant stands in for a flag server's."""
    targeted = flags(experiment(overrides=[(UNIT, "treatment")]))
    for name in ("userId", "tenantId", "environment"):
        assert targeted.decide("churn", UNITS[1], {name: UNIT}).reason is DecisionReason.EXPERIMENT
    assert targeted.decide("churn", UNIT, {"userId": UNITS[1]}).reason is DecisionReason.PINNED
    assert override_flag("ranking") == "override.ranking"


def test_attributes_that_are_no_texts_are_refused_when_nobody_looked_at_them_before():
    with pytest.raises(InvalidInput, match="texts without lone surrogates"):
        flags(experiment()).decide("churn", UNIT, {"country": "\ud800"})


@settings(max_examples=50, deadline=None)
@given(unit=st.text(min_size=1, max_size=50).filter(lambda text: text.isprintable()), country=st.sampled_from(["NO", "DE", ""]))
def test_any_unit_and_attributes_get_a_decision_with_a_probability(unit, country):
    decision = ANY.decide("churn", unit, {"country": country})
    assert decision.flag_revision == 7
    assert 0 < decision.propensity <= 1
    assert math.isfinite(decision.propensity)
    assert (decision.variant is None) == (decision.version is None) == (decision.reason is not DecisionReason.EXPERIMENT)


ANY = flags(experiment(rollout=40.0, targeting=[NORDIC]), holdout=10.0)
