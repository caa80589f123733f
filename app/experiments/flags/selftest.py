"""A new engine is held to the reference on fixed units before it decides. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

from app.experiments.flags.document import CURRENT_TIME, PATTERN_OPERATOR, RESERVED, TENANT_ID, USER_ID, FlagsRefused, Problem
from app.experiments.flags.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.experiments.flags.document import Constraint, Document, Flag
    from app.experiments.flags.engine import Engine

UNITS = tuple(hashlib.sha256(f"self-test {number}".encode()).hexdigest() for number in range(200))
_MOST_QUESTIONS = 400  # of the flags of one document that decide: they share them
_LEAST_UNITS = 20  # of each flag, those that only lead to a decision among them
_NOON = "2026-01-01T12:00:00.000Z"  # the same moment for both where a flag looks at the clock


def self_test(document: Document, engine: Engine, tenant: str) -> None:
    """Returns where the engine decides each flag as the reference does; raises FlagsRefused that names the first flag that differs."""
    reference = Reference(document)
    by_name = {flag.name: flag for flag in document.flags}
    parents = {parent.flag for flag in document.flags for parent in flag.parents}
    deciding = {flag.name for flag in document.flags if flag.name not in parents and any(strategy.choices for strategy in flag.strategies)}
    many = max(_LEAST_UNITS, _MOST_QUESTIONS // max(1, len(deciding)))
    for flag in document.flags:
        constraints = list(_constraints_of([flag, *(by_name[parent.flag] for parent in flag.parents)]))
        for number, unit in enumerate(UNITS[: many if flag.name in deciding else _LEAST_UNITS]):
            asked, values = _sample(constraints, number, unit)
            values[TENANT_ID] = tenant
            context = orjson.dumps({USER_ID: asked, CURRENT_TIME: _NOON, "properties": values})
            if engine.ask(flag.name, context) != reference.ask(flag.name, asked, {**values, CURRENT_TIME: _NOON}):
                raise FlagsRefused([Problem(flag.name, "", f"is not decided as it is written, for the unit {asked} and {values}.")])


def _constraints_of(flags: Sequence[Flag]) -> Iterator[Constraint]:
    for flag in flags:
        for strategy in flag.strategies:
            yield from strategy.constraints


def _sample(constraints: Sequence[Constraint], number: int, unit: str) -> tuple[str, dict[str, str]]:
    """A unit and attributes: in every third question none, else values that the flag itself names, so that both ways are taken.

    What a regular expression looks at stays unset, for the reference reads those by another library.
    """
    values: dict[str, str] = {}
    for constraint in constraints if number % 3 else ():
        value = constraint.values[number // 3 % len(constraint.values)]
        if constraint.attribute == USER_ID:
            unit = value
        elif constraint.attribute not in RESERVED:
            values.setdefault(constraint.attribute, value)
    for constraint in constraints:
        if constraint.operator == PATTERN_OPERATOR:
            values.pop(constraint.attribute, None)
    return unit, values
