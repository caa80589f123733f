"""Roots are found within what was asked for, against SciPy's as an oracle."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from app.experiments.stats.roots import root

pytestmark = pytest.mark.unit

FUNCTIONS = [
    (lambda x: x**3 - 2, 0.0, 5.0),
    (lambda x: math.exp(-x) - 1e-9, 0.0, 60.0),
    (lambda x: math.atan(x - 40), -60.0, 60.0),
    (lambda x: math.erfc(x) - 0.05, 0.0, 60.0),
    (lambda x: (x - 1) ** 3 + 1e-3, -3.0, 60.0),
]


@pytest.mark.parametrize(("function", "low", "high"), FUNCTIONS)
def test_a_root_is_where_scipy_finds_it(function, low, high):
    ours, theirs = root(function, low, high, within=1e-12), brentq(function, low, high, xtol=1e-12)
    assert abs(ours - theirs) <= 3e-12 or function(ours) == 0.0 or abs(function(ours)) <= abs(function(theirs))


@given(st.floats(-50, 50), st.floats(0.01, 100), st.floats(0.1, 8))
def test_a_crossing_lies_within_the_bracket_and_as_near_as_asked(place, width, steepness):
    low, high = place - width / 3, place + width
    found = root(lambda x: math.tanh(steepness * (x - place)), low, high, within=1e-9)
    assert low <= found <= high
    assert abs(found - place) <= 1e-9 + 1e-12 * abs(place)


@given(st.floats(-10, 10), st.floats(0.1, 10))
def test_a_root_takes_few_more_questions_than_halving(place, width):
    asked = []

    def step(x):
        asked.append(x)
        return -1.0 if x < place else 1.0  # nothing that a parabola could know

    root(step, place - width, place + 2 * width, within=1e-12)
    assert len(asked) <= 2 + 3 * math.ceil(math.log2(3 * width / 1e-12))


@pytest.mark.parametrize(("low", "high", "there"), [(0.0, 4.0, 0.0), (-4.0, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_an_end_that_is_the_root_is_the_answer(low, high, there):
    assert root(lambda x: x, low, high, within=1e-12) == there


def test_ends_of_one_sign_are_refused():
    with pytest.raises(ValueError, match="the same sign at both ends"):
        root(lambda x: x * x + 1, -1.0, 1.0, within=1e-12)
