"""Pure checks of targeting rules: everything that the flag engine would read as "nobody" without a word is named here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.experiments.flags.compiling import rule_problems
from app.experiments.flags.context import LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.types import TargetingRule

_MOST_RULES = 20
_MOST_VALUES = 250


def targeting_problems(rules: Sequence[TargetingRule]) -> list[str]:
    """A sentence for each thing that is wrong; empty where the engine reads the rules as they are meant."""
    if len(rules) > _MOST_RULES:
        return [f"targeting has {len(rules)} rules; at most {_MOST_RULES} are taken."]
    return [f"targeting rule {number}: {problem}" for number, rule in enumerate(rules, 1) for problem in _of_rule(rule)]


def _of_rule(rule: TargetingRule) -> list[str]:
    if len(rule.values) > _MOST_VALUES:
        return [f"values has {len(rule.values)} entries; at most {_MOST_VALUES} are taken."]
    if any(len(text) > LONGEST for text in (rule.attribute, *rule.values)):
        return [f"attribute and values have at most {LONGEST} characters each, as those of a request have."]
    theirs = "contextName "  # the engine's word for what is an attribute here
    return [f"attribute {problem.removeprefix(theirs)}" if problem.startswith(theirs) else problem for problem in rule_problems(rule)]
