"""A new engine is held to the reference on fixed units: on some before it decides, on all a moment later. Pure.

A question takes ten microseconds, of each serving process at once, and a change of flags waits for the first ones alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

from app.experiments.flags.document import (
    ADDRESS_OPERATOR,
    CURRENT_TIME,
    DATE_OPERATORS,
    NUMBER_OPERATORS,
    PATTERN_OPERATOR,
    TENANT_ID,
    USER_ID,
    VERSION_OPERATORS,
    FlagsRefused,
    Problem,
)
from app.experiments.flags.reference import Reference, satisfied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.flags.document import Constraint, Document, Flag
    from app.experiments.flags.engine import Engine

UNITS = tuple(hashlib.sha256(f"self-test {number}".encode()).hexdigest() for number in range(200))
_MOST_QUESTIONS = 400  # of the flags of one document that decide: they share them
_LEAST_UNITS = 20  # of each flag, those that only lead to a decision among them
_FIRST_QUESTIONS, _FIRST_UNITS = 24, 4  # the same before it decides
_TRIED = 10  # values of one condition
_NOON = "2026-01-01T12:00:00.000Z"  # the same moment for both where a flag looks at the clock


def self_test(document: Document, engine: Engine, tenant: str, *, first: bool = False) -> None:
    """Returns where the engine decides each flag as the reference does; raises FlagsRefused that names the first flag that differs.

    `first`: on the first units only.
    """
    questions, least = (_FIRST_QUESTIONS, _FIRST_UNITS) if first else (_MOST_QUESTIONS, _LEAST_UNITS)
    reference = Reference(document)
    by_name = {flag.name: flag for flag in document.flags}
    parents = {parent.flag for flag in document.flags for parent in flag.parents}
    deciding = {flag.name for flag in document.flags if flag.name not in parents and _draws(flag)}
    many = max(least, questions // max(1, len(deciding)))
    for flag in document.flags:
        asked = [_Asked(each) for each in (flag, *(by_name[parent.flag] for parent in flag.parents))]
        for number, unit in enumerate(UNITS[: many if flag.name in deciding else least]):
            context = _sample(asked, number, unit) | {TENANT_ID: tenant}
            values = {name: value for name, value in context.items() if name not in {USER_ID, CURRENT_TIME}}
            given = orjson.dumps({USER_ID: context[USER_ID], CURRENT_TIME: context[CURRENT_TIME], "properties": values})
            if engine.ask(flag.name, given) != reference.ask(flag.name, context[USER_ID], context):
                raise FlagsRefused([Problem(flag.name, "", f"is not decided as it is written, for {context}.")])


def _draws(flag: Flag) -> bool:
    return any(len(choices) > 1 for choices in (flag.choices, *(strategy.choices for strategy in flag.strategies)))


class _Asked:
    """What one flag looks at: of each constraint of each strategy the values that it may be tried with, and those that it lets in."""

    def __init__(self, flag: Flag) -> None:
        constraints = [each for strategy in flag.strategies for each in strategy.constraints]
        self.unset = {each.attribute for each in constraints if each.operator == PATTERN_OPERATOR} | {TENANT_ID}
        self.strategies = [
            [self._of(each) for each in strategy.constraints if each.attribute not in self.unset] for strategy in flag.strategies
        ]

    @staticmethod
    def _of(constraint: Constraint) -> tuple[str, Sequence[str], Sequence[str]]:
        tried = _values_for(constraint)
        let_in = [value for value in tried if satisfied(constraint, {constraint.attribute: value})]
        return constraint.attribute, tried, let_in or tried


def _sample(asked: Sequence[_Asked], number: int, unit: str) -> dict[str, str]:
    """The context of one question: of every three one without attributes, one that a strategy lets in, one in between.

    What a regular expression looks at stays unset, for the reference reads those by another library.
    """
    values = {USER_ID: unit, CURRENT_TIME: _NOON}
    if number % 3:
        for flag in asked:
            for place, (name, tried, let_in) in enumerate(flag.strategies[number // 3 % len(flag.strategies)] if flag.strategies else ()):
                among = let_in if number % 3 == 1 else tried
                values[name] = among[number // 3 * (place + 1) % len(among)]
    return {name: value for name, value in values.items() if not any(name in flag.unset for flag in asked)}


def _values_for(constraint: Constraint) -> Sequence[str]:
    """Values on both sides of the condition."""
    first = constraint.values[0]
    if constraint.operator in NUMBER_OPERATORS:
        return first, repr(float(first) + 1), repr(float(first) - 1)
    if constraint.operator in VERSION_OPERATORS:
        return first, "0.0.0-0", f"{int(first.partition('.')[0]) + 1}.0.0"
    if constraint.operator in DATE_OPERATORS:
        return first, "1970-01-01T00:00:00Z", "2999-12-31T00:00:00Z"
    return *(
        value.partition("/")[0] if constraint.operator == ADDRESS_OPERATOR else value for value in constraint.values[:_TRIED]
    ), "another"
