"""A checked client-features document: the one language of both sources of flags. Frozen values; nothing here evaluates.

The evaluator answers "nobody" without a word where it cannot read a rule, and parts of the document reach its rule language unquoted.
So it is given only what `reading.py` or `compiling.py` made and `checking.py` found nothing wrong with, written anew from these values.

Source: Unleash's client features format, https://docs.getunleash.io/reference/api/unleash/get-all-client-features
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from app.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LIST_OPERATORS = ("IN", "NOT_IN")
TEXT_OPERATORS = ("STR_STARTS_WITH", "STR_ENDS_WITH", "STR_CONTAINS")
NUMBER_OPERATORS = ("NUM_EQ", "NUM_GT", "NUM_GTE", "NUM_LT", "NUM_LTE")
DATE_OPERATORS = ("DATE_AFTER", "DATE_BEFORE")
VERSION_OPERATORS = ("SEMVER_EQ", "SEMVER_GT", "SEMVER_GTE", "SEMVER_LT", "SEMVER_LTE")
ADDRESS_OPERATOR = "IN_CIDR"
PATTERN_OPERATOR = "REGEX"
OF_VALUES = frozenset((*LIST_OPERATORS, *TEXT_OPERATORS, ADDRESS_OPERATOR))  # a list of values; the others take one
OPERATORS = (
    *LIST_OPERATORS, *TEXT_OPERATORS, *NUMBER_OPERATORS, *DATE_OPERATORS, *VERSION_OPERATORS, ADDRESS_OPERATOR, PATTERN_OPERATOR,
)  # fmt: skip

DEFAULT = "default"  # a strategy that lets everybody in, and the stickiness that is the unit's where a unit is given
FLEXIBLE_ROLLOUT = "flexibleRollout"
USER_WITH_ID = "userWithId"
STRATEGIES = (DEFAULT, FLEXIBLE_ROLLOUT, USER_WITH_ID)
USER_ID = "userId"
STICKINESSES = (DEFAULT, USER_ID)  # of units; any other would put many units into one draw, or draw anew on each request
TENANT_ID = "tenantId"
CURRENT_TIME = "currentTime"
# Of the context; set by the service or left out, never taken from a request.
RESERVED = frozenset({TENANT_ID, USER_ID, CURRENT_TIME, "sessionId", "remoteAddress", "environment", "appName", "properties"})


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on one name of the context. Missing there: only NOT_IN holds; `inverted` turns the answer round in any case."""

    attribute: str
    operator: str
    values: tuple[str, ...]  # one for operators that are not in OF_VALUES
    inverted: bool = False
    case_insensitive: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What the evaluator calls a variant. Buckets are taken in the order of the list, which is never sorted."""

    name: str
    weight: int
    payload: str | None = None
    payload_type: str = "json"


@dataclass(frozen=True, slots=True)
class Strategy:
    """Whom a flag is on for: all constraints hold, and the unit's hash under `group_id` is among the first `rollout` hundredths.

    The first strategy that holds gives its choices, where it has any; else the flag's own are taken.
    """

    name: str
    constraints: tuple[Constraint, ...] = ()
    choices: tuple[Choice, ...] = ()
    rollout: int = 100  # percent; of FLEXIBLE_ROLLOUT alone
    stickiness: str = USER_ID
    group_id: str | None = None  # None: the flag's name
    user_ids: tuple[str, ...] = ()  # of USER_WITH_ID alone


@dataclass(frozen=True, slots=True)
class Parent:
    """Another flag that must be on (or, not `enabled`, off), with one of these choices where any are named."""

    flag: str
    enabled: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag. No strategies: on for everybody."""

    name: str
    enabled: bool = True
    strategies: tuple[Strategy, ...] = ()
    choices: tuple[Choice, ...] = ()  # drawn under the flag's name
    stickiness: str = USER_ID  # of these choices
    parents: tuple[Parent, ...] = ()  # none of which may have a parent


@dataclass(frozen=True, slots=True)
class Document:
    """Flags by name, each name once. `revision` orders the documents of one source."""

    revision: int
    flags: tuple[Flag, ...]

    def to_json(self) -> bytes:
        """What the evaluator takes: nothing of the text that was read, all of it written from values."""
        return orjson.dumps({"version": 2, "features": [_flag(flag) for flag in self.flags]})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of one flag; `field` is written as it stands in the document: `strategies[0].parameters.rollout`."""

    flag: str
    field: str
    text: str  # a sentence without a subject: "is '33.5': ..."

    def __str__(self) -> str:
        where = f"Flag {self.flag!r}" if self.flag else "The document"
        return f"{where}: {self.field} {self.text}" if self.field else f"{where} {self.text}"


_SHOWN = 10  # problems in the message; all are in the details


class FlagsRefused(InvalidInput):
    """A document that would not mean what it says. `problems`: one Problem each; whoever catches this keeps what decided before."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        more = f" And {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
        super().__init__(" ".join(map(str, problems[:_SHOWN])) + more, problems=[str(problem) for problem in problems])
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading made of features that somebody else wrote: flags without a problem, and what is wrong with the rest."""

    flags: tuple[Flag, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    def or_refused(self) -> tuple[Flag, ...]:
        """The flags; raises FlagsRefused where there is a problem with any."""
        if self.problems:
            raise FlagsRefused(self.problems)
        return self.flags


def _flag(flag: Flag) -> dict[str, Any]:
    return {
        "name": flag.name,
        "enabled": flag.enabled,
        "impressionData": False,
        "strategies": [_strategy(flag, strategy) for strategy in flag.strategies],
        "variants": _choices(flag.choices, flag.stickiness),
        "dependencies": [
            {"feature": parent.flag, "enabled": parent.enabled, **({"variants": list(parent.choices)} if parent.choices else {})}
            for parent in flag.parents
        ],
    }


def _strategy(flag: Flag, strategy: Strategy) -> dict[str, Any]:
    parameters = {"stickiness": strategy.stickiness, "groupId": strategy.group_id or flag.name}
    if strategy.name == FLEXIBLE_ROLLOUT:
        parameters["rollout"] = str(strategy.rollout)
    if strategy.name == USER_WITH_ID:
        parameters["userIds"] = ",".join(strategy.user_ids)
    return {
        "name": strategy.name,
        "parameters": parameters,
        "constraints": [_constraint(constraint) for constraint in strategy.constraints],
        "variants": _choices(strategy.choices, strategy.stickiness),
    }


def _constraint(constraint: Constraint) -> dict[str, Any]:
    many = constraint.operator in OF_VALUES
    return {
        "contextName": constraint.attribute,
        "operator": constraint.operator,
        "inverted": constraint.inverted,
        "caseInsensitive": constraint.case_insensitive,
        **({"values": list(constraint.values)} if many else {"value": constraint.values[0]}),
    }


def _choices(choices: Iterable[Choice], stickiness: str) -> list[dict[str, Any]]:
    return [
        {
            "name": choice.name,
            "weight": choice.weight,
            "stickiness": stickiness,
            **({} if choice.payload is None else {"payload": {"type": choice.payload_type, "value": choice.payload}}),
        }
        for choice in choices
    ]
