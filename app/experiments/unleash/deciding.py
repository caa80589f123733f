"""What a unit gets from a tenant's share of a flag server's document. Pure: the engine answers, this reads the answer."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from app.errors import AppError
from app.experiments.types import Decision, DecisionReason
from app.experiments.unleash.chances import NOTHING, chances_of
from app.experiments.unleash.payloads import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.experiments.flags.document import Flag
    from app.experiments.unleash.chances import Holds
    from app.experiments.unleash.types import Chances, Place, RawVariant, Target, UnleashDocument, UnleashFlag

    Ask = Callable[[str], RawVariant | None]

_MOST_REMEMBERED = 1_000  # combinations of conditions of one flag


def decide(
    document: UnleashDocument,
    model: str,
    _unit_hash: str,
    _attributes: Mapping[str, str] | None,
    ask: Ask,
    *,
    taking_part: float = 1.0,
) -> Decision | None:
    """The decision of the flag `model.<model>`; None where no flag of this tenant concerns the model.

    `ask` puts one flag to the engine of `document.document`, in the context of the unit and the request. `taking_part`: the
    probability, 0 to 1, of not being held out of experiments; whoever calls looks at that where the outcome was drawn. Raises nothing:
    what cannot be understood, or evaluated, is UNKNOWN_VARIANT.
    """
    flag = document.flags.get(model)
    if flag is None:
        return None
    try:
        return _decided(flag, document.revision, ask, taking_part)
    except AppError:
        return Decision(DecisionReason.UNKNOWN_VARIANT, flag.experiment, None, None, None, None, document.revision)


def _decided(flag: UnleashFlag, revision: int, ask: Ask, taking_part: float) -> Decision:
    def outcome(reason: DecisionReason, propensity: float | None, target: Target | None = None) -> Decision:
        if target is None:
            return Decision(reason, flag.experiment, None, None, None, propensity, revision)
        return Decision(reason, flag.experiment, target.variant, target.version, target.alias, propensity, revision)

    if not flag.running:
        return outcome(DecisionReason.FLAG_OFF, 1.0)
    conditions = _conditions(flag, ask)
    reason = _reason_out(flag, conditions)
    if reason is not DecisionReason.OUT_OF_ROLLOUT:
        return outcome(reason, 1.0)
    place = _place_of(ask(flag.flag.name))
    propensity = _propensity(flag, _chances(flag, conditions), place, taking_part)
    if place is None:
        return outcome(DecisionReason.OUT_OF_ROLLOUT, propensity)
    target = flag.targets.get(place)
    if target is None or not target.understood:
        return outcome(DecisionReason.UNKNOWN_VARIANT, propensity)
    return outcome(DecisionReason.EXPERIMENT, propensity, target)


def _conditions(flag: UnleashFlag, ask: Ask) -> dict[str, bool]:
    """Which of the twins are on: whose constraints hold in this context."""
    found = {}
    for name in flag.twin_names:
        answer = ask(name)
        found[name] = answer is not None and answer.feature_enabled
    return found


def _holds(flag: UnleashFlag, conditions: dict[str, bool]) -> Holds:
    return lambda name, strategy: (twin := flag.twins.get((name, strategy))) is None or conditions[twin]


def _reason_out(flag: UnleashFlag, conditions: dict[str, bool]) -> DecisionReason:
    """Why a unit is out that is out: only where this is OUT_OF_ROLLOUT could another unit be in, or with another rollout."""
    holds = _holds(flag, conditions)

    def may_hold(name: str, strategies: int) -> bool:
        return strategies == 0 or any(holds(name, number) for number in range(strategies))

    for parent in flag.flag.parents:
        above = flag.parents[parent.flag]
        if parent.enabled and not above.enabled:
            return DecisionReason.FLAG_OFF
        may = above.enabled and may_hold(above.name, len(above.strategies))
        if parent.enabled and not may:
            return DecisionReason.NOT_TARGETED
        if not parent.enabled and may and _always(above, holds):
            return DecisionReason.NOT_TARGETED
    if not may_hold(flag.flag.name, len(flag.flag.strategies)):
        return DecisionReason.NOT_TARGETED
    return DecisionReason.OUT_OF_ROLLOUT


def _always(above: Flag, holds: Holds) -> bool:
    return not above.strategies or any(each.rollout == 100 and holds(above.name, number) for number, each in enumerate(above.strategies))


def _place_of(answer: RawVariant | None) -> Place | None:
    if answer is None or not answer.feature_enabled:
        return None
    place = read(answer.payload) if answer.enabled else None
    return NOTHING if place is None else place


def _chances(flag: UnleashFlag, conditions: dict[str, bool]) -> Chances | None:
    key = tuple(conditions.values())
    try:
        return flag.chances[key]
    except KeyError:
        if len(flag.chances) >= _MOST_REMEMBERED:
            flag.chances.clear()
        found = flag.chances[key] = chances_of(flag.flag, flag.parents, _holds(flag, conditions))
        return found


def _propensity(flag: UnleashFlag, chances: Chances | None, place: Place | None, taking_part: float) -> float | None:
    """Of what the unit got: the same variant and version may be had by several strategies."""
    if chances is None:
        return None
    got = None if place is None else flag.targets.get(place)
    alike = [each for each in chances if each == place or (got is not None and each is not None and _same(flag.targets.get(each), got))]
    return taking_part * float(sum((chances[each] for each in alike), Fraction(0)))


def _same(one: Target | None, other: Target) -> bool:
    return one is not None and (one.variant, one.version, one.alias) == (other.variant, other.version, other.alias)
