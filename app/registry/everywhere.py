"""Whether what was committed is in force at every serving process: the one place where that is waited for, and told of where it is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from app.errors import Unavailable
from app.registry.effect import NO_VERSION, WAIT_S, await_effect, await_pictures, warn_of_missing
from app.registry.replicas import HEARTBEAT_S

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database
    from app.registry.effect import Change, Effect
    from app.registry.ports import Announcer

_HEARTBEATS_S = 2 * HEARTBEAT_S
log = structlog.get_logger()


class Everywhere:
    """One a process. `here`: this process's own picture. Source: app.kernel.replicas.Replicas, what other rooms know of it."""

    def __init__(self, database: Database, here: Announcer) -> None:
        self._database, self._here = database, here

    def wake(self) -> None:
        """Have this process look soon, and wait for nobody."""
        self._here.wake()

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call; of one tenant where it is named.

        After two seconds, with a line in the log, where it cannot just now: the change is committed, and the next look finds it.
        """
        try:
            async with asyncio.timeout(WAIT_S):  # a refresh may have other tenants' models to load
                await self._here.caught_up(tenant_id)
        except (Unavailable, TimeoutError) as error:
            log.warning("the picture was not refreshed after a change", error=type(error).__name__)

    async def effect_of(self, tenant_id: UUID, change: Change) -> Effect:
        """What is known of the change once this process has caught up, and every replica serves it or the two seconds are over.

        The process does not rely on its own acknowledgement: where that cannot be written, nobody waits for it, and yet whoever asks
        this process next must be answered by the change.
        """
        here = asyncio.create_task(self.caught_up(tenant_id))
        known, _ = await asyncio.gather(await_effect(self._database, tenant_id, change, here=here), here)
        return known

    async def in_force(self, tenant_id: UUID | None, generation: int) -> None:
        """Returns when every replica serves a change that is about no version; after two seconds, with a line in the log that names
        who has not said that it does. None: a change for all tenants, which takes a heartbeat to be heard of, and four seconds at most.
        """
        if tenant_id is None:
            known, _ = await asyncio.gather(await_pictures(self._database, generation, _HEARTBEATS_S), self.caught_up())
        else:
            known = await self.effect_of(tenant_id, (generation, NO_VERSION))
        warn_of_missing(tenant_id, known)
