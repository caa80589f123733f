"""The same questions to statsmodels and tea-tasting, on the same rows."""

import numpy as np
import pytest
import statsmodels.api as sm
import tea_tasting as tt
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW
from tea_tasting.aggr import Aggregates

from app.experiments.stats.cuped import adjust
from app.experiments.stats.differences import compare, difference_interval, lift
from app.experiments.stats.moments import arm_moments
from app.experiments.stats.paired import mcnemar, paired_difference, share
from app.experiments.stats.power import Design, detectable_effect, power_of, units_needed
from app.experiments.stats.sample_ratio import chi_square
from app.experiments.types import MetricAggregation
from tests.unit.experiments.stats.raw import sums_of

pytestmark = pytest.mark.unit

USUAL = 1.959963984540054
SUM = MetricAggregation.SUM


def rows(kind, seed=5, control=1500, arm=1100):
    rng = np.random.default_rng(seed)
    if kind == "proportion":
        return (rng.random(control) < 0.3).astype(float), (rng.random(arm) < 0.34).astype(float)
    if kind == "skewed":
        return rng.lognormal(0, 1, control), rng.lognormal(0.05, 1, arm)
    return rng.normal(10, 3, control), rng.normal(10.3, 4, arm)


def aggregates(y, x=None):
    if x is None:
        return Aggregates(len(y), {"y": float(y.mean())}, {"y": float(y.var(ddof=1))})
    return Aggregates(
        len(y),
        {"y": float(y.mean()), "x": float(x.mean())},
        {"y": float(y.var(ddof=1)), "x": float(x.var(ddof=1))},
        {("x", "y"): float(np.cov(x, y)[0, 1])},
    )


@pytest.mark.parametrize("kind", ["normal", "skewed", "proportion"])
def test_difference_interval_and_p_value(kind):
    control, arm = rows(kind)
    found = compare(*(arm_moments(sums_of(y), SUM) for y in (control, arm)))
    interval = difference_interval(found, USUAL)
    theirs = CompareMeans(DescrStatsW(arm), DescrStatsW(control))
    assert (interval.low, interval.high) == pytest.approx(theirs.tconfint_diff(0.05, usevar="unequal"), rel=1e-9)
    assert found.p_value == pytest.approx(theirs.ttest_ind(usevar="unequal")[1], rel=1e-9)
    tea = tt.Mean("y").analyze_aggregates(aggregates(control), aggregates(arm))
    ours = (found.value, interval.low, interval.high, found.p_value)
    assert ours == pytest.approx((tea.effect_size, tea.effect_size_ci_lower, tea.effect_size_ci_upper, tea.pvalue), rel=1e-9)


@pytest.mark.parametrize("kind", ["normal", "skewed", "proportion"])
def test_lift_is_tea_tastings_and_its_interval_close_to_theirs_on_the_logarithm(kind):
    control, arm = rows(kind)
    found = lift(compare(*(arm_moments(sums_of(y), SUM) for y in (control, arm))), USUAL)
    tea = tt.Mean("y").analyze_aggregates(aggregates(control), aggregates(arm))
    assert found.value == pytest.approx(tea.rel_effect_size, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((tea.rel_effect_size_ci_lower, tea.rel_effect_size_ci_upper), abs=0.004)


def test_cuped_is_the_analysis_of_covariance():
    (control, arm), rng = rows("normal"), np.random.default_rng(8)
    x = [y + rng.normal(5, 2, len(y)) for y in (control, arm)]
    found = adjust([sums_of(y, z) for y, z in zip((control, arm), x, strict=True)], SUM)
    treated = np.repeat([0.0, 1.0], [len(control), len(arm)])
    theirs = sm.OLS(np.concatenate([control, arm]), sm.add_constant(np.column_stack([treated, np.concatenate(x)]))).fit()
    assert found.used
    assert found.theta == pytest.approx(theirs.params[2], rel=1e-9)
    assert found.arms[1].mean - found.arms[0].mean == pytest.approx(theirs.params[1], rel=1e-9)


def test_cuped_with_level_covariates_is_tea_tastings_to_the_last_digits():
    """They take theta over all units at once and we within arms; with the same mean of x in both arms these are one."""
    (control, arm), rng = rows("normal"), np.random.default_rng(8)
    x = [y + rng.normal(5, 2, len(y)) for y in (control, arm)]
    x = [z - z.mean() for z in x]
    compared(control, arm, x, rel=1e-8)


def test_cuped_is_tea_tastings_but_for_theta():
    (control, arm), rng = rows("normal"), np.random.default_rng(8)
    compared(control, arm, [y + rng.normal(5, 2, len(y)) for y in (control, arm)], rel=3e-3)


def compared(control, arm, x, rel):
    ours = compare(*adjust([sums_of(y, z) for y, z in zip((control, arm), x, strict=True)], SUM).arms)
    plain = compare(*(arm_moments(sums_of(y), SUM) for y in (control, arm)))
    tea = tt.Mean("y", covariate="x").analyze_aggregates(aggregates(control, x[0]), aggregates(arm, x[1]))
    interval = difference_interval(ours, USUAL)
    assert ours.variance < 0.5 * plain.variance
    assert (ours.value, interval.low, interval.high) == pytest.approx(
        (tea.effect_size, tea.effect_size_ci_lower, tea.effect_size_ci_upper), rel=rel
    )


def test_sample_ratio_is_tea_tastings():
    tea = tt.SampleRatio(ratio={0: 9, 1: 1}, method="norm", correction=False).analyze(
        {0: Aggregates(9000), 1: Aggregates(1100)}, control=0, treatment=1, variant="variant"
    )
    assert chi_square([9000, 1100], [9, 1]) == pytest.approx(tea.pvalue, rel=1e-9)


@pytest.mark.parametrize(("effect", "ratio"), [(0.1, 1.0), (0.05, 1.0), (0.2, 0.25)])
def test_units_and_power_are_statsmodels(effect, ratio):
    design = Design((1.0, ratio), mean=5.0, variance=4.0)
    sd = 2.0
    theirs = NormalIndPower().solve_power(effect / sd, alpha=0.05, power=0.8, ratio=ratio, alternative="two-sided")
    found = units_needed(design, effect=effect)
    assert found.units == pytest.approx(theirs * (1 + ratio), abs=1)
    assert found.per_arm[0] == pytest.approx(theirs, abs=1)
    n = found.units / (1 + ratio)
    assert power_of(design, found.units, effect) == pytest.approx(NormalIndPower().power(effect / sd, n, 0.05, ratio), rel=1e-9)


def test_detectable_effect_is_statsmodels():
    theirs = NormalIndPower().solve_power(nobs1=5000, alpha=0.05, power=0.9, alternative="two-sided") * 2.0
    assert detectable_effect(Design((1, 1), mean=5.0, variance=4.0, power=0.9), 10_000) == pytest.approx(
        theirs, rel=1e-6
    )  # their solver stops there


def test_units_are_tea_tastings():
    tea = tt.Mean("y", use_t=False, effect_size=0.1, alpha=0.05, power=0.8).solve_power_from_aggregates(
        Aggregates(100, {"y": 5.0}, {"y": 4.0}), "n_obs"
    )
    assert units_needed(Design((1, 1), mean=5.0, variance=4.0), effect=0.1).units == pytest.approx(tea[0].n_obs, abs=1)


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (3, 10), (10, 10), (9_700, 10_000)])
def test_agreement_is_wilsons(hits, of):
    found = share(hits, of)
    assert (found.low, found.high) == pytest.approx(proportion_confint(hits, of, method="wilson"), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("pairs", [(5, 15), (0, 4), (12, 12), (180, 240), (4000, 4200)])
def test_mcnemar_is_statsmodels_exact_one(pairs):
    theirs = statsmodels_mcnemar([[100, pairs[0]], [pairs[1], 100]], exact=True)
    assert mcnemar(*pairs).p_value == pytest.approx(theirs.pvalue, rel=1e-9)


def test_paired_difference_is_statsmodels():
    d = np.random.default_rng(4).normal(0.1, 1.0, 300)
    sums = sums_of(d)
    found, theirs = paired_difference(300, sums.total, sums.squares), DescrStatsW(d)
    assert (found.interval.low, found.interval.high) == pytest.approx(theirs.tconfint_mean(), rel=1e-9)
    assert found.p_value == pytest.approx(theirs.ttest_mean(0.0)[1], rel=1e-9)
