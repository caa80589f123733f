"""Whether every replica serves a change that is about no version: a tenant's limits, its status, its revoked tokens, its experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from app.registry.effect import NO_VERSION, await_effect, warn_of_missing

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database


class _Announcer(Protocol):
    async def caught_up(self, tenant_id: UUID | None = None) -> None: ...


class Everywhere:
    """`here`: this process's own picture."""

    def __init__(self, database: Database, here: _Announcer) -> None:
        self._database, self._here = database, here

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call; bounded."""
        await self._here.caught_up(tenant_id)

    async def unheard(self, tenant_id: UUID, generation: int) -> tuple[str, ...]:
        """Names of the replicas that do not serve the tenant's change of this generation; empty where each says that it does.

        Within two seconds, or as soon as none is left to hear.
        """
        return (await await_effect(self._database, tenant_id, (generation, NO_VERSION))).missing

    async def in_force(self, tenant_id: UUID, generation: int) -> None:
        """Returns when every replica serves the change; after two seconds, with a line in the log, where one does not say so."""
        known = await await_effect(self._database, tenant_id, (generation, NO_VERSION))
        if not known.applied_by:  # no replica is on record, this one neither: at least it serves what it answers
            await self._here.caught_up(tenant_id)
        warn_of_missing(tenant_id, known)
