"""One tenant's share of a flag server's document, out of the raw one. Pure.

Strategies are read one by one, so that one with a flaw leaves the others of the flag alone: the evaluator would let nobody in by it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from app.errors import InvalidInput
from app.experiments.flags.checking import problems_of
from app.experiments.flags.document import DEFAULT, USER_WITH_ID, Choice, Document, Flag, Parent, Strategy
from app.experiments.flags.reading import read_features
from app.experiments.types import UNLEASH_PREFIX
from app.experiments.unleash.payloads import arms_of, places_of, target_of, written
from app.experiments.unleash.tenants import Unreadable, holds, is_on_tenant
from app.experiments.unleash.types import Target, UnleashDocument, UnleashFlag
from app.kernel.names import MAX_NAME, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_OF_MODEL = MAX_NAME - len(UNLEASH_PREFIX) - 9  # of a long name, before a hyphen and eight hexadecimal digits
_TWIN = "turnout:holds:"  # no flag server takes a colon in a flag's name
_IN_STRATEGY = re.compile(r"strategies\[0\]\.?")


class Whole(Protocol):
    """The document that is shared out."""

    @property
    def revision(self) -> int: ...
    @property
    def shared_flags(self) -> bool: ...

    def models_of(self, tenant: str) -> list[tuple[str, Mapping[str, Any]]]: ...

    def candidates(self, feature: Mapping[str, Any], tenant: str) -> list[tuple[int, Any]]: ...

    def feature(self, name: str) -> Mapping[str, Any] | None: ...

    def constraints(self, strategy: Mapping[str, Any]) -> list[Any]: ...


def experiment_key(model: str) -> str:
    """The key of the experiment that the flag of this model gives birth to: "unleash-churn"; of a long name the beginning and a digest."""
    key = UNLEASH_PREFIX + model
    if len(key) <= MAX_NAME:
        return key
    return f"{UNLEASH_PREFIX}{model[:_KEPT_OF_MODEL].rstrip('-')}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def dependencies_of(feature: Mapping[str, Any]) -> tuple[Parent, ...]:
    """The parents that the raw feature names; those that are not of the right form have an empty name, which no flag has."""
    found = feature.get("dependencies") or []
    return tuple(_parent_of(each) for each in found) if isinstance(found, list) else (Parent(""),)


def share_of(whole: Whole, tenant: str) -> UnleashDocument:
    """The tenant's share; without flags where none concerns it."""
    return _Share(whole, tenant).made()


class _Share:
    """One share in the making."""

    def __init__(self, whole: Whole, tenant: str) -> None:
        self._whole, self._tenant = whole, tenant
        self._problems: list[str] = []
        self._read_before: dict[str, Flag | None] = {}
        self._twins: dict[tuple[Any, ...], Flag] = {}

    def made(self) -> UnleashDocument:
        flags: dict[str, UnleashFlag] = {}
        for model, feature in self._whole.models_of(self._tenant):
            try:
                check_name("model", model)
            except InvalidInput:
                continue  # said of the whole document
            if (flag := self._read(feature)) is not None:
                flags[model] = self._flag(model, flag, feature)
        self._drop_refused(flags)
        every = {each.name: each for flag in flags.values() for each in flag.parents.values()}
        every |= {flag.flag.name: flag.flag for flag in flags.values()}  # one may be another's parent: then with its payloads
        features = (*every.values(), *self._twins.values())
        return UnleashDocument(self._tenant, Document(self._whole.revision, features), flags, tuple(self._problems))

    def _drop_refused(self, flags: dict[str, UnleashFlag]) -> None:
        """What reading piece by piece could not see: too many strategies, say. One such flag would refuse all of the tenant's."""
        for model, flag in list(flags.items()):
            if found := problems_of([flag.flag, *flag.parents.values()]):
                del flags[model]
                for problem in found:
                    self._report(flag.flag.name, f"{problem.field} {problem.text}")

    def _flag(self, model: str, flag: Flag, feature: Mapping[str, Any]) -> UnleashFlag:
        flag, parents = self._with_parents(replace(flag, parents=dependencies_of(feature)))
        places = list(places_of(flag))
        targets = {place: self._target(flag.name, choice) for place, choice in places}
        arms, unclear = arms_of(flag, targets)
        for problem in unclear:
            self._report(flag.name, problem)
        if not flag.choices and not all(strategy.choices for strategy in flag.strategies or (Strategy(DEFAULT),)):
            self._report(flag.name, "lets units in without a variant to give them: they get what is in production.")
        rollout = float(max((strategy.rollout for strategy in flag.strategies), default=100))
        twins = dict(self._twins_of(flag, *parents.values()))
        return UnleashFlag(
            model, experiment_key(model), _placed(flag), parents, targets, twins, rollout, arms, tuple(sorted(set(twins.values())))
        )

    def _with_parents(self, flag: Flag) -> tuple[Flag, dict[str, Flag]]:
        """The flag and its parents for this tenant; off, without parents, where the evaluator would find it off for everybody."""
        parents: dict[str, Flag] = {}
        for parent in flag.parents:
            feature = self._whole.feature(parent.flag)
            if feature is None:
                continue  # the check tells
            read = self._read(feature)
            if read is None and parent.enabled:
                self._report(flag.name, f"depends on {parent.flag[:80]!r}, no strategy of which names this tenant: the flag is off.")
                return replace(flag, enabled=False, parents=()), {}
            read = read or Flag(parent.flag, enabled=False)  # without strategies it would be on for everybody
            parents[parent.flag] = replace(read, parents=dependencies_of(feature))
        found = [problem for problem in problems_of([flag, *parents.values()]) if problem.flag == flag.name]
        for problem in found:
            self._report(flag.name, f"{problem.field} {problem.text}")
        if found:
            return replace(flag, enabled=False, parents=()), {}
        return flag, parents

    def _target(self, flag: str, choice: Choice) -> Target:
        target, wrong = target_of(choice)
        if wrong is not None:
            self._report(flag, f"variant {choice.name[:60]!r} {wrong}" if wrong.startswith("has") else wrong)
        return target

    def _read(self, feature: Mapping[str, Any]) -> Flag | None:
        """The flag with those strategies that concern the tenant; None where none does, or where it cannot be read. Without parents."""
        name = str(feature["name"])
        if name not in self._read_before:
            self._read_before[name] = self._read_now(name, feature)
        return self._read_before[name]

    def _read_now(self, name: str, feature: Mapping[str, Any]) -> Flag | None:
        strategies = tuple(self._strategies(name, feature))
        for_everybody = not feature.get("strategies") and self._whole.shared_flags
        if not strategies and not for_everybody:
            return None
        reading = read_features([{key: feature.get(key) for key in ("name", "enabled", "variants")}])
        for problem in reading.problems:
            self._report(name, f"{problem.field} {problem.text}")
        return replace(reading.flags[0], strategies=strategies) if reading.flags else None

    def _strategies(self, name: str, feature: Mapping[str, Any]) -> Iterator[Strategy]:
        """Those that may hold for the tenant, without their conditions on it."""
        for number, strategy in self._whole.candidates(feature, self._tenant):
            try:
                if (kept := self._concerning(strategy)) is None:
                    continue
            except Unreadable as error:
                self._report(name, f"strategies[{number}] {error}")
                continue
            reading = read_features([{"name": name, "enabled": True, "strategies": [kept]}])
            for problem in reading.problems:
                field = _IN_STRATEGY.sub("", problem.field)
                self._report(name, f"strategies[{number}]{'.' if field else ''}{field} {problem.text}")
            for flag in reading.flags:
                yield replace(flag.strategies[0], group_id=flag.strategies[0].group_id or name)

    def _concerning(self, strategy: Any) -> dict[str, Any] | None:
        if not isinstance(strategy, Mapping):
            raise Unreadable("is no object.")
        constraints = self._whole.constraints(strategy)
        on_tenant = [each for each in constraints if is_on_tenant(each)]
        concerns = all(holds(each, self._tenant) for each in on_tenant) and (on_tenant or self._whole.shared_flags)
        if not concerns or strategy.get("disabled") is True:
            return None
        return {**strategy, "constraints": [each for each in constraints if not is_on_tenant(each)], "segments": []}

    def _twins_of(self, *flags: Flag) -> Iterator[tuple[tuple[str, int], str]]:
        for flag in flags:
            for number, strategy in enumerate(flag.strategies):
                if strategy.constraints or strategy.name == USER_WITH_ID:
                    yield (flag.name, number), self._twin(strategy)

    def _twin(self, strategy: Strategy) -> str:
        """A flag that is on where the strategy's conditions hold, whatever its rollout: one for all strategies with the same ones."""
        kind = USER_WITH_ID if strategy.name == USER_WITH_ID else DEFAULT
        key = (kind, strategy.constraints, strategy.user_ids)
        if key not in self._twins:
            alone = Strategy(kind, constraints=strategy.constraints, user_ids=strategy.user_ids)
            self._twins[key] = Flag(f"{_TWIN}{len(self._twins)}", strategies=(alone,))
        return self._twins[key].name

    def _report(self, flag: str, text: str) -> None:
        sentence = f"Flag {flag[:200]!r}: {text}"
        if sentence not in self._problems:
            self._problems.append(sentence)


def _placed(flag: Flag) -> Flag:
    """The flag with each choice's place for a payload."""

    def placed(choices: tuple[Choice, ...], strategy: int) -> tuple[Choice, ...]:
        return tuple(replace(choice, payload=written((strategy, n)), payload_type="json") for n, choice in enumerate(choices))

    strategies = tuple(replace(each, choices=placed(each.choices, number)) for number, each in enumerate(flag.strategies))
    return replace(flag, strategies=strategies, choices=placed(flag.choices, -1))


def _parent_of(raw: Any) -> Parent:
    if not isinstance(raw, Mapping):
        return Parent("")
    name, enabled, choices = raw.get("feature"), raw.get("enabled"), raw.get("variants") or []
    if not isinstance(name, str) or not isinstance(enabled, bool | None) or not isinstance(choices, list):
        return Parent("")
    if not all(isinstance(choice, str) for choice in choices):
        return Parent("")
    return Parent(name, enabled is not False, tuple(choices))
