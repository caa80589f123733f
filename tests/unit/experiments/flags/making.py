"""Experiments, units and measures for the flags' tests."""

import hashlib
from collections import Counter

from scipy import stats

from app.experiments.flags.building import build_flags
from app.experiments.types import BUCKETS, RunningExperiment, TargetingRule, Variant

UNITS = tuple(hashlib.sha256(f"unit {number}".encode()).hexdigest() for number in range(20_000))
IN_NORWAY = {"country": "NO"}
NORDIC = TargetingRule("country", "IN", ("NO", "SE"))


def arm(name, version, weight=1, *, control=False, shadow=False):
    return Variant(name, version, None, weight, control, shadow)


CONTROL, TREATMENT = arm("control", 1, control=True), arm("treatment", 2)


def experiment(
    key="ranking", *, model="churn", rollout=100.0, variants=(CONTROL, TREATMENT), layer=None, slots=None, targeting=(), overrides=()
):
    if slots is None:
        slots = ((0, round(rollout * BUCKETS / 100)),)
    return RunningExperiment(key, model, rollout, tuple(variants), layer, tuple(slots), tuple(targeting), tuple(overrides))


def flags(*running, holdout=0.0, revision=7, tenant="clinic", unleash=None):
    return build_flags(tenant, running, holdout, revision, unleash, False)


def decisions(built, units=UNITS, attributes=None, model="churn"):
    return {unit: built.decide(model, unit, attributes) for unit in units}


def arms_of(built, units=UNITS, attributes=None, model="churn"):
    """unit -> variant of those that are in an arm."""
    return {unit: decision.variant for unit, decision in decisions(built, units, attributes, model).items() if decision.variant}


def fits(counts, shares, least_p=0.001):
    """Whether counts of fixed units are what was asked for, by the chi-square test."""
    total = sum(counts)
    expected = [share * total for share in shares]
    return stats.chisquare(counts, expected).pvalue > least_p


def tally(found):
    return Counter((decision.reason.value, decision.variant) for decision in found.values())
