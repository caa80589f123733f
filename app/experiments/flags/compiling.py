"""Running experiments into the document that decides them. Pure.

Of each experiment: `experiment.<key>` with its arms, `twin.<key>` with its targeting alone, `override.<key>` with the units that test by
hand, and `gate.<key>` or its `layer.<layer>` with who takes part; of the tenant: `holdout`. Gate or layer and holdout are both parents of
the experiment's flag, for a parent may not have one. Each draws under a name of its own, so the draws are independent.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.experiments.flags.checking import problems_of
from app.experiments.flags.constraints import flaws_of, is_time
from app.experiments.flags.document import (
    DATE_OPERATORS,
    DEFAULT,
    RESERVED,
    USER_ID,
    Choice,
    Constraint,
    Document,
    Flag,
    FlagsRefused,
    Parent,
    Problem,
    Strategy,
)
from app.experiments.types import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.experiments.types import RunningExperiment, TargetingRule, Variant

HOLDOUT = "holdout"
_HOLDOUT_GROUP = "tenant.holdout"  # no experiment's key has a dot, so none draws under this name
IN, OUT, FREE = "in", "out", "free"
_STEPS = BUCKETS // 100  # of one percent


def experiment_flag(key: str) -> str:
    return f"experiment.{key}"


def twin_flag(key: str) -> str:
    return f"twin.{key}"


def override_flag(key: str) -> str:
    return f"override.{key}"


def gate_flag(key: str) -> str:
    return f"gate.{key}"


def layer_flag(layer: str) -> str:
    return f"layer.{layer}"


def buckets_of(percent: float) -> int:
    """How many of the 100,000 buckets the percentage is; -1 where it is none of 0 to 100 in steps of 0.001."""
    if not 0 <= percent <= 100:
        return -1
    buckets = round(percent * _STEPS)
    return buckets if abs(percent * _STEPS - buckets) < 1e-6 else -1


def taking_part(experiment: RunningExperiment) -> int:
    """How many buckets let units take part in the experiment, before its targeting and the tenant's holdout."""
    if experiment.layer is None or experiment.rollout == 0:
        return buckets_of(experiment.rollout)
    return sum(end - start for start, end in experiment.slots)


def arms_of(experiment: RunningExperiment) -> tuple[Variant, ...]:
    """The variants that answer, in the order in which they were declared."""
    return tuple(variant for variant in experiment.variants if not variant.shadow)


def slot_names(experiment: RunningExperiment) -> tuple[str, ...]:
    """What the experiment's slots are called in its layer."""
    return tuple(f"{experiment.key}.{number}" for number in range(len(experiment.slots)))


def compile_document(running: Sequence[RunningExperiment], holdout_percent: float, revision: int) -> Document:
    """The tenant's document. Raises FlagsRefused that names the flag and the field of everything that would not mean what it says."""
    problems = [problem for experiment in running for problem in _problems_of(experiment)]
    problems += _beside_each_other(running)
    held = buckets_of(holdout_percent)
    if held < 0:
        problems.append(Problem(HOLDOUT, "holdoutPercent", f"is {holdout_percent}: it must be 0 to 100 in steps of 0.001."))
    if problems:
        raise FlagsRefused(problems)
    flags = [_drawing(HOLDOUT, ((OUT, held), (IN, BUCKETS - held)), _HOLDOUT_GROUP)] if held else []
    flags += [_layer(layer, running) for layer in sorted({each.layer for each in running if each.layer is not None})]
    for experiment in running:
        flags += _flags_of(experiment, held=held > 0)
    if found := problems_of(flags):
        raise FlagsRefused(found)
    return Document(revision, tuple(flags))


def _flags_of(experiment: RunningExperiment, *, held: bool) -> Iterator[Flag]:
    key, part = experiment.key, taking_part(experiment)
    targeting = tuple(_constraint(rule) for rule in experiment.targeting)
    if experiment.layer is None:
        # Who is in comes first, so that raising the share takes nobody out, and lowering it takes nobody in.
        yield _drawing(gate_flag(key), ((IN, part), (OUT, BUCKETS - part)))
        above = Parent(gate_flag(key), choices=(IN,))
    else:
        above = Parent(layer_flag(experiment.layer), choices=slot_names(experiment))
    if part:
        # The arms' weights stay as they are and their order is the declared one: nobody who takes part ever changes arm.
        arms = tuple(Choice(arm.name, arm.weight) for arm in arms_of(experiment))
        parents = (*((Parent(HOLDOUT, choices=(IN,)),) if held else ()), above)
        yield Flag(experiment_flag(key), strategies=(Strategy(DEFAULT, targeting, arms, group_id=key),), parents=parents)
    if targeting:
        yield Flag(twin_flag(key), strategies=(Strategy(DEFAULT, targeting, group_id=key),))
    if experiment.overrides:
        yield Flag(override_flag(key), strategies=tuple(_overridden(experiment)))


def _overridden(experiment: RunningExperiment) -> Iterator[Strategy]:
    for name in dict.fromkeys(variant for _, variant in experiment.overrides):
        units = tuple(unit for unit, variant in experiment.overrides if variant == name)
        yield Strategy(DEFAULT, (Constraint(USER_ID, "IN", units),), (Choice(name, 1),), group_id=experiment.key)


def _drawing(name: str, shares: tuple[tuple[str, int], ...], group: str | None = None) -> Flag:
    """A flag that is on for everybody and draws one of the names; who depends on a share of nothing is off."""
    choices = tuple(Choice(choice, weight) for choice, weight in shares)
    return Flag(name, strategies=(Strategy(DEFAULT, choices=choices, group_id=group or name),))


def _layer(layer: str, running: Sequence[RunningExperiment]) -> Flag:
    taken = sorted(
        (start, end, name)
        for experiment in running
        if experiment.layer == layer and experiment.rollout
        for (start, end), name in zip(experiment.slots, slot_names(experiment), strict=True)
    )
    shares: list[tuple[str, int]] = []
    reached = 0
    for start, end, name in taken:
        shares += [(f"{FREE}.{len(shares)}", start - reached), (name, end - start)]
        reached = end
    return _drawing(layer_flag(layer), tuple(share for share in (*shares, (FREE, BUCKETS - reached)) if share[1]))


def rule_problems(rule: TargetingRule) -> list[str]:
    """Why a tenant's flags would be refused for this rule, without a subject; empty where the evaluator reads it as it is meant."""
    if rule.attribute in RESERVED:
        return [f"attribute is {rule.attribute!r}, which is set by the service, never by a request."]
    return [f"{field} {text}" for field, text in flaws_of(_constraint(rule))]


def _constraint(rule: TargetingRule) -> Constraint:
    values = rule.values
    if rule.operator in DATE_OPERATORS:  # the evaluator reads milliseconds or whole seconds, and nothing else
        values = tuple(_milliseconds(value) for value in values)
    return Constraint(rule.attribute, rule.operator, values)


def _milliseconds(value: str) -> str:
    if is_time(value):
        return value
    try:
        at = datetime.fromisoformat(value)
        return value if at.tzinfo is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return value


def _problems_of(experiment: RunningExperiment) -> Iterator[Problem]:
    flag = experiment_flag(experiment.key)
    if (part := buckets_of(experiment.rollout)) < 0 or 0 < part < _STEPS // 10:
        yield Problem(flag, "rollout", f"is {experiment.rollout}: it must be 0, or 0.1 to 100 in steps of 0.001.")
    elif experiment.layer is not None and experiment.rollout and taking_part(experiment) != part:
        yield Problem(flag, "slots", f"hold {taking_part(experiment):,} buckets: the rollout of {experiment.rollout} % asks for {part:,}.")
    arms = arms_of(experiment)
    if not arms:
        yield Problem(flag, "variants", "are all shadows: one at least must answer.")
    for name, count in Counter(variant.name for variant in experiment.variants).items():
        if count > 1:
            yield Problem(flag, "variants", f"names {name!r} twice.")
    for arm in arms:
        if isinstance(arm.weight, bool) or not isinstance(arm.weight, int) or arm.weight < 1:
            yield Problem(flag, f"variants.{arm.name}.weight", f"is {arm.weight}: it must be a whole number of at least 1.")
    known = {arm.name for arm in arms}
    for name in sorted({variant for _, variant in experiment.overrides} - known):
        yield Problem(flag, "overrides", f"names {name!r}, which is no variant that answers.")
    for unit, count in Counter(unit for unit, _ in experiment.overrides).items():
        if count > 1:
            yield Problem(flag, "overrides", f"names the unit {unit[:40]!r} twice.")
    for number, rule in enumerate(experiment.targeting):
        if rule.attribute in RESERVED:
            yield Problem(
                flag, f"targeting[{number}].attribute", f"is {rule.attribute!r}, which is set by the service, never by a request."
            )


def _beside_each_other(running: Sequence[RunningExperiment]) -> Iterator[Problem]:
    for name, count in Counter(experiment.key for experiment in running).items():
        if count > 1:
            yield Problem(experiment_flag(name), "key", "is that of two experiments.")
    for experiment in running:
        others = [each for each in running if each.model == experiment.model and each.key < experiment.key]
        if any(each.layer is None or each.layer != experiment.layer for each in others):
            yield Problem(
                experiment_flag(experiment.key), "model", f"is {experiment.model!r}, as of {others[0].key!r}: they share no layer."
            )
    for layer in sorted({each.layer for each in running if each.layer is not None}):
        yield from _overlaps(layer, [each for each in running if each.layer == layer and each.rollout])


def _overlaps(layer: str, running: Sequence[RunningExperiment]) -> Iterator[Problem]:
    reached, last = 0, ""
    for start, end, key in sorted((*slot, each.key) for each in running for slot in each.slots):
        if not 0 <= start < end <= BUCKETS:
            yield Problem(experiment_flag(key), "slots", f"holds [{start}, {end}), which are no buckets of 0 to {BUCKETS:,}.")
        elif start < reached:
            yield Problem(experiment_flag(key), "slots", f"holds [{start}, {end}) of the layer {layer!r}, which {last!r} holds in part.")
        reached, last = max(reached, end), key
