"""What units get from a flag server's flags, by the real evaluator, in the contract's words."""

import hashlib
from collections import Counter

import pytest

from app.errors import Unavailable
from app.experiments.flags.building import build_flags
from app.experiments.flags.reference import bucket
from app.experiments.types import DecisionReason
from app.experiments.unleash.deciding import decide
from app.experiments.unleash.splitting import SplitDocument
from tests.support.unleash_features import V1, V2, document, feature, on, strategy, variant, where

pytestmark = pytest.mark.unit

UNITS = [hashlib.sha256(f"u{number}".encode()).hexdigest() for number in range(2000)]
R = DecisionReason


def flags(*features, holdout=0.0, tenant="acme"):
    found = SplitDocument.of(document(*features), False).of_tenant(tenant)
    return build_flags(tenant, [], holdout, 1, found, False)


def decisions(*features, attributes=None, **more):
    built = flags(*features, **more)
    return [built.decide("churn", unit, attributes) for unit in UNITS]


def test_a_variant_s_decision_names_version_experiment_and_revision():
    for decision, unit in zip(decisions(feature("model.churn", strategy(on("acme"), variants=[V1, V2]))), UNITS, strict=True):
        second = bucket("model.churn", unit, 1000, 86028157) > 900
        assert (decision.variant, decision.version, decision.alias) == (("v2", 2, None) if second else ("v1", 1, None))
        assert decision.propensity == (0.1 if second else 0.9)
        assert (decision.reason, decision.experiment, decision.flag_revision) == (R.EXPERIMENT, "unleash-churn", 7)


def test_a_variant_may_name_an_alias():
    (one, *_) = decisions(feature("model.churn", strategy(on("acme"), variants=[variant("next", 1000, {"alias": "candidate"})])))
    assert (one.variant, one.version, one.alias, one.propensity) == ("next", None, "candidate", 1.0)


def test_out_of_rollout_has_the_probability_that_is_left():
    found = decisions(feature("model.churn", strategy(on("acme"), rollout="30", variants=[V1, V2])))
    for decision, unit in zip(found, UNITS, strict=True):
        inside = bucket("model.churn", unit, 100) <= 30
        assert (decision.reason is R.EXPERIMENT) is inside
        assert decision.propensity == pytest.approx({None: 0.7, "v1": 0.27, "v2": 0.03}[decision.variant], abs=1e-15)


def test_who_no_strategy_means_is_not_targeted_whatever_the_rollout():
    churn = feature("model.churn", strategy(on("acme"), where("country", "NO"), rollout="30", variants=[V1, V2]))
    assert {(each.reason, each.propensity) for each in decisions(churn, attributes={"country": "SE"})} == {(R.NOT_TARGETED, 1.0)}
    assert {(each.reason, each.propensity) for each in decisions(churn)} == {(R.NOT_TARGETED, 1.0)}
    assert {each.reason for each in decisions(churn, attributes={"country": "NO"})} == {R.EXPERIMENT, R.OUT_OF_ROLLOUT}


def test_what_the_caller_says_of_its_tenant_does_not_count():
    churn = feature("model.churn", strategy(on("acme"), where("tier", "gold"), variants=[V1]))
    assert flags(churn, tenant="globex").decide("churn", UNITS[0], {"tier": "gold", "tenantId": "acme"}) is None


def test_rollout_zero_is_out_of_rollout_and_a_flag_that_is_off_is_off():
    zero = feature("model.churn", strategy(on("acme"), rollout="0", variants=[V1]))
    assert {(each.reason, each.propensity) for each in decisions(zero)} == {(R.OUT_OF_ROLLOUT, 1.0)}
    off = feature("model.churn", strategy(on("acme"), variants=[V1]), enabled=False)
    assert {(each.reason, each.propensity, each.version) for each in decisions(off)} == {(R.FLAG_OFF, 1.0, None)}


def test_a_parent_that_is_off_turns_the_flag_off_and_one_that_means_others_does_not_target():
    churn = feature("model.churn", strategy(on("acme"), variants=[V1]), dependencies=[{"feature": "top"}])
    off = feature("top", strategy(on("acme"), group="top"), enabled=False)
    assert {each.reason for each in decisions(off, churn)} == {R.FLAG_OFF}
    other = feature("top", strategy(on("acme"), where("country", "NO"), group="top"))
    assert {each.reason for each in decisions(other, churn)} == {R.NOT_TARGETED}
    assert {each.reason for each in decisions(other, churn, attributes={"country": "NO"})} == {R.EXPERIMENT}


def test_a_parent_that_must_be_off_and_is_always_on_does_not_target():
    churn = feature("model.churn", strategy(on("acme"), variants=[V1]), dependencies=[{"feature": "top", "enabled": False}])
    assert {each.reason for each in decisions(feature("top", strategy(on("acme"), group="top")), churn)} == {R.NOT_TARGETED}
    half = decisions(feature("top", strategy(on("acme"), group="top", rollout="50")), churn)
    assert {(each.reason, each.propensity) for each in half} == {(R.EXPERIMENT, 0.5), (R.OUT_OF_ROLLOUT, 0.5)}


def test_a_layer_of_the_flag_server_gives_its_share():
    layer = feature("layer.x", strategy(on("acme"), group="layer.x", variants=[variant("one", 450, "{}"), variant("two", 550, "{}")]))
    churn = feature(
        "model.churn", strategy(on("acme"), rollout="50", variants=[V1, V2]), dependencies=[{"feature": "layer.x", "variants": ["one"]}]
    )
    found = decisions(layer, churn)
    assert {each.variant: each.propensity for each in found} == pytest.approx(
        {"v1": 0.45 * 0.5 * 0.9, "v2": 0.45 * 0.5 * 0.1, None: 1 - 0.225}
    )


def test_several_strategies_with_one_group_are_correlated_and_with_others_independent():
    both = [variant("v2", 1000, {"version": 2})]

    def chances(group):
        churn = feature(
            "model.churn", strategy(on("acme"), rollout="20", variants=[V1]), strategy(on("acme"), rollout="50", group=group, variants=both)
        )
        found = decisions(churn)
        shares = Counter(each.variant for each in found)
        told = {each.variant: each.propensity for each in found}
        assert all(
            abs(shares[name] / len(found) - chance) < 4.5 * (chance * (1 - chance) / len(found)) ** 0.5 for name, chance in told.items()
        )
        return told

    assert chances("model.churn") == pytest.approx({"v1": 0.2, "v2": 0.3, None: 0.5})
    assert chances("another") == pytest.approx({"v1": 0.2, "v2": 0.4, None: 0.4})


def test_the_same_version_by_several_strategies_has_their_chances_together():
    churn = feature(
        "model.churn", strategy(on("acme"), rollout="20", variants=[V2]), strategy(on("acme"), rollout="50", group="b", variants=[V1, V2])
    )
    assert {each.variant: each.propensity for each in decisions(churn)} == pytest.approx(
        {"v2": 0.2 + 0.8 * 0.5 * 0.1, "v1": 0.8 * 0.5 * 0.9, None: 0.4}
    )


def test_variants_of_the_flag_are_given_where_the_strategy_has_none_of_its_own():
    churn = feature("model.churn", strategy(on("acme"), group="other"), variants=[V1, V2])
    for decision, unit in zip(decisions(churn), UNITS, strict=True):
        assert decision.variant == ("v1" if bucket("model.churn", unit, 1000, 86028157) <= 900 else "v2")


def test_a_payload_that_is_not_understood_is_an_unknown_variant():
    found = decisions(feature("model.churn", strategy(on("acme"), variants=[V1, variant("v2", 100, "rubbish")])))
    assert {(each.reason, each.variant, each.version) for each in found} == {(R.EXPERIMENT, "v1", 1), (R.UNKNOWN_VARIANT, None, None)}
    assert {each.propensity for each in found if each.reason is R.UNKNOWN_VARIANT} == {0.1}


def test_letting_in_without_a_variant_is_an_unknown_variant():
    built = flags(feature("model.churn", strategy(on("acme"), rollout="50")))
    assert {(each.reason, each.propensity) for each in (built.decide("churn", unit, None) for unit in UNITS)} == {
        (R.UNKNOWN_VARIANT, 0.5),
        (R.OUT_OF_ROLLOUT, 0.5),
    }
    assert built.problems == ("Flag 'model.churn': lets units in without a variant to give them: they get what is in production.",)


def test_held_out_units_are_held_out_of_these_flags_too_and_all_chances_add_up_to_one():
    found = decisions(feature("model.churn", strategy(on("acme"), rollout="50", variants=[V1, V2])), holdout=10.0)
    told = {(each.reason, each.variant): each.propensity for each in found}
    assert told == pytest.approx(
        {(R.HOLDOUT, None): 0.1, (R.OUT_OF_ROLLOUT, None): 0.45, (R.EXPERIMENT, "v1"): 0.405, (R.EXPERIMENT, "v2"): 0.045}
    )


def test_a_model_without_a_flag_and_a_tenant_without_one_are_no_concern():
    built = flags(feature("model.churn", strategy(on("acme"), variants=[V1])))
    assert built.decide("risk", UNITS[0], None) is None
    assert built.decide("churn", None, None).reason is R.NO_UNIT
    assert flags(feature("model.churn", strategy(on("acme"), variants=[V1])), tenant="globex").decide("churn", UNITS[0], None) is None


def test_users_that_a_strategy_lists_are_let_in_by_it_alone():
    listed = {**strategy(on("acme"), variants=[V2]), "name": "userWithId", "parameters": {"userIds": ", ".join(UNITS[:5])}}
    built = flags(feature("model.churn", listed, strategy(on("acme"), rollout="50", variants=[V1])))
    first = [built.decide("churn", unit, None) for unit in UNITS[:5]]
    assert [(each.variant, each.propensity) for each in first] == [("v2", 1.0)] * 5
    assert {(each.variant, each.propensity) for each in (built.decide("churn", unit, None) for unit in UNITS[5:])} == {
        ("v1", 0.5),
        (None, 0.5),
    }


def test_an_evaluator_that_fails_is_an_unknown_variant_and_no_error():
    def ask(_flag):
        raise Unavailable("no")

    found = SplitDocument.of(document(feature("model.churn", strategy(on("acme"), variants=[V1]))), False).of_tenant("acme")
    decision = decide(found, "churn", UNITS[0], None, ask)
    assert (decision.reason, decision.propensity) == (R.UNKNOWN_VARIANT, None)
