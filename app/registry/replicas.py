"""A process among the replicas: registered while it serves, heard of every two seconds, and on record with what it serves."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import orjson
import structlog

from app.errors import Unavailable
from app.registry.effect import KEPT_DAYS, version_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from app.db.line import Line
    from app.kernel.clock import Clock
    from app.registry.life_signs import LifeSigns

HEARTBEAT_S = 2.0
_LOOK_S = 0.5  # how soon the end of another process of this machine is noticed
_AGAIN_S = 0.2
_JOIN_WITHIN_S = 5.0
_LEAVE_WITHIN_S = 1.0
_DAY_S = 86_400.0
log = structlog.get_logger()

Cold = frozenset[tuple["UUID", int]]


class Replica:
    """One a serving process. Writes over a line of its own, as the runtime role: several statements, one journey, one transaction."""

    def __init__(self, line: Line, replica_id: UUID, name: str, clock: Clock, signs: LifeSigns | None = None) -> None:
        """`signs`: by which replicas of one machine see each other end."""
        self._line = line
        self._id = replica_id
        self.name = re.sub(r"[^A-Za-z0-9._/-]", "-", name)[:200]  # it stands in SQL and before people's eyes
        self._clock = clock
        self._signs = signs
        self._told_dead: frozenset[UUID] = frozenset()
        self._joined: int | None = None  # the generation of the picture that this replica began with
        self._generation = 0
        self._news = asyncio.Event()
        self._acks: dict[UUID, tuple[int, Cold]] = {}
        self._due = 0.0  # monotonic seconds of the next heartbeat
        self._tidied: dict[UUID | None, float] = {}

    def heard(self, generation: int) -> None:
        """The picture is of this generation; written with the next heartbeat."""
        self._generation = generation

    def applied(self, tenant_id: UUID, generation: int, cold: Cold) -> None:
        """The tenant's routes of this generation serve, but for the `cold` versions; written at once."""
        self._acks[tenant_id] = (generation, cold)
        self._news.set()

    async def join(self) -> None:
        """Returns when this replica is registered. Raises Unavailable.

        Call it with the first picture taken, and look once more before the first request: a change that was committed before is in
        that look, and whoever commits a later one finds this replica in the list and waits for it.
        """
        self._joined = self._generation
        if self._signs is not None:
            self._signs.show()
        try:
            async with asyncio.timeout(_JOIN_WITHIN_S):
                while not await self._written([self._registration(), *_burials(self._dead())]):  # noqa: ASYNC110  nobody tells when the database is back
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            raise Unavailable("The database cannot register this replica.", retry_after_ms=1000) from None

    async def run(self) -> None:
        """Writes acknowledgements as they come, and heartbeats, until cancelled. What could not be written is tried again."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            acks, self._acks = self._acks, {}
            if not await self._write(acks) and acks:
                self._acks = acks | self._acks  # the newer one of a tenant stands
                await asyncio.sleep(_AGAIN_S)
                self._news.set()

    async def _write(self, acks: dict[UUID, tuple[int, Cold]]) -> bool:
        """Whether this is done with; a heartbeat goes along where one is due, for it costs as much again."""
        now = self._clock.monotonic()
        dead = self._told_dead if acks and now < self._due else self._dead()  # whoever waits for an acknowledgement waits for no folder
        is_due = now >= self._due or not dead <= self._told_dead
        beat = [self._registration(), *self._farewells(), *_burials(dead)] if is_due else []
        if not beat and not acks:
            return True
        try:
            done = await self._written([*beat, *self._acknowledgements(acks)])
        except Exception:
            self._due = 0.0
            if beat:  # nothing claimed is the safe side
                log.exception("replica_not_written")
            return bool(beat)  # else the row may be gone: once more with it
        if beat:
            self._due = now + HEARTBEAT_S / 2 if done else 0.0
        if beat and done and self._signs is not None:
            self._signs.forget(dead & self._told_dead)  # told twice: its last heartbeat may have been under way the first time
            self._told_dead = dead
        return done

    def _dead(self) -> frozenset[UUID]:
        return frozenset() if self._signs is None else self._signs.dead()

    async def leave(self) -> None:
        """Says goodbye, so that nobody waits for this replica; where the database is away its silence will say it."""
        if self._joined is None:
            return
        try:
            async with asyncio.timeout(_LEAVE_WITHIN_S):
                said = await self._written([f"update replicas set left_at = now() where replica_id = '{self._id}'"])  # noqa: S608  ours
        except TimeoutError:
            said = False
            log.warning("replica_left_unsaid")
        if said and self._signs is not None:
            self._signs.end()

    async def _written(self, statements: list[str]) -> bool:
        try:
            async with self._line.use() as connection:
                await connection.execute("; ".join(statements))
        except Unavailable:
            return False
        return True

    def _registration(self) -> str:
        """Also the heartbeat: the row is made again where it is gone."""
        return (
            "insert into replicas (replica_id, name, joined_generation, generation) "  # noqa: S608  numbers, a UUID, a name without quotes
            f"values ('{self._id}', '{self.name}', {self._joined or 0:d}, {self._generation:d}) "
            "on conflict (replica_id) do update set seen_at = now(), generation = excluded.generation, left_at = null"
        )

    def _farewells(self) -> Iterator[str]:
        """Once a day: replicas that left or fell silent so long ago that no promotion tells of them any more."""
        if self._is_due(None):
            yield f"delete from replicas where coalesce(left_at, seen_at) < now() - interval '{KEPT_DAYS + 1} days'"  # noqa: S608

    def _acknowledgements(self, acks: dict[UUID, tuple[int, Cold]]) -> Iterator[str]:
        # Nothing here but numbers and UUIDs of ours: plain text is safe, and lets several statements be one journey.
        for tenant_id, (generation, cold) in acks.items():
            listed = "'" + orjson.dumps([version_key(*key) for key in sorted(cold)]).decode() + "'" if cold else "null"
            yield f"select set_config('app.tenant_id', '{tenant_id}', true)"
            yield (
                "insert into replica_acks (tenant_id, replica_id, generation, cold) "  # noqa: S608  numbers and UUIDs of ours
                f"values ('{tenant_id}', '{self._id}', {generation:d}, {listed})"
            )
            if self._is_due(tenant_id):
                yield (  # never the newest of a replica: it tells what that serves, however long ago it was written
                    f"delete from replica_acks a where tenant_id = '{tenant_id}' and at < now() - interval '{KEPT_DAYS} days' "  # noqa: S608
                    "and exists (select from replica_acks n where n.tenant_id = a.tenant_id and n.replica_id = a.replica_id "
                    "and (n.generation, n.at) > (a.generation, a.at))"
                )

    def _is_due(self, tenant_id: UUID | None) -> bool:
        """Whether the tenant's old acknowledgements should go, or replicas long gone (None): once a day."""
        now = self._clock.monotonic()
        due = now - self._tidied.get(tenant_id, -_DAY_S) >= _DAY_S
        if due:
            self._tidied[tenant_id] = now
        return due


def _burials(dead: frozenset[UUID]) -> Iterator[str]:
    """Whoever is dead holds nothing, and is not waited for. In one order, for others write the same."""
    for replica_id in sorted(dead):
        yield f"update replicas set left_at = now() where replica_id = '{replica_id}' and left_at is null"  # noqa: S608  a UUID
