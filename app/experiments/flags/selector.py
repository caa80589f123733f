"""What a unit gets: the evaluator's answers put into the contract's words, with the exact probability of each. No I/O, nothing drawn here.

The probabilities are those over the choice of the unit's hash, for the attributes it came with: h held out, r let in, w of W one arm.
Targeting is looked at before holdout and rollout, so for the attributes of one request the outcomes either are NOT_TARGETED alone, or
HOLDOUT h, OUT_OF_ROLLOUT (1 - h)(1 - r) and each arm (1 - h) r w / W, which add up to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from app.errors import Unavailable
from app.experiments.flags.compiling import (
    HOLDOUT,
    OUT,
    arms_of,
    experiment_flag,
    layer_flag,
    override_flag,
    slot_names,
    taking_part,
    twin_flag,
)
from app.experiments.flags.context import context_of
from app.experiments.flags.remembering import lasts
from app.experiments.flags.selftest import self_test
from app.experiments.types import BUCKETS, Decision, DecisionReason
from app.experiments.unleash.deciding import decide as decide_unleash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.experiments.flags.document import Document
    from app.experiments.flags.engine import RawVariant
    from app.experiments.flags.engines import Engines
    from app.experiments.types import RunningExperiment, Variant
    from app.experiments.unleash.types import UnleashDocument

    Ask = Callable[[str], RawVariant | None]

_numbers = count()
_DRAWN = frozenset({DecisionReason.EXPERIMENT, DecisionReason.OUT_OF_ROLLOUT, DecisionReason.UNKNOWN_VARIANT})


class TenantFlags:
    """One tenant's flags; immutable. Made by `building.build_flags`, tested.

    `needed`: (model, version) of all that may be chosen or asked beside. `problems`: what is wrong with some flags, a sentence each,
    and keeps none of the others from deciding.
    """

    def __init__(
        self,
        tenant: str,
        revision: int,
        running: Sequence[RunningExperiment],
        holdout_buckets: int,
        documents: tuple[Document | None, Document | None],
        unleash: UnleashDocument | None,
        engines: Engines,
        problems: tuple[str, ...] = (),
    ) -> None:
        self.tenant, self.revision, self.problems = tenant, revision, problems
        self._held = holdout_buckets / BUCKETS
        self._own, self._foreign = documents
        self._lasts = self._own is not None and lasts(self._own)
        self._number = next(_numbers)  # names these flags among decisions that are remembered, which must not keep old flags in memory
        self._unleash, self._engines, self._remembered = unleash, engines, engines.remembered
        by_model: dict[str, list[RunningExperiment]] = {}
        for experiment in sorted(running, key=lambda each: each.key):
            by_model.setdefault(experiment.model, []).append(experiment)
        self._models = {
            model: _Model([_Experiment.of(each, self._held, revision) for each in listed], self._held) for model, listed in by_model.items()
        }
        variants = {(each.key, each.model): each.variants for each in running}
        if unleash is not None:
            variants |= {(flag.experiment, model): flag.variants for model, flag in unleash.flags.items() if model not in by_model}
        self._variants = {key: listed for (key, _), listed in variants.items()}
        self.needed = frozenset(
            (model, each.version) for (_, model), listed in variants.items() for each in listed if each.version is not None
        )

    def decide(self, model: str, unit_hash: str | None, attributes: Mapping[str, str] | None) -> Decision | None:
        """What this unit gets of this model, the same each time; None where no flag concerns the model.

        Raises InvalidInput where `attributes` are no texts; `context.check_attributes` says what they must be.
        """
        known = None if attributes else self._remembered.get((self._number, model, unit_hash))
        return self._decided(model, unit_hash, attributes) if known is None else known

    def _decided(self, model: str, unit_hash: str | None, attributes: Mapping[str, str] | None) -> Decision | None:
        own = self._models.get(model)
        if own is None and (self._unleash is None or model not in self._unleash.flags):
            return None
        if unit_hash is None:
            return own.no_unit if own is not None else self._aside(model, DecisionReason.NO_UNIT, None)
        if own is None:
            return self._by_flag_server(model, unit_hash, attributes, context_of(self.tenant, unit_hash, attributes))
        if self._own is None:
            return own.unknown
        decision = self._by_evaluator(self._own, own, unit_hash, attributes)
        if decision is None:
            return own.unknown
        if self._lasts and not attributes:
            self._remembered.put((self._number, model, unit_hash), decision)
        return decision

    def _by_evaluator(self, document: Document, own: _Model, unit_hash: str, attributes: Mapping[str, str] | None) -> Decision | None:
        """None where it fails."""
        engine, context = self._engines.of(document), context_of(self.tenant, unit_hash, attributes)
        try:
            return own.decide(unit_hash, lambda flag: engine.ask(flag, context))
        except Unavailable:
            return None

    def prove(self) -> None:
        """Returns where the evaluator decides as the reference does for all fixed units; takes milliseconds. Raises FlagsRefused."""
        for document in (self._own, self._foreign):
            if document is not None:
                self_test(document, self._engines.of(document), self.tenant)

    def shadows(self, experiment: str) -> tuple[Variant, ...]:
        """The variants that answer beside this experiment's answers; none where it does not run."""
        return tuple(variant for variant in self._variants.get(experiment, ()) if variant.shadow)

    def _by_flag_server(self, model: str, unit_hash: str, attributes: Mapping[str, str] | None, context: bytes) -> Decision | None:
        """Its flags have an engine of their own, for their names are the flag server's; who is held out is held out of these, too."""
        if self._unleash is None or self._foreign is None:
            return None
        engine = self._engines.of(self._foreign)
        try:
            decision = decide_unleash(
                self._unleash, model, unit_hash, attributes, lambda flag: engine.ask(flag, context), taking_part=1.0 - self._held
            )
            if decision is None or decision.reason not in _DRAWN or not self._held or self._own is None:
                return decision
            raw = self._engines.of(self._own).ask(HOLDOUT, context)
        except Unavailable:
            return self._aside(model, DecisionReason.UNKNOWN_VARIANT, None)
        return self._aside(model, DecisionReason.HOLDOUT, self._held) if raw is not None and raw.name == OUT else decision

    def _aside(self, model: str, reason: DecisionReason, propensity: float | None) -> Decision | None:
        """A decision of the flag server's flag that chooses no variant."""
        flag = None if self._unleash is None else self._unleash.flags.get(model)
        if flag is None or self._unleash is None:
            return None
        return Decision(reason, flag.experiment, None, None, None, propensity, self._unleash.revision)


@dataclass(frozen=True, slots=True)
class _Experiment:
    """One experiment with every decision it can lead to, made beforehand."""

    key: str
    part: float  # r
    asks: str  # the names of its flags
    twin: str | None  # None: everybody is targeted
    override: str
    overridden: frozenset[str]
    layer: str | None
    slots: tuple[str, ...]
    arms: Mapping[str, Decision]
    pinned: Mapping[str, Decision]
    not_targeted: Decision
    held: Decision
    out: Decision
    no_unit: Decision
    unknown: Decision

    @classmethod
    def of(cls, experiment: RunningExperiment, held: float, revision: int) -> _Experiment:
        key, arms = experiment.key, arms_of(experiment)
        part = taking_part(experiment) / BUCKETS
        total = sum(arm.weight for arm in arms)

        def aside(reason: DecisionReason, propensity: float | None) -> Decision:
            return Decision(reason, key, None, None, None, propensity, revision)

        def of_arm(reason: DecisionReason, arm: Variant, propensity: float | None) -> Decision:
            return Decision(reason, key, arm.name, arm.version, arm.alias, propensity, revision)

        return cls(
            key=key,
            part=part,
            asks=experiment_flag(key),
            twin=twin_flag(key) if experiment.targeting else None,
            override=override_flag(key),
            overridden=frozenset(unit for unit, _ in experiment.overrides),
            layer=None if experiment.layer is None else layer_flag(experiment.layer),
            slots=slot_names(experiment),
            arms={arm.name: of_arm(DecisionReason.EXPERIMENT, arm, (1.0 - held) * part * arm.weight / total) for arm in arms},
            pinned={arm.name: of_arm(DecisionReason.PINNED, arm, None) for arm in arms},
            not_targeted=aside(DecisionReason.NOT_TARGETED, 1.0),
            held=aside(DecisionReason.HOLDOUT, held),
            out=aside(DecisionReason.OUT_OF_ROLLOUT, (1.0 - held) * (1.0 - part)),
            no_unit=aside(DecisionReason.NO_UNIT, None),
            unknown=aside(DecisionReason.UNKNOWN_VARIANT, None),
        )

    def given(self, ask: Ask) -> Decision | None:
        """The arm's decision; None where the unit takes no part."""
        raw = ask(self.asks)
        return self.arms.get(raw.name, self.unknown) if raw is not None and raw.enabled else None

    def targets(self, ask: Ask) -> bool:
        if self.twin is None:
            return True
        raw = ask(self.twin)
        return raw is not None and raw.feature_enabled


class _Model:
    """The experiments of one model, by key: one alone, or several of one layer, of which at most one has the unit.

    A decision that is of none of several names none.
    """

    def __init__(self, experiments: Sequence[_Experiment], held: float) -> None:
        self._experiments = tuple(experiments)
        self._held = held
        self._by_slot = {slot: each for each in experiments for slot in each.slots} if len(experiments) > 1 else {}
        self._overridden = frozenset().union(*(each.overridden for each in experiments))
        first = experiments[0]
        self.no_unit, self.unknown = self._told(first.no_unit), self._told(first.unknown)
        self._not_targeted, self._is_held = self._told(first.not_targeted), self._told(first.held)

    def _told(self, decision: Decision) -> Decision:
        return decision if len(self._experiments) == 1 else replace(decision, experiment=None)

    def decide(self, unit_hash: str, ask: Ask) -> Decision:
        if unit_hash in self._overridden:
            for each in self._experiments:
                if unit_hash in each.overridden and (raw := ask(each.override)) is not None and raw.enabled:
                    return each.pinned.get(raw.name, each.unknown)
        for each in self._asked(ask):
            if (given := each.given(ask)) is not None:
                return given
        targeting = [each for each in self._experiments if each.targets(ask)]
        if not targeting:
            return self._not_targeted
        if self._held and (raw := ask(HOLDOUT)) is not None and raw.name == OUT:
            return self._is_held
        if len(self._experiments) == 1:
            return self._experiments[0].out
        share = sum(each.part for each in targeting)
        return replace(self._told(targeting[0].out), propensity=(1.0 - self._held) * (1.0 - share))

    def _asked(self, ask: Ask) -> Sequence[_Experiment]:
        """Those that may have the unit: of several, the one whose slot of the layer holds it."""
        layer = self._experiments[0].layer
        if len(self._experiments) == 1 or layer is None:
            return self._experiments
        raw = ask(layer)
        owner = None if raw is None else self._by_slot.get(raw.name)
        return () if owner is None else (owner,)
