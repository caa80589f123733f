"""What flags of a flag server need from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID


class SourceTelemetry(Protocol):
    def unleash_heard(self, unix_seconds: float) -> None:
        """The flag server gave a good document, or said that nothing changed."""

    def unleash_refused(self) -> None:
        """What the flag server gave is no document."""


class KeptDocument(Protocol):
    """A file of this machine's own. Blocks, and raises nothing."""

    def read(self) -> bytes | None:
        """What was written last, by whichever process."""

    def write(self, data: bytes) -> None: ...


class ModelSight(Protocol):
    """A model as routing knows it."""

    @property
    def model_id(self) -> UUID: ...
    @property
    def aliases(self) -> Mapping[str, int]: ...


class TenantSights(Protocol):
    """Tenants and their models, from memory."""

    def tenants(self) -> Sequence[tuple[UUID, str]]:
        """(id, name) of each."""

    def models(self, tenant_id: UUID) -> Mapping[str, ModelSight]:
        """The tenant's models by name; the same object until they change."""
