"""Units for an effect and back: the textbook's inflation by looks, several arms, proportions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.experiments.stats.power import Design, detectable_effect, needed_drift, power_of, units_needed
from app.experiments.types import MetricKind

pytestmark = pytest.mark.unit

PROPORTION = MetricKind.PROPORTION

# Jennison and Turnbull (2000), table 2.4: sample size against one look, alpha 0.05.
INFLATION = {
    0.8: {2: 1.008, 3: 1.017, 4: 1.024, 5: 1.028, 10: 1.040, 20: 1.047},
    0.9: {2: 1.007, 3: 1.016, 4: 1.022, 5: 1.026, 10: 1.037, 20: 1.045},
}


@pytest.mark.parametrize(("power", "looks"), [(power, looks) for power, table in INFLATION.items() for looks in table])
def test_looks_cost_what_the_textbook_says(power, looks):
    assert round((needed_drift(0.05, power, looks) / needed_drift(0.05, power, 1)) ** 2, 3) == INFLATION[power][looks]


def test_a_proportion_takes_its_variance_from_both_arms():
    found = units_needed(Design((1, 1), mean=0.10, kind=PROPORTION), effect=0.01)
    assert found.units == pytest.approx(2 * 7.8488797 * (0.1 * 0.9 + 0.11 * 0.89) / 0.01**2, abs=2)
    assert found.per_arm == (14749, 14749)


def test_an_effect_may_be_relative():
    design = Design((1, 1), mean=0.10, kind=PROPORTION)
    assert units_needed(design, relative=0.1) == units_needed(design, effect=0.1 * 0.10)
    assert units_needed(Design((1, 1), mean=50.0, variance=100.0), relative=-0.02) == units_needed(
        Design((1, 1), mean=50.0, variance=100.0), effect=1.0
    )


DESIGNS = st.builds(
    Design,
    weights=st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    mean=st.floats(0.05, 0.5),
    variance=st.floats(0.1, 10),
    kind=st.sampled_from([MetricKind.MEAN, PROPORTION]),
    power=st.sampled_from([0.8, 0.9]),
    looks=st.sampled_from([1, 5]),
)


@given(DESIGNS, st.floats(0.01, 0.3))
def test_the_power_of_the_units_needed_is_the_power_asked_for(design, effect):
    units = units_needed(design, effect=effect).units
    assert design.power <= power_of(design, units, effect) + 1e-9
    if units > 500:
        assert power_of(design, units - 2, effect) < design.power


@given(DESIGNS, st.integers(5_000, 10**7))
def test_the_effect_that_so_many_units_show_needs_so_many_units(design, units):
    effect = detectable_effect(design, units)
    assert units_needed(design, effect=effect * (1 + 1e-9)).units == pytest.approx(units, abs=1)


def test_more_arms_and_uneven_ones_need_more():
    needed = [units_needed(Design(weights, mean=0.0, variance=1.0), effect=0.1).units for weights in [(1, 1), (1, 1, 1), (9, 1)]]
    assert needed == [3140, 5704, 8721]


def test_units_that_show_nothing_are_named():
    with pytest.raises(InvalidInput, match="show no increase"):
        detectable_effect(Design((1, 1), mean=0.5, kind=PROPORTION), 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": (1,)},
        {"weights": (1, 0)},
        {"variance": 0.0},
        {"alpha": 0.0},
        {"power": 1.0},
        {"power": 0.04},
        {"kind": PROPORTION, "mean": 1.0},
    ],
)
def test_designs_that_are_none_are_refused(wrong):
    with pytest.raises(InvalidInput):
        Design(**({"weights": (1, 1), "mean": 0.5, "variance": 1.0} | wrong))


@pytest.mark.parametrize("effects", [{}, {"effect": 0.1, "relative": 0.1}, {"effect": 0.0}, {"relative": 0.0}, {"effect": 0.6}])
def test_effects_that_are_none_are_refused(effects):
    with pytest.raises(InvalidInput):
        units_needed(Design((1, 1), mean=0.5, kind=PROPORTION), **effects)
