"""O'Brien-Fleming boundaries: the textbook's constants, and p-values that agree with them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from app.errors import InvalidInput
from app.experiments.stats.earned import looks_due
from app.experiments.stats.looks import boundary, crossing_probability, final_boundary, planned_p_value

pytestmark = pytest.mark.unit

# Jennison and Turnbull, Group Sequential Methods (2000), table 2.3.
TEXTBOOK = {
    0.05: {1: 1.960, 2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040, 6: 2.053, 7: 2.063, 8: 2.072, 9: 2.080, 10: 2.087, 15: 2.110, 20: 2.126},
    0.01: {1: 2.576, 2: 2.580, 3: 2.595, 4: 2.609, 5: 2.621, 10: 2.660},
}


@pytest.mark.parametrize(("alpha", "looks"), [(alpha, looks) for alpha, table in TEXTBOOK.items() for looks in table])
def test_constants_are_the_textbooks(alpha, looks):
    assert round(final_boundary(looks, alpha), 3) == TEXTBOOK[alpha][looks]


@pytest.mark.parametrize("looks", [2, 3, 4])
def test_crossing_is_what_the_multivariate_normal_says(looks):
    """An independent road: the rectangle probability of the joint distribution of z_1 .. z_K."""
    times = np.arange(1, looks + 1) / looks
    covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    edges = 2.1 / np.sqrt(times)
    inside = multivariate_normal(np.zeros(looks), covariance, abseps=1e-9, releps=1e-9, maxpts=400_000, seed=1).cdf(
        edges, lower_limit=-edges
    )
    assert crossing_probability(2.1, looks) == pytest.approx(1 - inside, abs=1e-6)


def test_crossing_with_an_effect_is_what_simulated_walks_do():
    rng = np.random.default_rng(20261122)
    walks = np.cumsum(rng.normal(2.9 / math.sqrt(5), 1, (400_000, 5)), axis=1)
    share = np.mean(np.any(np.abs(walks) >= 2.04 * math.sqrt(5), axis=1))
    assert crossing_probability(2.04, 5, drift=2.9) == pytest.approx(share, abs=0.003)


@pytest.mark.parametrize("looks", [1, 2, 10, 50])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.05 / 9, 0.001])
def test_the_p_value_of_a_boundary_is_its_alpha_at_every_look(looks, alpha):
    found = [planned_p_value(boundary(look, looks, alpha), look, looks) for look in range(1, looks + 1)]
    assert found == pytest.approx([alpha] * looks, rel=1e-9)


@pytest.mark.parametrize("looks", [2, 7, 50])
def test_the_p_values_table_is_the_exact_chance(looks):
    for constant in np.linspace(0, 7.9, 40):
        assert planned_p_value(constant, looks, looks) == pytest.approx(crossing_probability(constant, looks), rel=1e-9)


def test_far_out_a_p_value_is_an_upper_bound_and_never_negative():
    exact = crossing_probability(9.0, 10)
    assert exact <= planned_p_value(9.0, 10, 10) < 1.5 * exact
    assert planned_p_value(60.0, 1, 10) >= 0


@given(st.floats(-8, 8))
def test_one_look_is_the_plain_test(z):
    assert planned_p_value(z, 1, 1) == pytest.approx(2 * norm.sf(abs(z)), rel=1e-12)
    assert boundary(1, 1, 0.05) == pytest.approx(1.959963984540054, rel=1e-15)


@given(st.floats(0, 9), st.floats(0, 9), st.integers(1, 10))
def test_stronger_evidence_has_a_smaller_p_value_and_sides_are_alike(one, other, look):
    low, high = sorted((one, other))
    assert planned_p_value(high, look, 10) <= planned_p_value(low, look, 10) * (1 + 1e-9)
    assert planned_p_value(-one, look, 10) == planned_p_value(one, look, 10)


def test_boundaries_fall_towards_the_end():
    found = [boundary(look, 10) for look in range(1, 11)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(found[-1] * math.sqrt(10))


@pytest.mark.parametrize(("units", "due"), [(0, 0), (99, 0), (100, 1), (999, 9), (1000, 10), (5000, 10)])
def test_looks_fall_at_their_share_of_the_planned_units(units, due):
    assert looks_due(units, planned_units=1000, planned_looks=10) == due


def test_looks_that_were_not_planned_are_refused():
    for look in (0, 11):
        with pytest.raises(InvalidInput):
            boundary(look, 10)
        with pytest.raises(InvalidInput):
            planned_p_value(2.0, look, 10)
    with pytest.raises(InvalidInput):
        final_boundary(0)
    with pytest.raises(InvalidInput):
        final_boundary(2, 0.0)
