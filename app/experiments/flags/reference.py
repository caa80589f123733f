"""The evaluator's meaning written down once more, in Python: what an engine is held to before it decides, and in tests.

Slow, and nothing is asked of it at a request. Regular expressions are those of Python, near enough for simple ones.
Source: the client specification, https://github.com/Unleash/client-specification; MurmurHash3 x86 32 bits, by mmh3.
"""

from __future__ import annotations

import ipaddress
import operator
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import mmh3

from app.experiments.flags.constraints import VERSION, is_time
from app.experiments.flags.document import (
    DATE_OPERATORS,
    DEFAULT,
    FLEXIBLE_ROLLOUT,
    NUMBER_OPERATORS,
    USER_ID,
    VERSION_OPERATORS,
)
from app.experiments.flags.engine import RawVariant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.experiments.flags.document import Choice, Constraint, Document, Flag, Strategy

_CHOICE_SEED = 86028157
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf|infinity|nan)", re.ASCII | re.IGNORECASE)
_EPSILON = 2.220446049250313e-16


def bucket(group: str, unit: str, size: int, seed: int = 0) -> int:
    """1 to `size`: where the unit falls under the group. Rollouts have the seed 0 and choices another: the two are independent."""
    return int(mmh3.hash(f"{group}:{unit}", seed, signed=False)) % size + 1


class Reference:
    """A document that can be asked like an Engine, for a unit and the context's other values by name."""

    def __init__(self, document: Document) -> None:
        self._flags = {flag.name: flag for flag in document.flags}

    def ask(self, name: str, unit: str, values: Mapping[str, str]) -> RawVariant | None:
        """`values`: of the context but for the unit; `currentTime` among them where a flag asks for it."""
        flag = self._flags.get(name)
        if flag is None:
            return None
        context = {**values, USER_ID: unit}
        strategy, on = _matched(flag, context)
        on = on and flag.enabled and self._parents_hold(flag, context)
        choice = _drawn(flag, strategy, unit) if on else None
        if choice is None:
            return RawVariant("disabled", False, None, on)
        return RawVariant(choice.name, True, choice.payload, on)

    def _parents_hold(self, flag: Flag, context: Mapping[str, str]) -> bool:
        for parent in flag.parents:
            above = self._flags.get(parent.flag)
            if above is None or above.parents:
                return False
            strategy, on = _matched(above, context)
            choice = _drawn(above, strategy, context[USER_ID])
            if (above.enabled and on) != parent.enabled:
                return False
            if parent.choices and choice is not None and choice.name not in parent.choices:
                return False
        return True


def _matched(flag: Flag, context: Mapping[str, str]) -> tuple[Strategy | None, bool]:
    """The first strategy that holds, and whether the flag is on by its strategies: without any it is."""
    strategy = next((strategy for strategy in flag.strategies if _holds(flag, strategy, context)), None)
    return strategy, strategy is not None or not flag.strategies


def _holds(flag: Flag, strategy: Strategy, context: Mapping[str, str]) -> bool:
    if strategy.name == FLEXIBLE_ROLLOUT:
        inside = bucket(strategy.group_id or flag.name, context[USER_ID], 100) <= strategy.rollout
    else:
        inside = strategy.name == DEFAULT or context[USER_ID] in strategy.user_ids
    return inside and all(satisfied(constraint, context) for constraint in strategy.constraints)


def _drawn(flag: Flag, strategy: Strategy | None, unit: str) -> Choice | None:
    if strategy is not None and strategy.choices:
        return _choice(strategy.choices, strategy.group_id or flag.name, unit)
    return _choice(flag.choices, flag.name, unit) if flag.choices else None


def _choice(choices: Sequence[Choice], group: str, unit: str) -> Choice:
    left = bucket(group, unit, sum(choice.weight for choice in choices), _CHOICE_SEED)
    for choice in choices:
        left -= choice.weight
        if left <= 0:
            return choice
    raise AssertionError("a bucket lies within the weights")


def satisfied(constraint: Constraint, context: Mapping[str, str]) -> bool:
    """Whether the condition holds for these values."""
    value = context.get(constraint.attribute)
    held = constraint.operator == "NOT_IN" if value is None else _compare(constraint, value)
    return held is not constraint.inverted


def _compare(constraint: Constraint, value: str) -> bool:
    how, wanted = constraint.operator, constraint.values
    if how in {"IN", "NOT_IN"}:
        return (value in wanted) is (how == "IN")
    if how in _TEXT:
        if constraint.case_insensitive:
            value, wanted = value.lower(), tuple(each.lower() for each in wanted)
        return any(_TEXT[how](value, each) for each in wanted)
    if how in NUMBER_OPERATORS:
        return _FLOAT.fullmatch(value) is not None and _ordered(how.removeprefix("NUM_"), float(value), float(wanted[0]))
    if how in DATE_OPERATORS:
        return is_time(value) and _ordered({"DATE_AFTER": "GT", "DATE_BEFORE": "LT"}[how], _time(value), _time(wanted[0]))
    if how in VERSION_OPERATORS:
        given, asked = _precedence(value), _precedence(wanted[0])
        return given is not None and asked is not None and _ordered(how.removeprefix("SEMVER_"), given, asked)
    if how == "IN_CIDR":
        return any(_inside(value, network) for network in wanted)
    return re.search(wanted[0], value, re.IGNORECASE if constraint.case_insensitive else 0) is not None


_TEXT: dict[str, Callable[[str, str], bool]] = {
    "STR_STARTS_WITH": str.startswith,
    "STR_ENDS_WITH": str.endswith,
    "STR_CONTAINS": str.__contains__,
}


def _ordered(how: str, left: Any, right: Any) -> bool:
    """By the operator's ending; nothing is before, after or equal to what is no number."""
    if how == "EQ":
        return abs(left - right) < _EPSILON if isinstance(left, float) else bool(left == right)
    return bool({"GT": operator.gt, "GTE": operator.ge, "LT": operator.lt, "LTE": operator.le}[how](left, right))


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def _precedence(value: str) -> tuple[object, ...] | None:
    """Sorts as Semantic Versioning orders: a pre-release before its release, numbers before words, build metadata ignored."""
    found = VERSION.fullmatch(value)
    if found is None:
        return None
    major, minor, patch, before = found.groups()
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".")] if before else []
    return (int(major), int(minor), int(patch), before is None, parts)


def _inside(value: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
