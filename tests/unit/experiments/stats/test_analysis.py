"""The one door: what is said of arms and experiments, and when."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.experiments.stats.analysis import adjust_secondary, analyse
from app.experiments.stats.chance import normal_chance
from app.experiments.stats.cuped import adjust
from app.experiments.stats.differences import compare, difference_interval
from app.experiments.stats.looks import boundary
from app.experiments.stats.moments import arm_moments
from app.experiments.stats.sequences import confidence_sequence
from app.experiments.stats.types import Arm, ArmSums, DecidedBy, Interval, Look, Plan, Verdict
from app.experiments.types import MetricAggregation, MetricDirection, MetricKind, MetricRole
from tests.unit.experiments.stats.raw import arms, quick_sums

pytestmark = pytest.mark.unit

PROPORTION = {"kind": MetricKind.PROPORTION, "aggregation": MetricAggregation.ANY}
PLANNED = ("difference", "difference_low", "difference_high", "lift", "lift_low", "lift_high", "p_value")


def hits(units, events):
    return ArmSums(units, events, events, events)


def plan_of(*weights, **changes):
    return Plan(arms(*(weights or (1, 1))), **(PROPORTION | changes))


def planned_of(result):
    return [getattr(result, name) for name in PLANNED]


def test_before_the_first_look_all_but_the_planned_numbers_are_there():
    found = analyse(plan_of(planned_looks=4, planned_units=8000), [hits(500, 50), hits(500, 90)])
    control, arm = found.variants
    assert (found.verdict, found.winner, found.looks, found.planned_looks) == (Verdict.COLLECTING, None, 0, 4)
    assert planned_of(arm) == planned_of(control) == [None] * 7
    assert (control.mean, arm.mean, arm.units) == (0.1, 0.18, 500)
    assert arm.standard_error == pytest.approx((0.18 * 0.82 / 499) ** 0.5)
    assert arm.sequential_low < 0.08 < arm.sequential_high
    assert arm.chance_to_beat_control > 0.99
    assert arm.verdict is Verdict.COLLECTING
    assert (control.verdict, control.sequential_low, control.chance_to_beat_control) == (None, None, None)


def test_one_look_at_the_end_is_the_plain_test():
    sums = (hits(10_000, 1000), hits(10_000, 1085))
    found = analyse(plan_of(ended=True), sums, [Look(1, sums)])
    arm = found.variants[1]
    plain = compare(*(arm_moments(s, MetricAggregation.ANY) for s in sums))
    interval = difference_interval(plain, 1.959963984540054)
    assert (found.verdict, found.winner) == (Verdict.WINNER, "b")
    assert arm.p_value == pytest.approx(plain.p_value, rel=1e-9) == pytest.approx(0.0492030806, rel=1e-8)
    assert (arm.difference, arm.difference_low, arm.difference_high) == pytest.approx((plain.value, interval.low, interval.high), rel=1e-12)
    assert arm.lift == pytest.approx(0.085)
    assert (arm.verdict, arm.decided_by) == (Verdict.WINNER, DecidedBy.LOOK)


def test_looks_widen_the_interval_by_their_boundary():
    sums = (hits(1000, 100), hits(1000, 120))
    found = analyse(plan_of(planned_looks=10, planned_units=20_000), sums, [Look(1, sums)])
    plain = compare(*(arm_moments(s, MetricAggregation.ANY) for s in sums))
    interval = difference_interval(plain, boundary(1, 10))
    assert (found.variants[1].difference_low, found.variants[1].difference_high) == pytest.approx((interval.low, interval.high))
    assert found.verdict is Verdict.COLLECTING


@pytest.mark.parametrize(
    ("events", "direction", "verdict", "winner"),
    [
        (1300, MetricDirection.INCREASE, Verdict.WINNER, "b"),
        (700, MetricDirection.INCREASE, Verdict.LOSER, None),
        (1300, MetricDirection.DECREASE, Verdict.LOSER, None),
        (700, MetricDirection.DECREASE, Verdict.WINNER, "b"),
        (1010, MetricDirection.INCREASE, Verdict.NO_DIFFERENCE, None),
    ],
)
def test_verdicts_follow_the_metrics_direction(events, direction, verdict, winner):
    sums = (hits(10_000, 1000), hits(10_000, events))
    found = analyse(plan_of(direction=direction), sums, [Look(1, sums)])
    assert (found.verdict, found.variants[1].verdict, found.winner) == (verdict, verdict, winner)


def test_decrease_turns_the_chance_around():
    sums = (hits(1000, 100), hits(1000, 110))
    up, down = (analyse(plan_of(direction=direction), sums).variants[1].chance_to_beat_control for direction in MetricDirection)
    assert up + down == pytest.approx(1)
    assert up > 0.5


def test_what_a_look_found_stays_found():
    """Look 2 crosses its boundary; what came after it is weaker, and changes neither the verdict nor the numbers."""
    looks = [
        Look(1, (hits(1000, 100), hits(1000, 130))),
        Look(2, (hits(2000, 200), hits(2000, 330))),
        Look(3, (hits(3000, 340), hits(3000, 360))),
    ]
    plan = plan_of(planned_looks=4, planned_units=8000)
    at_two, at_three = (analyse(plan, looks[done - 1].arms, looks[:done]) for done in (2, 3))
    assert (at_two.verdict, at_three.verdict) == (Verdict.WINNER, Verdict.WINNER)
    assert planned_of(at_two.variants[1]) == planned_of(at_three.variants[1])
    assert at_three.variants[1].mean == 0.12
    assert analyse(plan, looks[2].arms, [looks[2]]).verdict is Verdict.COLLECTING


def test_a_look_of_which_the_sums_are_lost_may_be_left_out():
    plan = plan_of(planned_looks=4, planned_units=8000)
    found = analyse(plan, (hits(3000, 340), hits(3000, 360)), [Look(3, (hits(3000, 340), hits(3000, 360)))])
    assert (found.looks, found.verdict) == (3, Verdict.COLLECTING)


def test_all_looks_done_without_a_decision_is_no_difference():
    sums = (hits(1000, 100), hits(1000, 104))
    found = analyse(plan_of(planned_looks=2, planned_units=2000), sums, [Look(1, (hits(500, 50), hits(500, 52))), Look(2, sums)])
    assert (found.verdict, found.variants[1].verdict, found.variants[1].decided_by) == (Verdict.NO_DIFFERENCE, Verdict.NO_DIFFERENCE, None)


@pytest.mark.parametrize(
    ("events", "verdict", "decided_by"),
    [(180, Verdict.WINNER, DecidedBy.SEQUENCE), (40, Verdict.LOSER, DecidedBy.SEQUENCE), (130, Verdict.NO_DIFFERENCE, None)],
)
def test_a_run_stopped_early_is_judged_by_the_sequence_alone(events, verdict, decided_by):
    """130 of 1,000 against 100 is significant for a plain test of one look; the plan had not come to any."""
    sums = (hits(1000, 100), hits(1000, events))
    found = analyse(plan_of(planned_looks=4, planned_units=8000, ended=True), sums)
    arm = found.variants[1]
    assert (found.verdict, arm.verdict, arm.decided_by) == (verdict, verdict, decided_by)
    assert planned_of(arm) == [None] * 7
    assert (decided_by is not None) == (arm.sequential_low > 0 or arm.sequential_high < 0)


def test_a_run_stopped_early_keeps_what_a_look_had_decided():
    look = Look(2, (hits(2000, 200), hits(2000, 330)))
    found = analyse(plan_of(planned_looks=4, planned_units=8000, ended=True), look.arms, [look])
    assert (found.verdict, found.variants[1].decided_by) == (Verdict.WINNER, DecidedBy.LOOK)


def test_a_broken_split_is_invalid_whatever_the_metric_says():
    sums = (hits(10_000, 1000), hits(9_000, 1300))
    found = analyse(plan_of(), sums, [Look(1, sums)])
    assert (found.verdict, found.winner, found.srm.ok) == (Verdict.INVALID, None, False)
    assert [result.verdict for result in found.variants] == [None, Verdict.INVALID]
    assert found.variants[1].p_value < 1e-6


def test_weights_are_what_the_split_is_held_to():
    sums = (hits(18_000, 1800), hits(2_000, 200))
    assert analyse(plan_of(9, 1), sums).srm.ok
    assert not analyse(plan_of(1, 1), sums).srm.ok


def test_the_best_of_several_winners_wins_and_losers_lose():
    sums = (hits(10_000, 1000), hits(10_000, 1200), hits(10_000, 1300), hits(10_000, 800), hits(10_000, 1005))
    found = analyse(plan_of(1, 1, 1, 1, 1), sums, [Look(1, sums)])
    assert [result.verdict for result in found.variants] == [None, Verdict.WINNER, Verdict.WINNER, Verdict.LOSER, Verdict.NO_DIFFERENCE]
    assert (found.verdict, found.winner) == (Verdict.WINNER, "c")


def test_an_experiment_loses_only_where_every_arm_does():
    some = (hits(10_000, 1000), hits(10_000, 800), hits(10_000, 1005))
    every = (hits(10_000, 1000), hits(10_000, 800), hits(10_000, 700))
    plan = plan_of(1, 1, 1, planned_looks=2, planned_units=60_000)
    assert analyse(plan, some, [Look(1, some)]).verdict is Verdict.COLLECTING
    assert analyse(plan, some, [Look(2, some)]).verdict is Verdict.NO_DIFFERENCE
    assert analyse(plan, every, [Look(1, every)]).verdict is Verdict.LOSER


def test_several_arms_of_the_primary_metric_share_alpha_by_holm():
    sums = (hits(10_000, 1000), hits(10_000, 1090), hits(10_000, 1090))
    single = analyse(plan_of(), sums[:2], [Look(1, sums[:2])])
    several = analyse(plan_of(1, 1, 1), sums, [Look(1, sums)])
    secondary = analyse(plan_of(1, 1, 1, role=MetricRole.SECONDARY), sums, [Look(1, sums)])
    assert single.verdict is Verdict.WINNER
    assert several.verdict is Verdict.NO_DIFFERENCE
    assert several.variants[1].p_value == pytest.approx(2 * single.variants[1].p_value)
    assert several.variants[1].difference_low < 0 < single.variants[1].difference_low
    assert secondary.variants[1].p_value == single.variants[1].p_value


def test_a_strong_arm_leaves_the_other_its_alpha():
    sums = (hits(10_000, 1000), hits(10_000, 1090), hits(10_000, 1400))
    found = analyse(plan_of(1, 1, 1), sums, [Look(1, sums)])
    assert [result.verdict for result in found.variants[1:]] == [Verdict.WINNER, Verdict.WINNER]
    assert found.winner == "c"


@settings(max_examples=60)
@given(st.lists(st.integers(850, 1150), min_size=3, max_size=3), st.integers(1, 3), st.booleans())
def test_p_value_interval_and_verdict_never_contradict_each_other(events, looks, increase):
    direction = MetricDirection.INCREASE if increase else MetricDirection.DECREASE
    plan = plan_of(1, 1, 1, direction=direction, planned_looks=3, planned_units=30_000)
    done = [Look(k, tuple(hits(3000 * k, e * k // 3) for e in events)) for k in range(1, looks + 1)]
    for arm in analyse(plan, done[-1].arms, done).variants[1:]:
        decided = arm.verdict in {Verdict.WINNER, Verdict.LOSER}
        assert decided == (arm.p_value <= plan.alpha) == (not arm.difference_low <= 0 <= arm.difference_high)
        if decided:
            assert (arm.verdict is Verdict.WINNER) == ((arm.difference > 0) == increase)


@settings(max_examples=60)
@given(st.integers(800, 1200), st.integers(800, 1200))
def test_making_the_other_arm_control_mirrors(one, other):
    sums = (hits(9000, one), hits(9000, other))
    ab = analyse(plan_of(), sums, [Look(1, sums)])
    ba = analyse(plan_of(direction=MetricDirection.DECREASE), sums[::-1], [Look(1, sums[::-1])])
    a, b = ab.variants[1], ba.variants[1]
    assert (ab.verdict, ab.srm.ok) == (ba.verdict, ba.srm.ok)
    assert (a.difference, a.difference_low, a.sequential_low) == pytest.approx(
        (-b.difference, -b.difference_high, -b.sequential_high), rel=1e-9, abs=1e-15
    )
    assert a.p_value == pytest.approx(b.p_value, rel=1e-9)
    assert a.chance_to_beat_control == pytest.approx(b.chance_to_beat_control, abs=1e-9)


def test_control_may_stand_anywhere():
    plan = Plan((Arm("new", 1), Arm("old", 1, control=True)), **PROPORTION)
    sums = (hits(10_000, 1300), hits(10_000, 1000))
    found = analyse(plan, sums, [Look(1, sums)])
    assert (found.winner, found.variants[0].difference, found.variants[1].difference) == ("new", pytest.approx(0.03), None)


def test_a_guardrail_is_judged_by_its_one_sided_sequence_alone():
    guardrail = {"role": MetricRole.GUARDRAIL, "direction": MetricDirection.DECREASE}
    worse, better = (hits(2000, 20), hits(2000, 90)), (hits(2000, 90), hits(2000, 20))
    found = analyse(plan_of(**guardrail), worse)
    assert (found.variants[1].harmful, found.variants[1].verdict, found.verdict) == (True, Verdict.LOSER, Verdict.LOSER)
    found = analyse(plan_of(**guardrail, planned_looks=2, planned_units=8000), better, [Look(1, better)])
    assert (found.variants[1].harmful, found.variants[1].verdict) == (False, Verdict.COLLECTING)
    assert found.variants[1].p_value < 0.001
    assert not analyse(plan_of(direction=MetricDirection.DECREASE), worse).variants[1].harmful


def test_secondary_metrics_are_adjusted_together():
    plan = plan_of(role=MetricRole.SECONDARY)
    events = (1090, 1000, 1001, 1002, 1003)
    analyses = [analyse(plan, sums, [Look(1, sums)]) for sums in ((hits(10_000, 1000), hits(10_000, e)) for e in events)]
    assert analyses[0].verdict is Verdict.WINNER
    together = adjust_secondary(analyses)
    assert together[0].variants[1].p_value == pytest.approx(5 * analyses[0].variants[1].p_value)
    assert (together[0].verdict, together[0].variants[1].verdict, together[0].winner) == (
        Verdict.NO_DIFFERENCE,
        Verdict.NO_DIFFERENCE,
        None,
    )
    assert adjust_secondary(analyses[:1]) == analyses[:1]


def test_secondary_metrics_without_a_look_stay_as_they_are():
    found = analyse(plan_of(role=MetricRole.SECONDARY), [hits(500, 50), hits(500, 60)])
    assert adjust_secondary([found, found]) == [found, found]


def test_a_covariate_narrows_every_interval_and_leaves_the_mean_alone():
    rng = np.random.default_rng(3)
    y = [rng.normal(10, 2, 3000), rng.normal(10.1, 2, 3000)]
    x = [values + rng.normal(0, 0.5, 3000) for values in y]
    plan = Plan(arms(1, 1), planned_units=6000)
    plain = [quick_sums(values) for values in y]
    adjusted = [quick_sums(values, covariates) for values, covariates in zip(y, x, strict=True)]
    without, found = (analyse(plan, sums, [Look(1, tuple(sums))]) for sums in (plain, adjusted))
    a, b = without.variants[1], found.variants[1]
    assert (without.adjustment.used, found.adjustment.used) == (False, True)
    assert without.adjustment.reason == "No unit has a covariate."
    assert (a.mean, a.standard_error) == (b.mean, b.standard_error)
    assert b.difference_high - b.difference_low < 0.4 * (a.difference_high - a.difference_low)
    assert b.sequential_high - b.sequential_low < 0.4 * (a.sequential_high - a.sequential_low)
    assert b.lift == pytest.approx(b.difference / 10, rel=0.01)


def test_an_undecided_arm_is_shown_as_its_latest_look_saw_it():
    looks = [Look(1, (hits(1000, 100), hits(1000, 150))), Look(2, (hits(2000, 200), hits(2000, 202)))]
    arm = analyse(plan_of(planned_looks=4, planned_units=8000), looks[1].arms, looks).variants[1]
    assert (arm.verdict, arm.difference) == (Verdict.COLLECTING, pytest.approx(0.001))


def test_after_its_last_look_no_sequence_overrules_the_plan():
    """The frozen sums of the only look show nothing; what came in since would be enough for the sequence."""
    found = analyse(plan_of(ended=True), (hits(2000, 200), hits(2000, 330)), [Look(1, (hits(1000, 100), hits(1000, 104)))])
    assert found.variants[1].sequential_low > 0
    assert found.verdict is Verdict.NO_DIFFERENCE


def test_the_best_of_metrics_that_should_fall_is_the_lowest():
    sums = (hits(10_000, 1000), hits(10_000, 800), hits(10_000, 700))
    down = {"direction": MetricDirection.DECREASE}
    assert analyse(plan_of(1, 1, 1, **down), sums, [Look(1, sums)]).winner == "c"
    stopped = analyse(plan_of(1, 1, 1, planned_looks=2, planned_units=60_000, ended=True, **down), sums)
    assert (stopped.winner, stopped.variants[2].decided_by) == ("c", DecidedBy.SEQUENCE)


def test_the_sequence_shares_alpha_among_arms_and_is_tuned_to_the_units_of_its_pair():
    sums = (hits(1000, 100), hits(1000, 130), hits(2000, 200))
    difference = compare(*(arm_moments(each, MetricAggregation.ANY) for each in sums[:2]))

    def shown(**changes):
        arm = analyse(plan_of(1, 1, 2, **changes), sums).variants[1]
        return Interval(arm.sequential_low, arm.sequential_high)

    assert shown(planned_units=20_000) == confidence_sequence(difference, 0.025, 10_000)
    assert shown() == confidence_sequence(difference, 0.025, 5000)
    assert shown(role=MetricRole.SECONDARY) == confidence_sequence(difference, 0.05, 5000)


def test_the_chance_of_a_proportion_with_a_covariate_is_of_the_adjusted_difference():
    rng = np.random.default_rng(4)
    y = [(rng.random(500) < rate).astype(float) for rate in (0.5, 0.5)]
    x = [values + rng.normal(0, 0.05, 500) for values in y]
    sums = [quick_sums(values, covariates) for values, covariates in zip(y, x, strict=True)]
    arm = analyse(plan_of(), sums).variants[1]
    difference = compare(*adjust(sums, MetricAggregation.ANY).arms)
    assert arm.chance_to_beat_control == normal_chance(difference.value, difference.variance)


def test_a_look_is_held_to_its_own_split():
    """Too little for the check that may be made at any moment, enough for the one at a planned moment."""
    sums = (hits(9000, 900), hits(1125, 112))
    plan = plan_of(9, 1, planned_looks=2, planned_units=40_000)
    assert analyse(plan, sums).verdict is Verdict.COLLECTING
    assert analyse(plan, sums, [Look(1, sums)]).verdict is Verdict.INVALID


def test_without_units_everything_is_empty():
    found = analyse(plan_of(), [ArmSums(), ArmSums()], [Look(1, (ArmSums(), ArmSums()))])
    arm = found.variants[1]
    assert (found.srm.p_value, arm.mean, arm.standard_error, arm.sequential_low, arm.chance_to_beat_control) == (None,) * 5
    assert planned_of(arm) == [None] * 7
    assert found.verdict is Verdict.NO_DIFFERENCE


def test_the_same_question_has_the_same_answer():
    sums = (hits(1000, 100), hits(1000, 130))
    assert analyse(plan_of(), sums, [Look(1, sums)]) == analyse(plan_of(), sums, [Look(1, sums)])


SUMS = (hits(10, 1), hits(10, 2))


@pytest.mark.parametrize(
    ("now", "looks"),
    [
        (SUMS[:1], ()),
        (SUMS, [Look(1, SUMS[:1])]),
        (SUMS, [Look(3, SUMS)]),
        (SUMS, [Look(0, SUMS)]),
        (SUMS, [Look(2, SUMS), Look(1, SUMS)]),
        (SUMS, [Look(1, SUMS), Look(1, SUMS)]),
    ],
)
def test_sums_that_do_not_fit_the_plan_are_refused(now, looks):
    with pytest.raises(InvalidInput):
        analyse(plan_of(planned_looks=2), now, looks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"arms": arms(1)},
        {"arms": (*arms(*[1] * 10), Arm("k", 1))},
        {"arms": (Arm("a", 1), Arm("b", 1))},
        {"arms": (Arm("a", 1, control=True), Arm("b", 1, control=True))},
        {"arms": arms(1, 0)},
        {"planned_looks": 0},
        {"alpha": 1.0},
    ],
)
def test_plans_that_are_none_are_refused(wrong):
    with pytest.raises(InvalidInput):
        replace(plan_of(), **wrong)
