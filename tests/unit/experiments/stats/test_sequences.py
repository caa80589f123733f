"""Confidence sequences: when they begin, how the two sides and the p-value hang together, what they are tuned for."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from app.experiments.stats.differences import compare
from app.experiments.stats.moments import Moments
from app.experiments.stats.sequences import (
    GUARDRAIL_ALPHA,
    confidence_sequence,
    has_begun,
    is_harmful,
    lower_bound,
    sequential_p_value,
    upper_bound,
)  # fmt: skip
from app.experiments.types import MetricDirection, MetricKind

pytestmark = pytest.mark.unit

MOMENTS = st.builds(Moments, st.integers(50, 10**6), st.floats(-10, 10), st.floats(0.01, 100))
ALPHA = st.sampled_from([0.05, 0.01, 0.005])
TUNED_AT = st.sampled_from([500.0, 5000.0, 1e6])


def share(n, hits):
    return Moments(n, hits / n, hits / n * (1 - hits / n) * n / (n - 1))


@given(MOMENTS, MOMENTS, ALPHA, TUNED_AT)
def test_p_value_and_interval_agree(control, arm, alpha, tuned_at):
    found = compare(control, arm)
    interval, p_value = confidence_sequence(found, alpha, tuned_at), sequential_p_value(found, alpha, tuned_at)
    assume(not math.isclose(p_value, alpha, rel_tol=1e-9))
    assert (p_value < alpha) == (not interval.low <= 0 <= interval.high)


@given(MOMENTS, MOMENTS, ALPHA, TUNED_AT)
def test_swapping_the_arms_mirrors(control, arm, alpha, tuned_at):
    one, other = compare(control, arm), compare(arm, control)
    first, second = confidence_sequence(one, alpha, tuned_at), confidence_sequence(other, alpha, tuned_at)
    assert (first.low, first.high) == pytest.approx((-second.high, -second.low))
    assert lower_bound(one, alpha, tuned_at) == pytest.approx(-upper_bound(other, alpha, tuned_at), rel=1e-9, abs=1e-12)
    assert is_harmful(one, MetricDirection.INCREASE) == is_harmful(other, MetricDirection.DECREASE)


@given(MOMENTS, MOMENTS, st.sampled_from([0.05, 0.01]), TUNED_AT)
def test_the_one_sided_bound_lies_where_its_martingale_has_reached_one_over_alpha(control, arm, alpha, tuned_at):
    """An independent road: the half-normal mixture 2/√v·exp(u²/2)·Φ(u) itself, at the bound, is at least 1/alpha, and not by much."""
    found = compare(control, arm)
    units = control.n + arm.n
    spent = -2 * math.log(2 * alpha)
    grown = units * (spent + math.log(spent + 1)) / tuned_at + 1
    z = (found.value - lower_bound(found, alpha, tuned_at)) / found.standard_error
    u = z * math.sqrt((grown - 1) / grown)
    log_mixture = math.log(2) - math.log(grown) / 2 + u * u / 2 + log_ndtr(u)
    assert math.log(1 / alpha) <= log_mixture + 1e-9
    assert log_mixture <= math.log(1 / alpha) + math.log1p(2 * alpha)


@given(MOMENTS, MOMENTS, TUNED_AT)
def test_a_one_sided_bound_is_tighter_than_two_sides_of_the_same_alpha(control, arm, tuned_at):
    found = compare(control, arm)
    assert lower_bound(found, 0.01, tuned_at) > confidence_sequence(found, 0.01, tuned_at).low
    assert lower_bound(found, 0.01, tuned_at) < found.value


def test_at_its_tuning_no_other_tuning_is_narrower_and_elsewhere_it_costs_what_the_module_says():
    def width(units, tuned_at):
        found = compare(Moments(units // 2, 0.0, 1.0), Moments(units // 2, 0.0, 1.0))
        return confidence_sequence(found, 0.05, tuned_at).high

    assert width(5000, 5000) <= min(width(5000, tuned_at) for tuned_at in np.geomspace(500, 50_000, 21)) * (1 + 1e-4)
    assert round(width(50_000, 5000) / width(50_000, 50_000), 2) == 1.07
    assert round(width(500, 5000) / width(500, 500), 2) == 1.27


@pytest.mark.parametrize(
    ("control", "arm", "begun"),
    [
        (None, Moments(100, 1.0, 1.0), False),
        (Moments(49, 1.0, 1.0), Moments(500, 1.0, 1.0), False),
        (Moments(50, 1.0, 1.0), Moments(50, 1.0, 1.0), True),
    ],
)
def test_means_begin_at_fifty_units_an_arm(control, arm, begun):
    assert has_begun(control, arm, MetricKind.MEAN) is begun


@pytest.mark.parametrize(
    ("hits", "begun"),
    [((5, 5), True), ((0, 10), True), ((5, 4), False), ((100, 100), False), ((95, 95), True), ((100, 91), False), ((100, 90), True)],
)
def test_proportions_wait_for_ten_units_of_either_answer(hits, begun):
    assert has_begun(share(100, hits[0]), share(100, hits[1]), MetricKind.PROPORTION) is begun


@pytest.mark.parametrize(("direction", "harmed", "spared"), [(MetricDirection.DECREASE, 90, 3), (MetricDirection.INCREASE, 3, 90)])
def test_a_guardrail_sees_harm_in_its_direction_only(direction, harmed, spared):
    control = share(1000, 30)
    assert is_harmful(compare(control, share(1000, harmed)), direction, tuned_at=1000) is True
    assert is_harmful(compare(control, share(1000, spared)), direction, tuned_at=1000) is False
    assert GUARDRAIL_ALPHA == 0.01


def test_a_guardrail_sees_an_arm_that_breaks_what_control_never_does():
    control, arm = share(2000, 0), share(2000, 40)
    assert has_begun(control, arm, MetricKind.PROPORTION)
    assert is_harmful(compare(control, arm), MetricDirection.DECREASE)
