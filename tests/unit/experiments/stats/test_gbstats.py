"""Figures of gbstats 0.8.0, frozen with their inputs: it pins libraries too old to live beside ours, so it was run apart."""

import pytest

from app.experiments.stats.chance import beta_chance, normal_chance
from app.experiments.stats.cuped import adjust
from app.experiments.stats.differences import compare, difference_interval
from app.experiments.stats.sample_ratio import chi_square
from app.experiments.stats.sequences import confidence_sequence, sequential_p_value
from app.experiments.stats.types import ArmSums
from app.experiments.types import MetricAggregation

pytestmark = pytest.mark.unit

USUAL = 1.959963984540054


def summed(n, y, yy, x=None, xx=None, xy=None):
    return ArmSums(n, n, y, yy) if x is None else ArmSums(n, n, y, yy, n, x, xx, n, y, yy, xy, x, xx)


# Sample means (SampleMeanStatistic; a proportion's squares are its sum) and regression-adjusted ones. gbstats takes theta over all units
# at once and ours is the slope within arms; where both arms have the same mean of x, as here, the two are one.
ARMS = {
    "conversion": (summed(10000, 1000, 1000), summed(10000, 1085, 1085)),
    "revenue": (summed(1200, 11941, 130020), summed(1100, 11317, 126700)),
    "tiny": (summed(5, 17, 63), summed(7, 33, 167)),
    "adjusted": (summed(1200, 11941, 130020, 12000, 130500, 128600), summed(1100, 11317, 126700, 11000, 119900, 121500)),
}

# TwoSidedTTest, difference_type="absolute": difference, low, high, p-value; EffectBayesianABTest with a flat prior: chance to win.
TESTS = {
    "conversion": (0.008499999999999994, 2.966554150169408e-05, 0.01697033445849829, 0.049203080623462236, 0.9754053706817885),
    "revenue": (0.33734848484848534, 0.08716504929210467, 0.587531920404866, 0.008243878425759688, 0.9959061222734757),
    "tiny": (1.3142857142857145, -0.318286266350732, 2.946857694922161, 0.10274879456383745, 0.964205999583377),
    "adjusted": (0.33734848484848534, 0.20017932619609277, 0.4745176435008779, 1.5098921304357305e-06, 0.999999292407402),
}

# SequentialTwoSidedTTest, difference_type="absolute": alpha, tuned at, low, high, p-value.
SEQUENCES = [
    ("conversion", 0.05, 5000, -0.005013563344561456, 0.022013563344561442, 0.877221819919353),
    ("conversion", 0.01, 5000, -0.007287378338573226, 0.024287378338573213, 1.0),
    ("conversion", 0.05, 10000, -0.004729918840220157, 0.021729918840220144, 0.6656757473410921),
    ("conversion", 0.01, 10000, -0.0070381066959669305, 0.02403810669596692, 0.7682540820602353),
    ("revenue", 0.05, 5000, -0.05774982592202749, 0.7324467956189982, 0.13865740274951907),
    ("revenue", 0.01, 10000, -0.14789145641535284, 0.8225884261123235, 0.15089782818907957),
    ("tiny", 0.05, 5000, -11.766560947834355, 14.395132376405785, 0.979313528974828),
    ("adjusted", 0.05, 5000, 0.12072781010597666, 0.553969159590994, 0.00023387313097002102),
    ("adjusted", 0.01, 5000, 0.08384323764016993, 0.5908537320568008, 0.000141269848280392),
]


def difference_of(name):
    return compare(*adjust(ARMS[name], MetricAggregation.SUM).arms)


@pytest.mark.parametrize("name", TESTS)
def test_difference_interval_p_value_and_chance(name):
    value, low, high, p_value, chance = TESTS[name]
    found = difference_of(name)
    interval = difference_interval(found, USUAL)
    assert (found.value, interval.low, interval.high) == pytest.approx((value, low, high), rel=1e-10)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert normal_chance(found.value, found.variance) == pytest.approx(chance, rel=1e-12)


@pytest.mark.parametrize(("name", "alpha", "tuned_at", "low", "high", "p_value"), SEQUENCES)
def test_confidence_sequence(name, alpha, tuned_at, low, high, p_value):
    found = difference_of(name)
    interval = confidence_sequence(found, alpha, tuned_at)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-11)
    assert sequential_p_value(found, alpha, tuned_at) == pytest.approx(p_value, rel=1e-10)


def test_theta():
    assert adjust(ARMS["adjusted"], MetricAggregation.SUM).theta == pytest.approx(0.8588235294117649, rel=1e-14)


@pytest.mark.parametrize(
    ("counts", "weights", "p_value"),
    [
        ([9000, 1100], [0.9, 0.1], 0.002834749080259389),
        ([1000, 1100, 950], [1, 1, 1], 0.0032221549052224925),
        ([50000, 50800], [1, 1], 0.011743382301172606),
    ],
)
def test_sample_ratio(counts, weights, p_value):
    assert chi_square(counts, weights) == pytest.approx(p_value, rel=1e-11)


def test_chance_of_proportions_is_close_to_its_normal_one():
    assert beta_chance(1000, 10000, 1085, 10000) == pytest.approx(0.9754110402008808, abs=5e-5)
