"""Rules that the engine would read as nobody, without a word, are refused in words."""

from __future__ import annotations

import pytest

from app.experiments.flags.document import OPERATORS
from app.experiments.targeting import targeting_problems
from app.experiments.types import TargetingRule

pytestmark = pytest.mark.unit


def problems(attribute: str, operator: str, *values: str) -> list[str]:
    return targeting_problems([TargetingRule(attribute, operator, values)])


TAKEN = {
    **dict.fromkeys(("IN", "NOT_IN", "STR_STARTS_WITH", "STR_ENDS_WITH", "STR_CONTAINS"), ("NO", 'a "quoted" text')),
    **dict.fromkeys(("NUM_EQ", "NUM_GT", "NUM_GTE", "NUM_LT", "NUM_LTE"), ("-2.5",)),
    **dict.fromkeys(("SEMVER_EQ", "SEMVER_GT", "SEMVER_GTE", "SEMVER_LT", "SEMVER_LTE"), ("2.10.0-beta.1+b7",)),
    **dict.fromkeys(("DATE_AFTER", "DATE_BEFORE"), ("2026-03-01T12:00:00+01:00",)),
    "IN_CIDR": ("10.0.0.0/8",),
    "REGEX": ("^NO|SE$",),
}


def test_every_operator_takes_what_it_is_for() -> None:
    assert {operator: problems("country", operator, *values) for operator, values in TAKEN.items()} == {name: [] for name in OPERATORS}


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (("country", "in", "NO"), "targeting rule 1: operator is 'in': it must be one of IN,"),
        (("", "IN", "NO"), "attribute is ''"),
        (("a\0", "IN", "NO"), "attribute is"),
        (('a"', "IN", "NO"), "without quotes, backslashes or control characters"),
        (("tenantId", "IN", "bank"), "attribute is 'tenantId', which is set by the service"),
        (("userId", "IN", "u1"), "attribute is 'userId', which is set by the service"),
        (("country", "IN"), "values has 0 entries"),
        (("country", "IN", *(str(n) for n in range(251))), "values has 251 entries; at most 250 are taken."),
        (("age", "NUM_GTE"), "NUM_GTE takes exactly one value."),
        (("age", "NUM_GTE", "18", "21"), "NUM_GTE takes exactly one value."),
        (("age", "NUM_GTE", "old"), "value is 'old': NUM_GTE takes a finite number like 2.5."),
        (("age", "NUM_GTE", "nan"), "value is 'nan': NUM_GTE takes a finite number"),
        (("age", "NUM_GTE", "٣"), "NUM_GTE takes a finite number"),
        (("app", "SEMVER_GT", "2.10"), "value is '2.10': SEMVER_GT takes a semantic version like 2.10.0"),
        (("app", "SEMVER_GT", "02.1.0"), "SEMVER_GT takes a semantic version"),
        (("born", "DATE_AFTER", "2026-03-01"), "DATE_AFTER takes a time with a zone"),
        (("born", "DATE_AFTER", "2026-13-01T12:00:00Z"), "DATE_AFTER takes a time"),
        (("country", "IN", "x" * 257), "attribute and values have at most 256 characters each"),
        (("x" * 257, "IN", "NO"), "attribute and values have at most 256 characters each"),
        (("country", "IN", "a\0"), "holds a control character"),
        (("country", "REGEX", "(unclosed"), "REGEX takes a regular expression"),
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
