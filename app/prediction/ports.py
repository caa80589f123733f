"""What prediction needs from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import builtins
    from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from uuid import UUID

    from app.errors import AppError
    from app.experiments.types import Decision, RunningExperiment
    from app.experiments.unleash.types import UnleashDocument
    from app.journal.types import Durability, InputRecord, PredictionRecord, ShadowRecord
    from app.kernel.clock import Deadline
    from app.prediction.flags import ServedFlags
    from app.prediction.pool import Key
    from app.registry.types import PendingValidation, VersionRoute


class Journal(Protocol):
    """Where each answer is written before it is given."""

    def check_room(self, durability: Durability) -> None:
        """Returns where there is room for a record; raises LogUnavailable."""

    def append(
        self, record: PredictionRecord | InputRecord, durability: Durability, deadline: Deadline | None = None
    ) -> Awaitable[None] | None:
        """Awaited, returns when the record is as safe as `durability` says; None: it is. Raises LogUnavailable, DeadlineExceeded."""


class FlagTelemetry(Protocol):
    def flag_fallback(self, reason: str) -> None:
        """One request that its variant could not answer, and production did: "missing", "not_open", "unusable" or "failed"."""

    def flags_refused(self) -> None:
        """One tenant's new flags could not be used; those from before decide."""


class BreakerTelemetry(Protocol):
    def breaker(self, state: str, not_closed: int) -> None:
        """One breaker that became "CLOSED", "OPEN" or "HALF_OPEN"; and how many are not closed now."""


class FallbackTelemetry(Protocol):
    def fallback(self, kind: str, outcome: str) -> None:
        """One request whose version failed: its model's kind of fallback, and "answered", "failed" or "missing"."""


class PredictionTelemetry(FlagTelemetry, BreakerTelemetry, FallbackTelemetry, Protocol):
    def prediction(self, *, tenant: str, model: str, version: int, seconds: float, rows: int, runtime: str) -> None: ...


class StateKeeper(Protocol):
    """Who writes down what this machine serves by when its database is away. Waits for nothing."""

    def confirmed(self, generation: int) -> None:
        """The database said, just now, that this is the newest generation."""

    def another_database(self) -> None:
        """What answers may be another server than before: its past is compared."""


class UnleashShares(Protocol):
    """What a flag server says, tenant by tenant, read from memory."""

    def of_tenant(self, tenant: str) -> UnleashDocument | None:
        """The tenant's share, by the tenant's name; the same object until the document changes. None: no document yet."""


class BuiltFlags(Protocol):
    """A tenant's flags, ready to decide."""

    @property
    def needed(self) -> frozenset[tuple[str, int]]:
        """(model, number) of the versions that they may choose, or that are asked beside."""

    @property
    def problems(self) -> Sequence[object]:
        """What is wrong with some of them, and does not keep the others from deciding."""

    def prove(self) -> None:
        """Returns where they decide as they are written for all fixed units; takes milliseconds. Raises FlagsRefused."""

    def decide(self, model: str, unit_hash: str | None, attributes: Mapping[str, str] | None) -> Decision | None:
        """None where no flag concerns the model."""


class FlagBuild(Protocol):
    def __call__(
        self,
        tenant_name: str,
        running: Sequence[RunningExperiment],
        holdout_percent: float,
        revision: int,
        unleash: UnleashDocument | None,
        shared_flags: bool,
        /,
    ) -> BuiltFlags:
        """The tenant's flags, tested on a few fixed units; raises FlagsRefused."""


class FlagMaker(Protocol):
    """Each tenant's flags; raises nothing."""

    def of(self, tenant_id: UUID, running: Iterable[RunningExperiment], generation: int) -> ServedFlags | None:
        """The tenant's flags now that these experiments run, as of this generation; None where it has none."""

    def newest(self, tenant_id: UUID) -> ServedFlags | None:
        """The tenant's flags as they were built last; None where it has none."""

    def again(self) -> list[tuple[UUID, ServedFlags | None]]:
        """The tenants whose flags are others now that the flag server said something new."""

    @property
    def proved(self) -> bool:
        """Whether no flags wait for `prove`."""

    def prove(self) -> list[tuple[UUID, ServedFlags | None]]:
        """Tests new flags of a few tenants on all fixed units; whose did not pass, and those from before that decide again."""


class ShadowTelemetry(Protocol):
    def shadow(self, kind: str, outcome: str) -> None:
        """One answer that was to be given beside another: its kind, and what became of it."""


class ShadowJournal(Protocol):
    """Where what shadows say is written, beside the answers."""

    def check_room(self, durability: Durability) -> None:
        """Returns where there is room for a record; raises LogUnavailable."""

    def append_now(self, record: ShadowRecord, durability: Durability) -> None:
        """Returns when the record is as safe as `durability` says; raises LogUnavailable."""


class LiveProofTelemetry(Protocol):
    def live_proof(self, outcome: str) -> None:
        """One compiled answer that was to be compared: "equal", "mismatch", "failed" or "dropped"."""


class Mismatches(Protocol):
    async def record(self, tenant_id: UUID, model_id: UUID, number: int, digest: str, found: str) -> None:
        """Takes note that the version's graph `digest` answered otherwise than its estimator, and has it served natively."""


class CompiledGraphs(Protocol):
    async def bytes(self, tenant_id: UUID, digest: str) -> builtins.bytes:
        """The compiled graph, its bytes checked against digest and seal; raises ModelUnavailable, or Unavailable."""


class UnderWay(Protocol):
    def under_way(self, tenant_id: UUID) -> AbstractContextManager[None]:
        """One prediction of the tenant while it lasts; entering raises RateLimited where too many are under way already."""


class RowBudget(UnderWay, Protocol):
    def charge(self, tenant_id: UUID, rows: int) -> Awaitable[None] | None:
        """Counts `rows` against the tenant's day; raises QuotaExceeded. None: done, and nothing to wait for."""


class Models(Protocol):
    """The runtimes of this process, as the picture needs them."""

    def opened(self, tenant_id: UUID, route: VersionRoute) -> object | None:
        """None where the version is not open."""

    async def warm(self, tenant_id: UUID, routes: Collection[VersionRoute]) -> list[tuple[VersionRoute, AppError]]:
        """Those that could not be opened, and why."""

    def share_of(self, routes: Iterable[VersionRoute]) -> float:
        """Which part of the memory for models these versions would take."""

    def shut(self, tenant_id: UUID) -> None:
        """Has every version of the tenant closed, soon."""

    def keep(self, needed: frozenset[Key], of: Collection[UUID]) -> None:
        """From now on these tenants need these versions, which stay open while they fit."""


class Validations(Protocol):
    def consider(self, pending: Collection[PendingValidation]) -> None:
        """Takes note of versions that wait for validation."""
