"""Each tenant's flags in this process: built beside the answering loop when something about them changed, and kept where new ones are
refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.experiments.flags.document import FlagsRefused
from app.experiments.unleash.wanting import control_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from app.experiments.types import Decision, RunningExperiment, Variant
    from app.experiments.unleash.types import UnleashDocument
    from app.prediction.ports import BuiltFlags, FlagBuild, FlagTelemetry, UnleashShares
    from app.prediction.routing import RoutingTable
    from app.registry.types import ModelRoute
    from app.tenancy.directory import TenantDirectory

_PROVED_AT_ONCE = 5  # tenants; some milliseconds each, of a thread that hears of changes
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Beside:
    """Who is asked off the caller's time about an experiment's answers."""

    arms: tuple[Variant, ...]
    shadows: tuple[Variant, ...]
    declared: Variant | None  # the control, where the experiment says which it is

    @classmethod
    def of(cls, variants: Sequence[Variant]) -> Beside:
        arms = tuple(each for each in variants if not each.shadow)
        shadows = tuple(each for each in variants if each.shadow)
        return cls(arms, shadows, next((each for each in arms if each.control), None))

    def control(self, model: ModelRoute) -> Variant:
        """Of an experiment of the service the declared one; of a flag server's it may be whoever is in production."""
        return self.declared or control_of(self.arms, model)


@dataclass(frozen=True, slots=True)
class ServedFlags:
    """A tenant's flags as requests read them. `needed`: (model, number) of the versions that they may choose or ask beside."""

    decide: Callable[[str, str | None, Mapping[str, str] | None], Decision | None]
    beside: Mapping[str, Beside]  # by experiment
    needed: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class _Given:
    """All that a tenant's flags follow from."""

    tenant: str
    holdout_percent: float
    running: tuple[RunningExperiment, ...]
    document: UnleashDocument | None

    def is_as(self, other: _Given) -> bool:
        """A flag server's newer document says nothing new to most tenants."""
        mine, theirs = self.document, other.document
        alike = mine is theirs or (
            mine is not None and theirs is not None and (mine.document.flags, mine.flags) == (theirs.document.flags, theirs.flags)
        )
        return alike and (self.tenant, self.holdout_percent, self.running) == (other.tenant, other.holdout_percent, other.running)


@dataclass(slots=True)
class _Kept:
    running: tuple[RunningExperiment, ...] = ()
    generation: int = 0
    given: _Given | None = None  # of `flags`
    flags: ServedFlags | None = None
    refused: _Given | None = None  # what the last refusal was about
    unproved: BuiltFlags | None = None  # `flags`, where they were tested on few units as yet
    before: tuple[_Given | None, ServedFlags | None] = (None, None)  # what decided before those


class FlagBook:
    """Of all tenants; one a serving process, for the thread that follows the picture. `unleash`: None without a flag server."""

    def __init__(
        self,
        directory: TenantDirectory,
        build: FlagBuild,
        telemetry: FlagTelemetry,
        unleash: UnleashShares | None = None,
        *,
        shared_flags: bool = False,
    ) -> None:
        self._directory = directory
        self._make = build
        self._telemetry = telemetry
        self._unleash = unleash
        self._shared_flags = shared_flags
        self._kept: dict[UUID, _Kept] = {}
        self._unproved: set[UUID] = set()

    def of(self, tenant_id: UUID, running: Iterable[RunningExperiment], generation: int) -> ServedFlags | None:
        """The tenant's flags now that these experiments run, as of this generation; None where it has none.

        Where they cannot be built, those from before.
        """
        kept = self._kept.setdefault(tenant_id, _Kept())
        kept.running, kept.generation = tuple(running), generation
        return self._renewed(tenant_id, kept)

    def newest(self, tenant_id: UUID) -> ServedFlags | None:
        """The tenant's flags as they were built last; None where it has none."""
        kept = self._kept.get(tenant_id)
        return None if kept is None else kept.flags

    def again(self) -> list[tuple[UUID, ServedFlags | None]]:
        """The tenants whose flags are others now that the flag server said something new."""
        changed = []
        for tenant_id, kept in self._kept.items():
            before = kept.flags
            if self._renewed(tenant_id, kept) is not before:
                changed.append((tenant_id, kept.flags))
        return changed

    @property
    def proved(self) -> bool:
        """Whether no flags wait for `prove`."""
        return not self._unproved

    def prove(self) -> list[tuple[UUID, ServedFlags | None]]:
        """Tests new flags of a few tenants on all fixed units; whose did not pass, and those from before that decide again."""
        back = []
        for tenant_id in list(self._unproved)[:_PROVED_AT_ONCE]:
            self._unproved.discard(tenant_id)
            kept = self._kept[tenant_id]
            built, kept.unproved = kept.unproved, None
            if built is None or kept.given is None:
                continue
            try:
                built.prove()
            except FlagsRefused as refused:
                self._refuse(kept.given, kept, refused)
                kept.given, kept.flags = kept.before
                back.append((tenant_id, kept.flags))
        return back

    def _renewed(self, tenant_id: UUID, kept: _Kept) -> ServedFlags | None:
        given = self._given(tenant_id, kept.running)
        if given is None:
            kept.given = kept.flags = kept.refused = kept.unproved = None
        elif (kept.given is None or not given.is_as(kept.given)) and (kept.refused is None or not given.is_as(kept.refused)):
            self._build(given, kept)
            if kept.unproved is not None:
                self._unproved.add(tenant_id)
        return kept.flags

    def _build(self, given: _Given, kept: _Kept) -> None:
        try:
            built = self._make(given.tenant, given.running, given.holdout_percent, kept.generation, given.document, self._shared_flags)
        except FlagsRefused as refused:
            self._refuse(given, kept, refused)
            return
        if kept.unproved is None:
            kept.before = (kept.given, kept.flags)
        kept.given, kept.refused, kept.flags, kept.unproved = given, None, _served(given, built), built
        if built.problems:
            log.warning("flags_with_problems", tenant=given.tenant, problems=built.problems)

    def _refuse(self, given: _Given, kept: _Kept, refused: FlagsRefused) -> None:
        kept.refused = given  # not again for each look, and not said again
        self._telemetry.flags_refused()
        log.error("flags_refused", tenant=given.tenant, why=refused.message)

    def _given(self, tenant_id: UUID, running: tuple[RunningExperiment, ...]) -> _Given | None:
        entry = self._directory.by_id(tenant_id)
        if entry is None:
            return None
        tenant = entry.tenant
        document = None if self._unleash is None else self._unleash.of_tenant(tenant.id)
        if document is not None and not document.flags:
            document = None
        if not running and document is None:
            return None
        return _Given(tenant.id, tenant.settings.holdout_percent, running, document)


class KnownModels:
    """Tenants and their models as this process knows them, for whoever makes experiments of a flag server's flags."""

    def __init__(self, directory: TenantDirectory, table: RoutingTable) -> None:
        self._directory, self._table = directory, table

    def tenants(self) -> Sequence[tuple[UUID, str]]:
        """(id, name) of each."""
        return [(entry.tenant.tenant_id, entry.tenant.id) for entry in self._directory.entries()]

    def models(self, tenant_id: UUID) -> Mapping[str, ModelRoute]:
        """The tenant's models by name; the same object until they change."""
        return self._table.tenant(tenant_id).models


def _served(given: _Given, built: BuiltFlags) -> ServedFlags:
    beside = {experiment.key: Beside.of(experiment.variants) for experiment in given.running}
    if given.document is not None:
        beside |= {flag.experiment: Beside.of(flag.variants) for flag in given.document.flags.values() if flag.variants}
    return ServedFlags(built.decide, beside, built.needed)
