"""Chance to beat control, against closed forms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln

from app.experiments.stats.chance import beta_chance, normal_chance

pytestmark = pytest.mark.unit


def summed(control_events, control_units, arm_events, arm_units):
    """The finite sum for whole numbers: sum over i of B(a + i, b + b') / ((b' + i) B(1 + i, b') B(a, b))."""
    a, b = 1 + control_events, 1 + control_units - control_events
    c, d = 1 + arm_events, 1 + arm_units - arm_events
    return math.fsum(math.exp(betaln(a + i, b + d) - math.log(d + i) - betaln(1 + i, d) - betaln(a, b)) for i in range(c))


@pytest.mark.parametrize(
    "counts",
    [
        (0, 0, 0, 0),
        (0, 5, 5, 5),
        (3, 10, 4, 12),
        (1000, 10000, 1085, 10000),
        (0, 1000, 5, 1000),
        (2, 100_000, 9, 300),
        (50, 60, 4000, 5000),
    ],
)
def test_proportions_are_the_finite_sum(counts):
    control_events, control_units, arm_events, arm_units = counts
    assert beta_chance(*counts) == pytest.approx(summed(control_events, control_units, arm_events, arm_units), abs=1e-9)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_swapping_the_arms_leaves_the_rest_of_one(events, others, more, rest):
    one = beta_chance(events, events + others, more, more + rest)
    other = beta_chance(more, more + rest, events, events + others)
    assert one + other == pytest.approx(1, abs=1e-7)
    assert 0 <= one <= 1 + 1e-12


def test_ten_million_units_keep_their_digits():
    variance = (0.1 * 0.9 + 0.10005 * 0.89995) / 10**7
    assert beta_chance(1_000_000, 10**7, 1_000_500, 10**7) == pytest.approx(normal_chance(5e-5, variance), abs=1e-6)


@given(st.floats(-5, 5), st.floats(1e-6, 10))
def test_normal_chances_mirror(difference, variance):
    assert normal_chance(difference, variance) + normal_chance(-difference, variance) == pytest.approx(1)
    assert (normal_chance(difference, variance) > 0.5) == (difference > 0) or abs(difference) < 1e-6
