"""What the experiments need from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


class VersionLookup(Protocol):
    """What the registry knows of a model's versions, told inside the caller's transaction."""

    async def hold(self, session: AsyncSession, tenant_id: UUID, model: str) -> UUID:
        """The model's id, nobody else changing the model or its experiments until the transaction ends; raises NotFound."""

    async def refusals(self, session: AsyncSession, tenant_id: UUID, model: str, control: int, others: Collection[int]) -> list[str]:
        """A sentence for each reason why a version cannot take part; raises NotFound for one that is not there.

        Each must be READY and take what the callers of `control` send, and `control` what those of the alias `production` send.
        """


class UnitHashes(Protocol):
    """The tenant's pseudonyms of units: all that experiments ever keep of a unit."""

    def unit_hash(self, tenant_id: UUID, unit: str) -> str: ...


class OutcomeWindows(Protocol):
    """For how many days after its first exposure a unit's outcomes count; the tenant's setting. Raises NotFound."""

    def outcome_window_days(self, tenant_id: UUID) -> int: ...


class PredictionIds(Protocol):
    """Whether the tenant's own key made a prediction's id: forged and foreign ones alike are not. Raises NotFound."""

    def is_own(self, tenant_id: UUID, prediction_id: UUID) -> bool: ...


class ClassesLookup(Protocol):
    """The classes of a model version, as text and in the estimator's order; None for a regressor. Raises NotFound."""

    async def classes(self, session: AsyncSession, tenant_id: UUID, model: str, version: int) -> tuple[str, ...] | None: ...
