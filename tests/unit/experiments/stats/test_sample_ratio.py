"""The split is held to what was asked for, at a look and at any moment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, dirichlet, multinomial

from app.errors import InvalidInput
from app.experiments.stats.sample_ratio import chi_square, sample_ratio, sequential_multinomial

pytestmark = pytest.mark.unit


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 100)), min_size=2, max_size=10))
def test_chi_square_is_scipys(arms):
    counts, weights = zip(*arms, strict=True)
    expected = np.array(weights) * sum(counts) / sum(weights)
    found = chi_square(counts, weights)
    if expected.min() < 5:
        assert found is None
    else:
        assert found == pytest.approx(chisquare(counts, expected).pvalue, rel=1e-9, abs=1e-300)


def test_the_sequential_p_value_is_one_over_the_bayes_factor():
    """An independent road: the mixture's likelihood, averaged over draws of the shares."""
    counts, shares = [30, 18], np.array([0.5, 0.5])
    drawn = dirichlet(100 * shares, seed=3).rvs(200_000)
    mixture = multinomial(48, drawn).pmf(counts).mean()
    assert sequential_multinomial([130, 70], [1, 1]) < 1
    assert min(multinomial(48, shares).pmf(counts) / mixture, 1) == pytest.approx(sequential_multinomial(counts, [1, 1]), rel=5e-3)


@given(st.integers(0, 10**7))
def test_a_perfect_split_is_never_suspicious(units):
    assert sequential_multinomial([units, units], [1, 1]) == 1
    assert sequential_multinomial([9 * units, units], [9, 1]) == 1


@given(st.lists(st.integers(0, 3000), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_the_order_of_arms_does_not_matter(counts, order):
    weights = [2, 3, 5]
    mixed = ([counts[place] for place in order], [weights[place] for place in order])
    assert sequential_multinomial(*mixed) == pytest.approx(sequential_multinomial(counts, weights), rel=1e-9)


def test_watched_after_every_unit_a_right_split_alarms_at_most_once_in_a_thousand():
    """At ALARM itself alarms are too rare to count; Ville's inequality holds at any level, so it is tried at 5 %."""
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(400):
        ones = np.cumsum(rng.random(1000) < 0.1)
        moments = [*range(20, 200, 10), *range(200, 1001, 50)]
        alarms += any(sequential_multinomial([int(n - ones[n - 1]), int(ones[n - 1])], [9, 1]) <= 0.05 for n in moments)
    assert alarms / 400 <= 0.05


def test_a_broken_split_is_found():
    assert sequential_multinomial([8850 * 2, 1150 * 2], [9, 1]) < 0.001
    assert not sample_ratio([8850 * 2, 1150 * 2], None, [9, 1]).ok


def test_before_a_look_the_sequential_check_speaks_alone():
    found = sample_ratio([9000, 1125], None, [9, 1])  # the fixed check would already alarm
    assert chi_square([9000, 1125], [9, 1]) < 0.001
    assert found.ok
    assert found.fixed_p_value is None
    assert found.p_value == found.sequential_p_value


def test_at_a_look_the_smaller_of_both_counts():
    found = sample_ratio([9000, 1125], [9000, 1125], [9, 1])
    assert not found.ok
    assert found.p_value == found.fixed_p_value == chi_square([9000, 1125], [9, 1])


def test_without_units_nothing_is_said():
    found = sample_ratio([0, 0], None, [1, 1])
    assert (found.p_value, found.ok) == (None, True)


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InvalidInput):
        chi_square([10, 10], weights)
