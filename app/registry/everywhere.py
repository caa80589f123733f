"""Whether every replica serves a change that is about no version: a tenant's limits, its status, its revoked tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from app.registry.effect import NO_VERSION, await_effect

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

    async def served(self, tenant_id: UUID, generation: int) -> bool:
        """Whether every replica serves the tenant's change of this generation; within two seconds, or as soon as none is left to hear."""
        return (await await_effect(self._database, tenant_id, (generation, NO_VERSION))).everywhere
