"""Thousands of simulated experiments through `analyse` itself: how often it errs, and how often it finds what is there.

Data are drawn for all experiments at once; every verdict comes from the public door, one experiment at a time. Seeds are fixed.
"""

from dataclasses import replace

import numpy as np
import pytest

from app.experiments.stats.analysis import analyse
from app.experiments.stats.power import Design, units_needed
from app.experiments.stats.types import ArmSums, Look, Plan, Verdict
from app.experiments.types import MetricAggregation, MetricDirection, MetricKind, MetricRole
from tests.unit.experiments.stats.raw import arms, quick_sums

pytestmark = pytest.mark.unit

EXPERIMENTS = 2000
DECIDED = {Verdict.WINNER, Verdict.LOSER}
ANY = {"kind": MetricKind.PROPORTION, "aggregation": MetricAggregation.ANY}


def events_at(rng, rate, units):
    """Events of every experiment at each number of units of an arm: (experiments, looks)."""
    return np.cumsum(np.stack([rng.binomial(step, rate, EXPERIMENTS) for step in np.diff([0, *units])], axis=1), axis=1)


def proportions(rng, rates, units):
    """For every experiment its looks' sums of all arms, all arms with as many units."""
    events = [events_at(rng, rate, units).tolist() for rate in rates]
    for experiment in range(EXPERIMENTS):
        yield [tuple(ArmSums(n, e[experiment][k], e[experiment][k], e[experiment][k]) for e in events) for k, n in enumerate(units)]


def means(rng, draw, units):
    """As `proportions`, with values that `draw(rng, size)` draws for two arms alike."""
    for _ in range(EXPERIMENTS):
        y = [draw(rng, units[-1]) for _ in range(2)]
        totals = [(np.cumsum(values)[np.array(units) - 1].tolist(), np.cumsum(values**2)[np.array(units) - 1].tolist()) for values in y]
        yield [tuple(ArmSums(n, n, t[k], s[k]) for t, s in totals) for k, n in enumerate(units)]


def decided_at_looks(plan, experiments):
    """Share of experiments in which any look decided anything; what one look found stays found, so the last call tells all."""
    found = 0
    for moments in experiments:
        looks = [Look(number, sums) for number, sums in enumerate(moments, 1)]
        found += any(result.verdict in DECIDED for result in analyse(plan, moments[-1], looks).variants)
    return found / EXPERIMENTS


def decided_while_watched(plan, experiments):
    """Share of experiments that, stopped at the first moment at which the sequence allows it, would be called decided."""
    stopped = replace(plan, ended=True)
    return sum(any(analyse(stopped, sums).verdict in DECIDED for sums in moments) for moments in experiments) / EXPERIMENTS


@pytest.mark.parametrize(
    ("rate", "step", "looks"),
    [(0.1, 1000, 10), (0.02, 500, 10), (0.1, 10_000, 1), (0.02, 5000, 1)],
    ids=["10-looks", "10-looks-rare", "1-look", "1-look-rare"],
)
def test_planned_looks_at_proportions_err_five_times_in_a_hundred(rate, step, looks):
    units = [step * k for k in range(1, looks + 1)]
    plan = Plan(arms(1, 1), planned_looks=looks, planned_units=2 * units[-1], **ANY)
    assert 0.035 <= decided_at_looks(plan, proportions(np.random.default_rng(71), (rate, rate), units)) <= 0.065


@pytest.mark.parametrize("looks", [10, 1])
def test_planned_looks_at_skewed_means_err_five_times_in_a_hundred(looks):
    units = [2000 * k // looks for k in range(1, looks + 1)]
    plan = Plan(arms(1, 1), planned_looks=looks, planned_units=2 * units[-1])
    assert 0.035 <= decided_at_looks(plan, means(np.random.default_rng(72), lambda rng, size: rng.lognormal(0, 1, size), units)) <= 0.065


def test_three_arms_together_err_no_more_often():
    units = [1000 * k for k in range(1, 6)]
    plan = Plan(arms(1, 1, 1), planned_looks=5, planned_units=3 * units[-1], **ANY)
    assert 0.025 <= decided_at_looks(plan, proportions(np.random.default_rng(73), (0.1, 0.1, 0.1), units)) <= 0.06


def test_looking_without_counting_the_looks_would_err_far_more_often():
    """What the planned analysis guards against: every look taken for the only one."""
    units = [1000 * k for k in range(1, 11)]
    plan = Plan(arms(1, 1), planned_units=2 * units[-1], **ANY)
    some = list(proportions(np.random.default_rng(71), (0.1, 0.1), units))[:500]
    assert np.mean([any(analyse(plan, sums, [Look(1, sums)]).verdict in DECIDED for sums in moments) for moments in some]) > 0.15


WATCHED = [*range(60, 400, 20), *range(400, 2000, 100), *range(2000, 10_001, 500)]  # 50 moments, dense at the start


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.02])
def test_the_sequence_watched_all_the_time_errs_at_most_twice_in_a_hundred(rate):
    plan = Plan(arms(1, 1), planned_looks=2, planned_units=20_000, **ANY)
    assert decided_while_watched(plan, proportions(np.random.default_rng(74), (rate, rate), WATCHED)) <= 0.02


@pytest.mark.slow
def test_the_sequence_of_a_skewed_mean_watched_all_the_time_errs_at_most_twice_in_a_hundred():
    plan = Plan(arms(1, 1), planned_looks=2)
    draw = lambda rng, size: rng.lognormal(0, 1, size)  # noqa: E731
    assert decided_while_watched(plan, means(np.random.default_rng(75), draw, [n for n in WATCHED if n <= 5000])) <= 0.02


@pytest.mark.slow
def test_a_guardrail_watched_all_the_time_stops_a_harmless_arm_at_most_once_in_a_hundred():
    plan = Plan(arms(1, 1), direction=MetricDirection.DECREASE, role=MetricRole.GUARDRAIL, planned_units=20_000, **ANY)
    stopped = 0
    for moments in proportions(np.random.default_rng(76), (0.02, 0.02), WATCHED):
        stopped += any(analyse(plan, sums).variants[1].harmful for sums in moments)
    assert stopped / EXPERIMENTS <= 0.01


@pytest.mark.slow
def test_a_run_that_is_stopped_between_looks_is_not_the_way_to_a_verdict():
    """Looks as planned and, after each, the temptation to stop where the sequence allows it: both together keep the promise."""
    units = [500 * k for k in range(1, 21)]  # every other one is a look, and at the others it may be stopped
    plan = Plan(arms(1, 1), planned_looks=10, planned_units=2 * units[-1], ended=True, **ANY)
    wrong = 0
    for moments in proportions(np.random.default_rng(77), (0.1, 0.1), units):
        looks = [Look(number, sums) for number, sums in enumerate(moments[1::2], 1)]
        stops = [analyse(plan, sums, looks[:done]).verdict in DECIDED for done, sums in enumerate(moments[::2])]
        wrong += any(stops) or analyse(plan, moments[-1], looks).verdict in DECIDED
    assert wrong / EXPERIMENTS <= 0.065


REQUESTS = 20


def raw_requests(rng, users):
    """Requests of one arm: (unit of each request, whether it succeeded); users differ much in how often they do."""
    rate = rng.beta(0.6, 2.4, users)
    unit = np.repeat(np.arange(users), REQUESTS)
    return unit, rng.random(users * REQUESTS) < rate[unit]


def test_twenty_requests_a_user_do_not_inflate_the_error():
    """From raw rows: requests are summed to one value a unit, as the contract says, and only then compared."""
    rng = np.random.default_rng(78)
    plan, per_request = Plan(arms(1, 1), planned_units=600), Plan(arms(1, 1), planned_units=600 * REQUESTS, **ANY)
    wrong = naive = 0
    for _ in range(EXPERIMENTS):
        rows = [raw_requests(rng, 300) for _ in range(2)]
        units = tuple(quick_sums(np.bincount(unit, weights=success, minlength=300)) for unit, success in rows)
        requests = tuple(quick_sums(success.astype(float)) for _, success in rows)
        wrong += analyse(plan, units, [Look(1, units)]).verdict in DECIDED
        naive += analyse(per_request, requests, [Look(1, requests)]).verdict in DECIDED
    assert 0.035 <= wrong / EXPERIMENTS <= 0.065
    assert naive / EXPERIMENTS > 0.3


@pytest.mark.parametrize("looks", [1, 10])
def test_a_true_effect_is_found_with_the_stated_power(looks):
    design = Design((1, 1), mean=0.10, kind=MetricKind.PROPORTION, looks=looks)
    step = -(-units_needed(design, effect=0.02).units // (2 * looks))
    plan = Plan(arms(1, 1), planned_looks=looks, planned_units=2 * looks * step, **ANY)
    units = [step * k for k in range(1, looks + 1)]
    found = decided_at_looks(plan, proportions(np.random.default_rng(79), (0.10, 0.12), units))
    assert found == pytest.approx(design.power, abs=0.03)


def test_a_covariate_finds_more_and_errs_no_more():
    rng = np.random.default_rng(80)
    plan = Plan(arms(1, 1), planned_units=800)
    counts = np.zeros((2, 2))  # (no effect, an effect) x (without, with a covariate)
    for _ in range(EXPERIMENTS):
        x = rng.normal(0, 1, (2, 400))
        y = x + rng.normal(0, 0.75, (2, 400))
        for place, effect in enumerate((0.0, 0.14)):
            for used in (False, True):
                sums = tuple(quick_sums(y[arm] + effect * arm, x[arm] if used else None) for arm in range(2))
                counts[place, int(used)] += analyse(plan, sums, [Look(1, sums)]).verdict in DECIDED
    errors, power = counts / EXPERIMENTS
    assert all(0.035 <= error <= 0.065 for error in errors)
    assert power[1] > power[0] + 0.3


def test_a_true_effect_is_called_a_winner_and_hardly_ever_a_loser():
    units = [800 * k for k in range(1, 6)]
    plan = Plan(arms(1, 1), planned_looks=5, planned_units=2 * units[-1], **ANY)
    verdicts = [
        analyse(plan, moments[-1], [Look(number, sums) for number, sums in enumerate(moments, 1)]).verdict
        for moments in proportions(np.random.default_rng(81), (0.10, 0.12), units)
    ]
    assert verdicts.count(Verdict.WINNER) > 1500
    assert verdicts.count(Verdict.LOSER) < 4
