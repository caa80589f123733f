"""Whether what was committed is in force at every serving process: the one place where that is waited for, and told of where it is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from sqlalchemy import text

from app.errors import Unavailable
from app.registry.effect import NO_VERSION, NOTHING_KNOWN, WAIT_S, await_effect, warn_of_missing
from app.registry.replicas import HEARTBEAT_S

if TYPE_CHECKING:
    from app.db.session import Database
    from app.registry.effect import Change, Effect
    from app.registry.ports import Announcer

_NOBODY = UUID(int=0)  # replicas are no tenant's
_HEARTBEATS_S = 2 * HEARTBEAT_S
_LOOK_S = 0.05
# As of a tenant's change: who joined with the change has it; who left counts no more, nor who was silent for ten minutes; and silence of
# three heartbeats means that waiting is of no use.
_PICTURES = text("""
    select name, greatest(joined_generation, generation) >= :generation as has, seen_at < now() - interval '6 seconds' as silent
    from replicas where left_at is null and seen_at > now() - interval '10 minutes' order by name, replica_id
""")
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
        known, _ = await asyncio.gather(await_effect(self._database, tenant_id, change), self.caught_up(tenant_id))
        return known

    async def in_force(self, tenant_id: UUID | None, generation: int) -> None:
        """Returns when every replica serves a change that is about no version; after two seconds, with a line in the log that names
        who has not said that it does. None: a change for all tenants, which takes a heartbeat to be heard of, and four seconds at most.
        """
        if tenant_id is not None:
            warn_of_missing(tenant_id, await self.effect_of(tenant_id, (generation, NO_VERSION)))
            return
        missing, _ = await asyncio.gather(self._behind(generation), self.caught_up())
        if missing:
            log.warning("a change is not heard of by every replica", tenant_id=None, replicas=missing)

    async def _behind(self, generation: int) -> tuple[str, ...]:
        """Names of the replicas whose picture is older than this, once there is none, or none that is likely to say more, or no time.

        Acknowledgements are a tenant's. But each heartbeat says of which generation the whole picture is.
        """
        loop = asyncio.get_running_loop()
        end, known = loop.time() + _HEARTBEATS_S, None
        while True:
            try:
                async with self._database.tenant_tx(_NOBODY) as session:
                    known = (await session.execute(_PICTURES, {"generation": generation})).all()
            except Unavailable:  # as of a tenant's change: it is committed, and what is known of it is no reason to fail
                pass
            behind = [row for row in known or () if not row.has]
            if (known is not None and all(row.silent for row in behind)) or loop.time() + _LOOK_S > end:
                return tuple(row.name for row in behind) if known else NOTHING_KNOWN.missing
            await asyncio.sleep(_LOOK_S)
