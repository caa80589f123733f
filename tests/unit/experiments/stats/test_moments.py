"""Sums of units become means and variances, exactly; silent units count as their aggregation says."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.experiments.stats.moments import arm_moments
from app.experiments.stats.types import ArmSums, exact
from app.experiments.types import MetricAggregation
from tests.unit.experiments.stats.raw import sums_of

pytestmark = pytest.mark.unit

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
ROWS = st.lists(st.tuples(st.none() | NUMBERS, st.none() | NUMBERS), min_size=0, max_size=20)
EVERY_AGGREGATION = list(MetricAggregation)


def arm_of(rows):
    return sums_of([y for y, _ in rows], [x for _, x in rows])


@given(ROWS, ROWS)
def test_sums_added_are_the_sums_of_the_union(one, other):
    assert arm_of(one) + arm_of(other) == arm_of(one + other)


@given(st.lists(NUMBERS, min_size=2, max_size=30), st.sampled_from(EVERY_AGGREGATION))
def test_moments_are_those_of_the_values(values, aggregation):
    found = arm_moments(sums_of(values), aggregation)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-9)
    assert found.variance == pytest.approx(np.var(values, ddof=1), rel=1e-9, abs=1e-9)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("aggregation", [MetricAggregation.ANY, MetricAggregation.SUM])
def test_silent_units_count_as_zero_under_any_and_sum(aggregation):
    assert arm_moments(sums_of([1, None, 1, None]), aggregation) == arm_moments(sums_of([1, 0, 1, 0]), aggregation)
    assert arm_moments(sums_of([1, None, 1, None]), aggregation).mean == 0.5


@pytest.mark.parametrize("aggregation", [MetricAggregation.MEAN, MetricAggregation.LAST])
def test_silent_units_are_left_out_under_mean_and_last(aggregation):
    assert arm_moments(sums_of([1, None, 3, None]), aggregation) == arm_moments(sums_of([1, 3]), aggregation)
    assert arm_moments(sums_of([None, None]), aggregation) is None


def test_nothing_and_one_unit_have_no_variance():
    assert arm_moments(ArmSums(), MetricAggregation.SUM) is None
    one = arm_moments(sums_of([4.5]), MetricAggregation.SUM)
    assert (one.n, one.mean, one.variance, one.standard_error, one.mean_variance) == (1, 4.5, None, None, None)


@given(st.integers(0, 10**15), st.lists(st.integers(0, 50), min_size=2, max_size=20))
def test_a_large_level_does_not_drown_the_variance(level, values):
    """Σy² - (Σy)²/n in floats would be nothing but rounding here."""
    plain, lifted = (arm_moments(sums_of(rows), MetricAggregation.SUM) for rows in (values, [value + level for value in values]))
    assert lifted.variance == plain.variance


def test_sums_come_as_whatever_a_database_gives():
    kinds = [
        ArmSums(3, 3, 6, 14),
        ArmSums(3, 3, 6.0, 14.0),
        ArmSums(3, 3, Decimal(6), Decimal(14)),
        ArmSums(3, 3, Fraction(6), Fraction(14)),
        ArmSums(3, 3, np.int64(6), np.float64(14)),
    ]
    assert {arm_moments(sums, MetricAggregation.SUM) for sums in kinds} == {arm_moments(sums_of([1, 2, 3]), MetricAggregation.SUM)}


def test_decimals_of_many_digits_add_without_rounding():
    digits = Decimal("12345678901234567890.12345678901234567891")
    both = ArmSums(1, 1, digits, 0) + ArmSums(1, 1, Decimal("1e-20"), 0)
    assert both.total == Fraction(digits) + Fraction(1, 10**20)


def test_sums_that_rounding_made_impossible_have_no_variance():
    assert arm_moments(ArmSums(2, 2, 0.2, 0.0199999), MetricAggregation.SUM).variance == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity")])
def test_sums_that_are_no_numbers_are_refused(number):
    with pytest.raises(InvalidInput):
        exact(number)


@pytest.mark.parametrize("values", [[1e200, -1e200], [10**400], [10**200, 0]])
def test_values_that_no_variance_can_hold_are_refused(values):
    with pytest.raises(InvalidInput, match="too large"):
        arm_moments(sums_of(values), MetricAggregation.SUM)


@pytest.mark.parametrize(
    "counts", [{"units": 1, "counted": 2}, {"units": -1}, {"units": 1, "covered": 2}, {"units": 3, "counted": 1, "covered": 3, "both": 2}]
)
def test_counts_that_contradict_each_other_are_refused(counts):
    with pytest.raises(InvalidInput):
        ArmSums(**counts)
