"""What prediction needs from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import builtins
    from collections.abc import Collection
    from uuid import UUID

    from app.errors import AppError
    from app.journal.types import Durability, PredictionRecord
    from app.prediction.pool import Key
    from app.registry.types import PendingValidation, VersionRoute


class Journal(Protocol):
    """Where each answer is written before it is given."""

    def check_room(self, durability: Durability) -> None:
        """Returns where there is room for a record; raises LogUnavailable."""

    async def append(self, record: PredictionRecord, durability: Durability) -> None:
        """Returns when the record is as safe as `durability` says; raises LogUnavailable."""


class PredictionTelemetry(Protocol):
    def prediction(self, *, tenant: str, model: str, version: int, seconds: float, rows: int, runtime: str) -> None: ...


class LiveProofTelemetry(Protocol):
    def live_proof(self, outcome: str) -> None:
        """One compiled answer that was to be compared: "equal", "mismatch", "failed" or "dropped"."""


class Mismatches(Protocol):
    async def record(self, tenant_id: UUID, model_id: UUID, number: int, digest: str, found: str) -> None:
        """Takes note that the version's graph `digest` answered otherwise than its estimator, and has it served natively."""


class CompiledGraphs(Protocol):
    async def bytes(self, tenant_id: UUID, digest: str) -> builtins.bytes:
        """The compiled graph, its bytes checked against digest and seal; raises ModelUnavailable, or Unavailable."""


class RowBudget(Protocol):
    def charge(self, tenant_id: UUID, rows: int) -> None:
        """Counts `rows` against the tenant's day; raises QuotaExceeded."""


class Models(Protocol):
    """The runtimes of this process, as the picture needs them."""

    def opened(self, tenant_id: UUID, route: VersionRoute) -> object | None:
        """None where the version is not open."""

    async def warm(self, tenant_id: UUID, routes: Collection[VersionRoute]) -> list[tuple[VersionRoute, AppError]]:
        """Those that could not be opened, and why."""

    def keep(self, needed: frozenset[Key]) -> None:
        """From now on these versions stay open while they fit."""


class Validations(Protocol):
    def consider(self, pending: Collection[PendingValidation]) -> None:
        """Takes note of versions that wait for validation."""
