"""All serving processes, as rooms that change what they serve know them; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uuid import UUID


class Replicas(Protocol):
    """Told and asked after a commit. The change is committed whatever they say: neither raises for what a database or a replica does."""

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call; bounded."""

    async def in_force(self, tenant_id: UUID | None, generation: int) -> None:
        """Returns when this process and every replica that is heard of serve the tenant's change of this generation; None: a change
        for all tenants.

        Within two seconds, or four for all tenants: then a line in the log names who has not said that it does.
        """
