"""What a document must be for the evaluator to read it as it is meant; every silent "off" has a name here. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from app.experiments.flags.constraints import LONGEST_TEXT, flaws_of, is_unquotable
from app.experiments.flags.document import FLEXIBLE_ROLLOUT, STICKINESSES, STRATEGIES, USER_WITH_ID, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from app.experiments.flags.document import Choice, Constraint, Flag, Strategy

MOST_FLAGS = 20_000
MOST_STRATEGIES = 200  # of a flag; the evaluator compiles them into one rule, one inside the other
MOST_CONSTRAINTS = 100  # of a strategy
MOST_CHOICES = 10_000
MOST_WEIGHT = 1_000_000  # of a list of choices together

_NAME = re.compile(r"[A-Za-z0-9_.~:-]{1,200}")


def problems_of(flags: Sequence[Flag]) -> list[Problem]:
    """One problem for each thing that is wrong with one of the flags, or between them; empty where the evaluator may have them."""
    if len(flags) > MOST_FLAGS:
        return [Problem("", "features", f"has {len(flags):,} entries; at most {MOST_FLAGS:,} are taken.")]
    found = [Problem(name, "name", "is the name of two flags: the last one would win.") for name in _doubled(flag.name for flag in flags)]
    by_name = {flag.name: flag for flag in flags}
    for flag in flags:
        found += [Problem(flag.name, field, text) for field, text in _of_flag(flag)]
        found += [Problem(flag.name, field, text) for field, text in _of_parents(flag, by_name)]
    return found


def _of_flag(flag: Flag) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(flag.name):
        yield "name", "must be 1 to 200 letters, digits, dots, hyphens, underscores, colons and tildes."
    if len(flag.strategies) > MOST_STRATEGIES:
        yield "strategies", f"has {len(flag.strategies)} entries; at most {MOST_STRATEGIES} are taken."
    for number, strategy in enumerate(flag.strategies[:MOST_STRATEGIES]):
        for field, text in _of_strategy(strategy):
            yield f"strategies[{number}].{field}", text
    yield from _of_choices("variants", flag.choices)
    yield from _of_stickiness("variants[0].stickiness", flag.stickiness)


def _of_strategy(strategy: Strategy) -> Iterator[tuple[str, str]]:
    if strategy.name not in STRATEGIES:
        yield "name", f"is {strategy.name[:40]!r}: it must be one of {', '.join(STRATEGIES)}."
    if strategy.name == FLEXIBLE_ROLLOUT and not 0 <= strategy.rollout <= 100:
        yield "parameters.rollout", f"is {strategy.rollout}: it must be a whole percent from 0 to 100."
    if strategy.group_id is not None and (not 1 <= len(strategy.group_id) <= LONGEST_TEXT or is_unquotable(strategy.group_id)):
        yield "parameters.groupId", f"must have 1 to {LONGEST_TEXT:,} characters, none of them a quote, a backslash or a control character."
    if strategy.name == USER_WITH_ID and not (strategy.user_ids and all(_is_id(unit) for unit in strategy.user_ids)):
        yield "parameters.userIds", "must name at least one unit's hash, with commas between them."
    yield from _of_stickiness("parameters.stickiness", strategy.stickiness)
    if len(strategy.constraints) > MOST_CONSTRAINTS:
        yield "constraints", f"has {len(strategy.constraints)} entries; at most {MOST_CONSTRAINTS} are taken."
    for number, constraint in enumerate(strategy.constraints[:MOST_CONSTRAINTS]):
        yield from _of_constraint(f"constraints[{number}]", constraint)
    yield from _of_choices("variants", strategy.choices)


def _of_constraint(where: str, constraint: Constraint) -> Iterator[tuple[str, str]]:
    for field, text in flaws_of(constraint):
        yield f"{where}.{field}", text


def _is_id(unit: str) -> bool:
    return bool(unit) and unit == unit.strip() and "," not in unit and not is_unquotable(unit)


def _of_stickiness(field: str, stickiness: str) -> Iterator[tuple[str, str]]:
    if stickiness not in STICKINESSES:
        yield (
            field,
            f"is {stickiness[:40]!r}: it must be one of {', '.join(STICKINESSES)}, for who is compared are units, each drawn once.",
        )


def _of_choices(field: str, choices: Sequence[Choice]) -> Iterator[tuple[str, str]]:
    if not choices:
        return
    if len(choices) > MOST_CHOICES:
        yield field, f"has {len(choices):,} entries; at most {MOST_CHOICES:,} are taken."
        return
    for name in _doubled(choice.name for choice in choices):
        yield field, f"names {name[:40]!r} twice."
    for number, choice in enumerate(choices):
        if not 1 <= len(choice.name) <= LONGEST_TEXT:
            yield f"{field}[{number}].name", f"must have 1 to {LONGEST_TEXT:,} characters."
        if choice.weight < 0:
            yield f"{field}[{number}].weight", f"is {choice.weight}: a weight is a whole number that is not negative."
    if not 1 <= (total := sum(choice.weight for choice in choices)) <= MOST_WEIGHT:
        yield field, f"has weights that add up to {total}: they must add up to 1 to {MOST_WEIGHT:,}."


def _of_parents(flag: Flag, by_name: Mapping[str, Flag]) -> Iterator[tuple[str, str]]:
    for number, parent in enumerate(flag.parents):
        where = f"dependencies[{number}]"
        above = by_name.get(parent.flag)
        if above is None:
            yield f"{where}.feature", f"is {parent.flag[:80]!r}, which is not in the document: the flag would be off for everybody."
            continue
        if parent.flag == flag.name or any(higher.flag == flag.name for higher in above.parents):
            yield f"{where}.feature", f"is {parent.flag[:80]!r}: the two depend on each other."
        elif above.parents:
            yield f"{where}.feature", f"is {parent.flag[:80]!r}, which has a parent of its own: the flag would be off for everybody."
        if any(strategy.name == FLEXIBLE_ROLLOUT and strategy.group_id is None for strategy in above.strategies):
            yield f"{where}.feature", f"is {parent.flag[:80]!r}, whose rollout has no groupId: it would be drawn under this flag's name."
        if parent.choices and not parent.enabled:
            yield f"{where}.variants", "names variants of a parent that must be off."
        known = {choice.name for choices in (above.choices, *(each.choices for each in above.strategies)) for choice in choices}
        for name in sorted(set(parent.choices) - known):
            yield f"{where}.variants", f"names {name[:40]!r}, which is no variant of {parent.flag[:80]!r}."


def _doubled(names: Iterator[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
