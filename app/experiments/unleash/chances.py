"""What a flag gives a unit, and with which probability over the choice of the unit's hash. Pure, and independent of the evaluator.

One function walks through the flag; it is asked with a unit's own numbers, and again along every path that some unit could take.
Source: Unleash's gradual rollout and variants: murmur3 of "group:unit", seed 0 modulo 100 and seed 86028157 modulo the sum of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from app.experiments.unleash.types import Place  # noqa: TC001  NOTHING is one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.experiments.flags.document import Choice, Flag, Parent

MOST_PATHS = 5_000
NOTHING: Place = (-2, 0)  # let in, with no variant to give
Holds = Callable[[str, int], bool]  # (flag, strategy) -> whether its constraints hold
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw:
    """A number from 1 to `modulus` that a unit's hash gives it; two draws of one group and kind are one number."""

    kind: str  # "rollout" or "choice"
    group: str
    modulus: int


class Numbers(Protocol):
    """Who knows the draws."""

    def within(self, draw: Draw, bound: int) -> bool:
        """Whether the number is at most `bound`."""


def outcome_of(flag: Flag, parents: Mapping[str, Flag], holds: Holds, numbers: Numbers) -> Place | None:
    """The place of the variant that the unit gets; NOTHING where it is let in and there is none to give, None where it is not let in."""
    if not all(_lets_in(parent, parents[parent.flag], holds, numbers) for parent in flag.parents):
        return None
    return _given(flag, holds, numbers)


def chances_of(flag: Flag, parents: Mapping[str, Flag], holds: Holds) -> dict[Place | None, Fraction] | None:
    """The probability of each outcome that can happen; together 1. None where that takes too long to tell."""
    groups = [_draws(each) for each in (flag, *parents.values())]
    if sum(map(len, groups)) > len(set().union(*groups)):  # shared draws: the flags are walked through together
        return _walked(lambda numbers: outcome_of(flag, parents, holds, numbers))
    let_in = Fraction(1)
    for parent in flag.parents:
        through = _walked(partial(_lets_in, parent, parents[parent.flag], holds))
        if through is None:
            return None
        let_in *= through.get(True, Fraction(0))
    own = _walked(partial(_given, flag, holds))
    if own is None:
        return None
    found: dict[Place | None, Fraction] = {place: let_in * chance for place, chance in own.items() if place is not None and let_in}
    out = 1 - sum(found.values(), Fraction(0))
    return found if out == 0 else {**found, None: out}


def at(flag: Flag, place: Place) -> Choice:
    """The choice at this place."""
    strategy, number = place
    return flag.choices[number] if strategy < 0 else flag.strategies[strategy].choices[number]


def _lets_in(parent: Parent, above: Flag, holds: Holds, numbers: Numbers) -> bool:
    place = _given(above, holds, numbers)
    if (place is not None) != parent.enabled:
        return False
    if place is None or place == NOTHING:
        return True  # the evaluator asks for a variant of these only where there is one
    return not parent.choices or at(above, place).name in parent.choices


def _given(flag: Flag, holds: Holds, numbers: Numbers) -> Place | None:
    """As `outcome_of`, without parents: the first strategy that holds gives its choices, or else the flag's own."""
    if not flag.enabled:
        return None
    if not flag.strategies:
        return _drawn(flag.choices, -1, flag.name, numbers)
    for number, strategy in enumerate(flag.strategies):
        group = strategy.group_id or flag.name
        if holds(flag.name, number) and numbers.within(Draw("rollout", group, 100), strategy.rollout):
            if strategy.choices:
                return _drawn(strategy.choices, number, group, numbers)
            return _drawn(flag.choices, -1, flag.name, numbers)
    return None


def _drawn(choices: Sequence[Choice], strategy: int, group: str, numbers: Numbers) -> Place:
    draw, reached = Draw("choice", group, sum(choice.weight for choice in choices)), 0
    for number, choice in enumerate(choices):
        reached += choice.weight
        if choice.weight and numbers.within(draw, reached):
            return strategy, number
    return NOTHING


def _draws(flag: Flag) -> set[tuple[str, str]]:
    """The numbers that the flag may depend on; those of one group differ by nothing that makes them independent."""
    rollouts = {("rollout", strategy.group_id or flag.name) for strategy in flag.strategies if 0 < strategy.rollout < 100}
    choices = {("choice", strategy.group_id or flag.name) for strategy in flag.strategies if strategy.choices}
    return rollouts | choices | ({("choice", flag.name)} if flag.choices else set())


class _Path:
    """Numbers along one path: each question that is open yet is answered by the script, then by yes."""

    def __init__(self, script: list[bool]) -> None:
        self._script = script
        self.taken: list[bool] = []
        self.chance = Fraction(1)
        self._known: dict[Draw, tuple[int, int]] = {}  # the number is above the first and at most the second

    def within(self, draw: Draw, bound: int) -> bool:
        if any(known.group == draw.group and known.kind == draw.kind and known != draw for known in self._known):
            raise _Entangled
        low, high = self._known.get(draw, (0, draw.modulus))
        if bound >= high or bound <= low:
            return bound >= high
        yes = self._script[len(self.taken)] if len(self.taken) < len(self._script) else True
        self.taken.append(yes)
        self.chance *= Fraction(bound - low if yes else high - bound, high - low)
        self._known[draw] = (low, bound) if yes else (bound, high)
        return yes


class _Entangled(Exception):
    """One hash drawn with two moduli: the two numbers depend on each other in no simple way."""


def _walked(run: Callable[[Numbers], T]) -> dict[T, Fraction] | None:
    """What `run` gives along every path, each with its probability."""
    found: dict[T, Fraction] = {}
    script: list[bool] = []
    for _ in range(MOST_PATHS):
        path = _Path(script)
        try:
            outcome = run(path)
        except _Entangled:
            return None
        found[outcome] = found.get(outcome, Fraction(0)) + path.chance
        script = path.taken
        while script and not script[-1]:
            script.pop()
        if not script:
            return found
        script[-1] = False
    return None
