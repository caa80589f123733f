"""Difference and lift: Welch and Fieller, alike in both directions, at any critical value."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from app.experiments.stats.differences import compare, difference_interval, lift
from app.experiments.stats.moments import Moments, moments

pytestmark = pytest.mark.unit

USUAL = 1.959963984540054
MOMENTS = st.builds(Moments, st.integers(2, 10**7), st.floats(-1e3, 1e3), st.floats(1e-3, 1e4))
POSITIVE = st.builds(Moments, st.integers(2, 10**7), st.floats(1e-2, 1e3), st.floats(1e-3, 1e4))
CRITICAL = st.floats(0.5, 7.0)


def same(one, other, tolerance=1e-9):
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-12)


@given(MOMENTS, MOMENTS)
def test_p_value_and_interval_are_welchs(control, arm):
    found = compare(control, arm)
    expected = scipy_stats.ttest_ind_from_stats(
        arm.mean, math.sqrt(arm.variance), arm.n, control.mean, math.sqrt(control.variance), control.n, equal_var=False
    )
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-290)
    width = scipy_stats.t.ppf(0.975, found.degrees) * found.standard_error
    interval = difference_interval(found, USUAL)
    assert (interval.low, interval.high) == pytest.approx((found.value - width, found.value + width), rel=1e-9)


@given(MOMENTS, MOMENTS, CRITICAL)
def test_swapping_the_arms_mirrors(control, arm, critical_z):
    one, other = compare(control, arm), compare(arm, control)
    assert (one.value, one.z, one.p_value) == (-other.value, -other.z if one.value else 0, other.p_value) or same(one.z, -other.z)
    first, second = difference_interval(one, critical_z), difference_interval(other, critical_z)
    assert same(first.low, -second.high)
    assert same(first.high, -second.low)


@given(MOMENTS, MOMENTS, CRITICAL, st.floats(0.01, 100))
def test_another_unit_of_measurement_scales_all_but_the_p_value(control, arm, critical_z, factor):
    scaled = [Moments(m.n, m.mean * factor, m.variance * factor**2) for m in (control, arm)]
    one, other = compare(control, arm), compare(*scaled)
    assert same(other.value, one.value * factor)
    assert same(other.p_value, one.p_value, 1e-6)
    assert (
        same(difference_interval(other, critical_z).high, difference_interval(one, critical_z).high * factor, 1e-7) or abs(one.value) > 1e-3
    )


@given(
    st.lists(st.integers(-20, 20), min_size=2, max_size=12), st.lists(st.integers(-20, 20), min_size=2, max_size=12), st.integers(-100, 100)
)
def test_a_shift_of_both_arms_changes_nothing(control, arm, shift):
    plain = compare(*(moments(len(v), sum(v), sum(x * x for x in v)) for v in (control, arm)))
    control, arm = [x + shift for x in control], [x + shift for x in arm]
    shifted = compare(*(moments(len(v), sum(v), sum(x * x for x in v)) for v in (control, arm)))
    if plain is None:
        assert shifted is None
    else:
        assert same(plain.value, shifted.value)
        assert same(plain.p_value, shifted.p_value)


@given(MOMENTS, MOMENTS, CRITICAL)
def test_the_interval_leaves_zero_out_exactly_where_z_is_critical(control, arm, critical_z):
    found = compare(control, arm)
    assume(not math.isclose(abs(found.z), critical_z, rel_tol=1e-6) and abs(found.z) < 36)
    interval = difference_interval(found, critical_z)
    assert (abs(found.z) > critical_z) == (not interval.low <= 0 <= interval.high)


@given(POSITIVE, POSITIVE, CRITICAL)
def test_lift_leaves_zero_out_exactly_where_the_difference_does(control, arm, critical_z):
    found = compare(control, arm)
    assume(not math.isclose(abs(found.z), critical_z, rel_tol=1e-6) and abs(found.z) < 36)
    ratio = lift(found, critical_z)
    assume(ratio is not None)
    assert (abs(found.z) > critical_z) == (not ratio.low <= 0 <= ratio.high)
    assert ratio.low <= ratio.value <= ratio.high


@given(POSITIVE, POSITIVE)
def test_both_ends_of_lift_solve_fiellers_equation(control, arm):
    found = compare(control, arm)
    ratio = lift(found, USUAL)
    assume(ratio is not None)
    critical_t = scipy_stats.t.ppf(0.975, found.degrees)
    assume(critical_t**2 * control.variance / control.n < 0.9 * control.mean**2)
    for end in (ratio.low, ratio.high):
        gap = arm.mean - (1 + end) * control.mean
        error = math.sqrt(arm.variance / arm.n + (1 + end) ** 2 * control.variance / control.n)
        assert abs(gap) == pytest.approx(critical_t * error, rel=1e-5)


def test_lift_is_nothing_against_a_control_that_may_be_nothing():
    arm = Moments(100, 2.0, 1.0)
    assert lift(compare(Moments(100, 0.0, 1.0), arm), USUAL) is None
    assert lift(compare(Moments(100, -5.0, 1.0), arm), USUAL) is None
    barely = compare(Moments(100, 0.25, 1.0), arm)  # 2.5 standard errors above 0
    assert lift(barely, USUAL) is not None
    assert lift(barely, 2.6) is None


@pytest.mark.parametrize(
    ("control", "arm"),
    [
        (None, Moments(9, 1.0, 1.0)),
        (Moments(9, 1.0, 1.0), None),
        (Moments(1, 1.0, None), Moments(9, 1.0, 1.0)),
        (Moments(9, 1.0, 0.0), Moments(9, 2.0, 0.0)),
    ],
)
def test_nothing_is_said_below_two_units_or_without_variance(control, arm):
    assert compare(control, arm) is None


def test_one_arm_without_variance_is_compared_by_the_others():
    found = compare(Moments(10, 0.0, 0.0), Moments(5, 0.8, 0.2))
    assert found.degrees == pytest.approx(4)
    assert found.p_value == pytest.approx(2 * scipy_stats.t.sf(4, 4), rel=1e-12)


def test_a_difference_beyond_all_numbers_stays_a_number():
    found = compare(Moments(10**6, 0.0, 1.0), Moments(10**6, 100.0, 1.0))
    assert found.p_value == 0
    assert 37 < found.z < 38
