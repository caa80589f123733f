"""Who gets what: the same unit the same arm, whatever else changes; the shares are what was asked for."""

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.experiments.types import BUCKETS, DecisionReason
from tests.unit.experiments.flags.making import CONTROL, TREATMENT, UNITS, arm, arms_of, decisions, experiment, fits, flags

pytestmark = pytest.mark.unit

UP = (0.1, 1.0, 5.0, 20.0, 50.0, 100.0)
RAMP = (*UP, *reversed(UP[:-1]))


def test_a_ramp_up_and_back_moves_nobody_between_arms_and_its_shares_are_those_asked_for():
    seen, by_rollout = {}, {}
    for rollout in RAMP:
        found = arms_of(flags(experiment(rollout=rollout)))
        for unit, variant in found.items():
            assert seen.setdefault(unit, variant) == variant
        assert by_rollout.setdefault(rollout, found) == found, "the way back meets the same units"
        assert (
            fits([len(found), len(UNITS) - len(found)], [rollout / 100, 1 - rollout / 100]) if rollout < 100 else len(found) == len(UNITS)
        )
        if rollout >= 1:
            assert fits(list(Counter(found.values()).values()), [0.5, 0.5])
    for less, more in itertools.pairwise(UP):
        assert set(by_rollout[less]) < set(by_rollout[more])


def test_a_rollout_of_a_tenth_of_a_percent_is_one_in_a_thousand():
    assert 8 <= len(arms_of(flags(experiment(rollout=0.1)))) <= 36


def test_steps_are_of_a_thousandth_of_a_percent():
    found = {decision.propensity for decision in decisions(flags(experiment(rollout=33.333)), UNITS[:100]).values()}
    assert sorted(found) == [pytest.approx(0.33333 / 2, abs=1e-15), pytest.approx(1 - 0.33333, abs=1e-15)]


@settings(max_examples=15, deadline=None)
@given(weights=st.lists(st.integers(1, 500), min_size=2, max_size=10), seed=st.integers(0, 2**32))
def test_arms_share_as_their_weights_do_and_keep_the_declared_order(weights, seed):
    names = [f"v{number}" for number in range(len(weights))]
    random.Random(seed).shuffle(names)  # so that sorting by name would be another order
    arms = [arm(name, number + 1, weight) for number, (name, weight) in enumerate(zip(names, weights, strict=True))]
    units = UNITS[:2_000]
    found = decisions(flags(experiment(variants=arms)), units)
    counts = Counter(decision.variant for decision in found.values())
    assert fits([counts[name] for name in names], [weight / sum(weights) for weight in weights], least_p=1e-6)
    renamed = [replace(each, name=f"z{9 - number}") for number, each in enumerate(arms)]
    again = decisions(flags(experiment(variants=renamed)), units)
    assert [again[unit].version for unit in units] == [found[unit].version for unit in units]


def test_deciding_again_and_in_another_process_image_gives_the_same():
    one, other = flags(experiment(rollout=50.0)), flags(experiment(rollout=50.0))
    assert decisions(one, UNITS[:2_000]) == decisions(one, UNITS[:2_000]) == decisions(other, UNITS[:2_000])


def test_two_experiments_draw_independently():
    first = arms_of(flags(experiment("first")))
    second = arms_of(flags(experiment("second")))
    both = Counter((first[unit], second[unit]) for unit in UNITS)
    assert fits([both[pair] for pair in sorted(both)], [0.25] * 4)


# As many buckets as gates, layers and holdouts have: had two draws one name, whoever is in the first would fill the first arms alone.
TEN_ARMS = tuple(arm(f"v{number}", number + 1, 10_000) for number in range(10))


def test_who_takes_part_is_drawn_independently_of_the_arm():
    for running in (experiment(rollout=20.0, variants=TEN_ARMS), experiment(rollout=20.0, variants=TEN_ARMS, layer="ranking")):
        counts = Counter(arms_of(flags(running)).values())
        assert fits([counts[each.name] for each in TEN_ARMS], [0.1] * 10)


def layered(*shares, model="churn"):
    """Experiments that own so many percent of one layer each, one after the other."""
    reached, made = 0, []
    for number, share in enumerate(shares):
        size = round(share * BUCKETS / 100)
        made.append(experiment(f"exp-{number}", model=model, rollout=share, layer="ranking", slots=((reached, reached + size),)))
        reached += size
    return made


def test_experiments_of_one_layer_never_share_a_unit():
    built = flags(*layered(45.0, 45.0))
    found = Counter(decision.experiment for decision in decisions(built).values())
    assert fits([found["exp-0"], found["exp-1"], found[None]], [0.45, 0.45, 0.10])


def test_a_layer_is_shared_between_models_too():
    first, second = layered(45.0, 45.0)
    built = flags(first, replace(second, model="fraud"))
    assert set(arms_of(built)).isdisjoint(arms_of(built, model="fraud"))


def test_of_experiments_of_one_model_and_layer_each_unit_is_in_the_one_it_would_be_in_alone():
    together = flags(*layered(30.0, 30.0, 30.0))
    for each in layered(30.0, 30.0, 30.0):
        alone = decisions(flags(each))
        for unit, decision in alone.items():
            if decision.reason is DecisionReason.EXPERIMENT:
                assert together.decide("churn", unit, None) == decision


def test_more_slots_take_units_in_and_take_none_out():
    small = experiment(rollout=10.0, layer="ranking", slots=((0, 10_000),))
    large = experiment(rollout=30.0, layer="ranking", slots=((0, 10_000), (50_000, 70_000)))
    before, after = arms_of(flags(small)), arms_of(flags(large))
    assert before.items() <= after.items()
    assert fits([len(after), len(UNITS) - len(after)], [0.3, 0.7])
    assert arms_of(flags(small)) == before


def test_a_neighbour_that_comes_and_goes_in_the_layer_moves_nobody():
    mine = experiment("mine", rollout=20.0, layer="ranking", slots=((40_000, 60_000),))
    other = experiment("other", model="fraud", rollout=40.0, layer="ranking", slots=((0, 40_000),))
    assert arms_of(flags(mine)) == arms_of(flags(mine, other))


def test_an_experiment_that_a_guardrail_set_to_nothing_lets_nobody_in():
    for stopped in (experiment(rollout=0.0), experiment(rollout=0.0, layer="ranking", slots=((0, 10_000),))):
        assert {(d.reason, d.propensity) for d in decisions(flags(stopped), UNITS[:500]).values()} == {(DecisionReason.OUT_OF_ROLLOUT, 1.0)}


def test_the_holdout_is_the_same_units_for_every_experiment_of_the_tenant_and_moves_nobody_else():
    built = flags(experiment("one"), experiment("two", model="fraud"), holdout=5.0)
    held = {unit for unit, decision in decisions(built).items() if decision.reason is DecisionReason.HOLDOUT}
    also = {unit for unit, decision in decisions(built, model="fraud").items() if decision.reason is DecisionReason.HOLDOUT}
    assert held == also
    assert fits([len(held), len(UNITS) - len(held)], [0.05, 0.95])
    without = arms_of(flags(experiment("one")))
    assert {unit: variant for unit, variant in without.items() if unit not in held} == arms_of(built)


@pytest.mark.parametrize("key", ["holdout", "ranking"])
def test_the_holdout_is_drawn_independently_of_an_experiment_whatever_its_key(key):
    counts = Counter(arms_of(flags(experiment(key, variants=TEN_ARMS), holdout=50.0)).values())
    assert fits([counts[each.name] for each in TEN_ARMS], [0.1] * 10)


def test_the_control_in_the_middle_of_the_list_stays_there():
    three = (arm("b", 2, 2), CONTROL, TREATMENT)
    counts = Counter(arms_of(flags(experiment(variants=three))).values())
    assert fits([counts["b"], counts["control"], counts["treatment"]], [0.5, 0.25, 0.25])
