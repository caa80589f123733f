"""Pure checks of targeting rules: everything that the flag engine would read as "nobody" without a word is named here.

Source: Unleash's constraint operators, https://docs.getunleash.io/reference/activation-strategies#constraint-operators
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from app.experiments.flags.compiling import rule_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.experiments.types import TargetingRule

_MOST_RULES = 20
_MOST_VALUES = 250
_LONGEST = 256  # characters of an attribute's name and of a value: as long as a request may send them
# Set by the service for each request, or without a meaning here.
_RESERVED = frozenset({"tenantId", "userId", "sessionId", "remoteAddress", "environment", "appName", "currentTime", "properties"})

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_PART = r"(?:0|[1-9][0-9]*)"
_SEMVER = re.compile(rf"{_PART}\.{_PART}\.{_PART}(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def _is_time(value: str) -> bool:
    if not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_anything(value: str) -> bool:  # noqa: ARG001  one shape with the others
    return True


_MANY: dict[str, tuple[Callable[[str], bool], str]] = dict.fromkeys(
    ("IN", "NOT_IN", "STR_STARTS_WITH", "STR_ENDS_WITH", "STR_CONTAINS"), (_is_anything, "a text")
)
_ONE: dict[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(
        ("NUM_EQ", "NUM_GT", "NUM_GTE", "NUM_LT", "NUM_LTE"), (lambda v: _NUMBER.fullmatch(v) is not None, "a number like 2.5")
    ),
    **dict.fromkeys(
        ("SEMVER_EQ", "SEMVER_GT", "SEMVER_LT"), (lambda v: _SEMVER.fullmatch(v) is not None, "a semantic version like 2.10.0")
    ),
    **dict.fromkeys(("DATE_AFTER", "DATE_BEFORE"), (_is_time, "a time like 2026-03-01T12:00:00Z")),
}
OPERATORS = (*_MANY, *_ONE)


def targeting_problems(rules: Sequence[TargetingRule]) -> list[str]:
    """A sentence for each thing that is wrong; empty where the engine reads the rules as they are meant."""
    if len(rules) > _MOST_RULES:
        return [f"targeting has {len(rules)} rules; at most {_MOST_RULES} are taken."]
    return [problem for number, rule in enumerate(rules, 1) for problem in _of_rule(f"targeting rule {number}", rule)]


def _of_rule(where: str, rule: TargetingRule) -> list[str]:
    found = []
    if not 1 <= len(rule.attribute) <= _LONGEST or not _storable(rule.attribute):
        found.append(f"{where}: attribute must be a name of 1 to {_LONGEST} characters, without NUL.")
    elif rule.attribute in _RESERVED:
        found.append(f"{where}: attribute {rule.attribute!r} is set by the service, never by the request: target by an attribute.")
    several, one = _MANY.get(rule.operator), _ONE.get(rule.operator)
    if several is None and one is None:
        return [*found, f"{where}: operator {rule.operator[:40]!r} is none of {', '.join(OPERATORS)}."]
    fits, what = several or one or (_is_anything, "")
    most = _MOST_VALUES if several else 1
    if not 1 <= len(rule.values) <= most:
        needed = f"1 to {_MOST_VALUES} values" if several else "exactly one value"
        return [*found, f"{where}: {rule.operator} takes {needed}, not {len(rule.values)}."]
    for value in rule.values:
        if len(value) > _LONGEST or not _storable(value):
            found.append(f"{where}: a value has at most {_LONGEST} characters and no NUL.")
        elif not fits(value):
            found.append(f"{where}: {rule.operator} takes {what}, not {value[:40]!r}.")
    # The evaluator's own eye, last: a rule that it refuses would keep all of the tenant's flags as they were.
    return found or [f"{where}: {text}" for text in rule_problems(rule)]


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
