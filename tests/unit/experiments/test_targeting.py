"""Rules that the engine would read as nobody, without a word, are refused in words."""

from __future__ import annotations

import pytest

from app.experiments.targeting import OPERATORS, targeting_problems
from app.experiments.types import TargetingRule

pytestmark = pytest.mark.unit


def problems(attribute: str, operator: str, *values: str) -> list[str]:
    return targeting_problems([TargetingRule(attribute, operator, values)])


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        *((operator, ("NO", "")) for operator in ("IN", "NOT_IN", "STR_STARTS_WITH", "STR_ENDS_WITH", "STR_CONTAINS")),
        *((operator, ("-2.5",)) for operator in ("NUM_EQ", "NUM_GT", "NUM_GTE", "NUM_LT", "NUM_LTE")),
        *((operator, ("2.10.0-beta.1+b7",)) for operator in ("SEMVER_EQ", "SEMVER_GT", "SEMVER_LT")),
        *((operator, ("2026-03-01T12:00:00+01:00",)) for operator in ("DATE_AFTER", "DATE_BEFORE")),
    ],
)
def test_every_operator_takes_what_it_is_for(operator: str, values: tuple[str, ...]) -> None:
    assert operator in OPERATORS
    assert problems("country", operator, *values) == []


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (("country", "in", "NO"), "targeting rule 1: operator 'in' is none of IN,"),
        (("", "IN", "NO"), "attribute must be a name of 1 to 256 characters"),
        (("a\0", "IN", "NO"), "attribute must be a name of 1 to 256 characters"),
        (("tenantId", "IN", "bank"), "attribute 'tenantId' is set by the service"),
        (("userId", "IN", "u1"), "attribute 'userId' is set by the service"),
        (("country", "IN"), "IN takes 1 to 250 values, not 0."),
        (("country", "IN", *(str(n) for n in range(251))), "IN takes 1 to 250 values, not 251."),
        (("age", "NUM_GTE"), "NUM_GTE takes exactly one value, not 0."),
        (("age", "NUM_GTE", "18", "21"), "NUM_GTE takes exactly one value, not 2."),
        (("age", "NUM_GTE", "old"), "NUM_GTE takes a number like 2.5, not 'old'."),
        (("age", "NUM_GTE", "nan"), "NUM_GTE takes a number like 2.5, not 'nan'."),
        (("age", "NUM_GTE", "٣"), "NUM_GTE takes a number like 2.5"),
        (("app", "SEMVER_GT", "2.10"), "SEMVER_GT takes a semantic version like 2.10.0, not '2.10'."),
        (("app", "SEMVER_GT", "02.1.0"), "SEMVER_GT takes a semantic version"),
        (("born", "DATE_AFTER", "2026-03-01"), "DATE_AFTER takes a time like 2026-03-01T12:00:00Z"),
        (("born", "DATE_AFTER", "2026-13-01T12:00:00Z"), "DATE_AFTER takes a time"),
        (("country", "IN", "x" * 257), "a value has at most 256 characters and no NUL."),
        (("country", "IN", "a\0"), "a value has at most 256 characters and no NUL."),
    ],
)
def test_what_would_silently_be_nobody_is_named(rule: tuple[str, ...], why: str) -> None:
    attribute, operator, *values = rule
    (problem,) = problems(attribute, operator, *values)
    assert why in problem


def test_a_rule_is_named_by_its_place_and_there_are_at_most_twenty() -> None:
    good, bad = TargetingRule("country", "IN", ("NO",)), TargetingRule("age", "NUM_GT", ("x",))
    (problem,) = targeting_problems([good, bad])
    assert problem.startswith("targeting rule 2: ")
    assert targeting_problems([good] * 20) == []
    assert targeting_problems([good] * 21) == ["targeting has 21 rules; at most 20 are taken."]


@pytest.mark.parametrize(
    ("attribute", "operator", "value"),
    [
        ('coun"try', "IN", "NO"), ("coun\\try", "IN", "NO"), ("country", "IN", "NO\\"), ("country", "IN", "N\nO"),
        ("app", "SEMVER_GT", "1.2.3-01"), ("app", "SEMVER_GT", f"{2**64}.0.0"), ("born", "DATE_AFTER", "0001-01-01T00:00:00+05:00"),
    ],
)  # fmt: skip
def test_a_rule_that_the_evaluator_would_refuse_is_refused_before_it_can_keep_the_tenants_flags_back(attribute, operator, value):
    assert targeting_problems([TargetingRule(attribute, operator, (value,))])
