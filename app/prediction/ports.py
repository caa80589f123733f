"""What prediction needs from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from app.journal.types import Durability, PredictionRecord


class Journal(Protocol):
    """Where each answer is written before it is given."""

    def check_room(self, durability: Durability) -> None:
        """Returns where there is room for a record; raises LogUnavailable."""

    async def append(self, record: PredictionRecord, durability: Durability) -> None:
        """Returns when the record is as safe as `durability` says; raises LogUnavailable."""


class PredictionTelemetry(Protocol):
    def prediction(self, *, tenant: str, model: str, version: int, seconds: float, rows: int, runtime: str) -> None: ...


class RowBudget(Protocol):
    def charge(self, tenant_id: UUID, rows: int) -> None:
        """Counts `rows` against the tenant's day; raises QuotaExceeded."""
