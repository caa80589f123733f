"""CUPED: what is taken out, and when nothing is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.experiments.stats.cuped import adjust
from app.experiments.stats.moments import arm_moments
from app.experiments.types import MetricAggregation
from tests.unit.experiments.stats.raw import sums_of

pytestmark = pytest.mark.unit

SUM, MEAN = MetricAggregation.SUM, MetricAggregation.MEAN
UNIT = st.tuples(st.integers(-50, 50), st.integers(-50, 50))
ARM = st.lists(UNIT, min_size=3, max_size=15)


def arm_of(units):
    return sums_of([y for y, _ in units], [x for _, x in units])


def filled_by_hand(arms):
    """The definition, row by row: units without x take the mean of all x; theta is the slope within arms."""
    known = [x for units in arms for _, x in units if x is not None]
    x = [np.array([np.mean(known) if z is None else z for _, z in units], dtype=float) for units in arms]
    y = [np.array([z for z, _ in units], dtype=float) for units in arms]
    slope = sum(np.sum((b - b.mean()) * (a - a.mean())) for a, b in zip(x, y, strict=True)) / sum(np.sum((a - a.mean()) ** 2) for a in x)
    return slope, [b - slope * (a - np.mean(known)) for a, b in zip(x, y, strict=True)]


@given(st.lists(ARM, min_size=2, max_size=4))
def test_sums_give_what_rows_give(arms):
    found = adjust([arm_of(units) for units in arms], SUM)
    if not found.used:
        assert found.reason == "The covariate does not vary."
        return
    slope, adjusted = filled_by_hand(arms)
    assert found.theta == pytest.approx(slope, rel=1e-9, abs=1e-9)
    for moments, values in zip(found.arms, adjusted, strict=True):
        assert moments.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-8)
        assert moments.variance == pytest.approx(values.var(ddof=1), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("aggregation", [SUM, MEAN])
def test_a_unit_without_covariate_takes_the_mean_of_all(aggregation):
    rng = np.random.default_rng(1)
    arms = [[(float(y), float(y + e)) for y, e in rng.normal(3, 1, (400, 2))] for _ in range(2)]
    for units in arms:
        units[7] = (units[7][0], None)
    found = adjust([arm_of(units) for units in arms], aggregation)
    slope, adjusted = filled_by_hand(arms)
    assert found.used
    assert found.missing == pytest.approx(2 / 800)
    assert found.theta == pytest.approx(slope, rel=1e-9)
    for moments, values in zip(found.arms, adjusted, strict=True):
        assert (moments.n, moments.mean) == (400, pytest.approx(values.mean(), rel=1e-12))
        assert moments.variance == pytest.approx(values.var(ddof=1), rel=1e-10)


def test_silent_units_keep_their_covariate_under_sum_and_are_left_out_under_mean():
    rng = np.random.default_rng(2)
    arms = [[(float(y), float(y + e)) for y, e in rng.normal(3, 1, (200, 2))] for _ in range(2)]
    for units in arms:
        units[3] = (None, units[3][1])
    zero = [[(0.0 if y is None else y, x) for y, x in units] for units in arms]
    heard = [[(y, x) for y, x in units if y is not None] for units in arms]
    sums = [arm_of(units) for units in arms]
    assert adjust(sums, SUM) == adjust([arm_of(units) for units in zero], SUM)
    assert adjust(sums, MEAN) == adjust([arm_of(units) for units in heard], MEAN)


@given(st.lists(ARM, min_size=2, max_size=3), st.integers(-100, 100), st.integers(-100, 100))
def test_shifts_of_the_covariate_do_nothing_and_of_one_arms_values_just_that(arms, by_x, by_y):
    plain = adjust([arm_of(units) for units in arms], SUM)
    moved = adjust([arm_of([(y + by_y * (place == 1), x + by_x) for y, x in units]) for place, units in enumerate(arms)], SUM)
    assert moved.used == plain.used
    assert moved.theta == plain.theta
    for place, (one, other) in enumerate(zip(plain.arms, moved.arms, strict=True)):
        assert other.mean == pytest.approx(one.mean + by_y * (place == 1), rel=1e-9, abs=1e-9)
        assert other.variance == pytest.approx(one.variance, rel=1e-9, abs=1e-12)


def covered(n, missing, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 1, n)
    return sums_of(y, [None] * missing + list(y[missing:] + 1))


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ([sums_of([1, 2]), sums_of([1, 2])], "No unit has a covariate."),
        ([sums_of([]), sums_of([])], "No unit has a covariate."),
        ([sums_of([1, 2], [1, 2]), sums_of([1], [1])], "An arm has fewer than two units."),
        ([covered(1000, 12), covered(1000, 10)], "1.10% of the units have no covariate; at most 1% may be without."),
        ([covered(2000, 30), covered(2000, 2)], "Units without a covariate do not fall on the arms alike."),
        ([sums_of([1, 2], [5, 5]), sums_of([1, 4], [5, 5])], "The covariate does not vary."),
    ],
)
def test_otherwise_the_values_stay_and_the_reason_is_said(arms, reason):
    found = adjust(arms, SUM)
    assert (found.used, found.reason, found.theta) == (False, reason, None)
    assert found.arms == tuple(arm_moments(sums, SUM) for sums in arms)


def test_one_percent_missing_alike_is_still_used():
    found = adjust([covered(1000, 10), covered(1000, 10)], SUM)
    assert found.used
    assert found.missing == 0.01
