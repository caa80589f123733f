"""Champion and shadow on identical inputs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.experiments.stats.paired import mcnemar, paired_difference, share

pytestmark = pytest.mark.unit


@given(st.integers(0, 300), st.integers(0, 300))
def test_swapping_champion_and_shadow_changes_no_p_value(one, other):
    first, second = mcnemar(one, other), mcnemar(other, one)
    assert (first.p_value, first.mid_p) == (second.p_value, second.mid_p)
    assert one + other == 0 or 0 < first.mid_p <= first.p_value <= 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_counts_coins(one, other):
    pairs, fewer = one + other, min(one, other)
    if pairs == 0:
        assert mcnemar(0, 0).p_value is None
        return
    below = sum(math.comb(pairs, k) for k in range(fewer))
    here = math.comb(pairs, fewer)
    assert mcnemar(one, other).p_value == pytest.approx(min(1, 2 * (below + here) / 2**pairs), rel=1e-10)
    assert mcnemar(one, other).mid_p == pytest.approx(min(1, (2 * below + here) / 2**pairs), rel=1e-10)


def test_a_million_pairs_are_still_exact():
    z = (501_500 - 498_500 - 1) / 1000
    assert mcnemar(498_500, 501_500).p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_identical_inputs_show_what_a_split_would_not():
    """4,000 labelled inputs, accuracies 0.80 and 0.81, one answer in ten of another origin."""
    rng = np.random.default_rng(7)
    found = [
        mcnemar(*np.bincount(rng.choice(3, 4000, p=[0.015, 0.025, 0.96]), minlength=3)[:2].tolist()).p_value < 0.05 for _ in range(2000)
    ]
    assert np.mean(found) > 0.85


def test_without_an_effect_mcnemar_errs_at_most_as_often_as_it_says():
    rng = np.random.default_rng(9)
    errors = [mcnemar(int(k), 80 - int(k)).p_value < 0.05 for k in rng.binomial(80, 0.5, 4000)]
    assert 0.02 < np.mean(errors) <= 0.055


def test_agreement_of_nothing_is_nothing_and_edges_stay_inside():
    assert share(0, 0) is None
    assert (share(0, 9).low, share(9, 9).high) == (0.0, 1.0)
    assert share(95, 100).value == 0.95
    with pytest.raises(InvalidInput):
        share(3, 2)
    with pytest.raises(InvalidInput):
        mcnemar(-1, 2)


def test_differences_below_two_pairs_or_without_variance_have_a_mean_alone():
    assert paired_difference(0, 0, 0) is None
    one, level = paired_difference(1, 3, 9), paired_difference(3, 6, 12)
    assert (one.mean, one.standard_error, one.interval, one.p_value) == (3.0, None, None, None)
    assert (level.mean, level.standard_error, level.interval, level.p_value) == (2.0, 0.0, None, None)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=20))
def test_differences_mirror(d):
    one = paired_difference(len(d), sum(d), sum(x * x for x in d))
    other = paired_difference(len(d), -sum(d), sum(x * x for x in d))
    assert one.mean == -other.mean
    assert one.p_value == other.p_value
    if one.interval is not None:
        assert one.interval.low == pytest.approx(-other.interval.high)
