"""Which replicas serve a change: asked of what they wrote down, never guessed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Uuid, bindparam, column, text

from app.db.statement import Statement
from app.errors import Unavailable
from app.registry.types import ReplicaAck

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.reading import Reading
    from app.db.session import Database
    from app.registry.types import Promotion

WAIT_S = 2.0
KEPT_DAYS = 30  # how long acknowledgements are kept, and so how long a promotion can name who served it, and since when
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.002, 0.05
_NOT_SAID = ("unknown",)  # where no replica is on record, or the database did not say
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Effect:
    """What is known of a change. `hopeless`: nobody who is missing has been heard of lately, so waiting longer is of no use."""

    applied_by: tuple[ReplicaAck, ...]
    everywhere: bool
    hopeless: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the replicas that have not said that they serve it; empty where it is everywhere."""
        return () if self.everywhere else tuple(ack.replica for ack in self.applied_by if ack.applied_at is None) or _NOT_SAID


Change = tuple[int, str]  # generation, and the version that must be loaded; NO_VERSION where none must
NO_VERSION = ""
NOTHING_KNOWN = Effect((), everywhere=False, hopeless=False)

# A replica counts for a change where it joined before it; one that joined later began with it. One that has left, or was silent for
# ten minutes, counts where it did serve the change. Silence of three heartbeats: stopped, cut off or dead.
_EFFECT = Statement(
    text("""
    with change as (select unnest(cast(:generations as bigint[])) as generation, unnest(cast(:versions as text[])) as version)
    select c.generation, c.version, r.name, a.at, r.seen_at < now() - interval '6 seconds' as silent
    from change c join replicas r on r.joined_generation < c.generation
    left join lateral (
      select at from replica_acks a
      where a.tenant_id = :tenant_id and a.replica_id = r.replica_id and a.generation >= c.generation
        and (a.cold is null or not a.cold ? c.version)
      order by a.generation, a.at limit 1) a on true
    where a.at is not null or (r.left_at is null and r.seen_at > now() - interval '10 minutes')
    order by r.name, r.replica_id
""")
    .bindparams(bindparam("tenant_id", type_=Uuid()))
    .columns(*map(column, ("generation", "version", "name", "at", "silent")))
)
# A change for all tenants is acknowledged by nobody, but each heartbeat says of which generation the whole picture is.
_PICTURES = Statement(
    text("""
    select name, case when greatest(joined_generation, generation) >= :generation then seen_at end as at,
      seen_at < now() - interval '6 seconds' as silent
    from replicas where left_at is null and seen_at > now() - interval '10 minutes' order by name, replica_id
""")
    .bindparams(bindparam("generation", type_=BigInteger()))
    .columns(*map(column, ("name", "at", "silent")))
)
_NOBODY = UUID(int=0)  # replicas are no tenant's
_LIVE = Statement(
    text("select exists (select 1 from replicas where left_at is null and seen_at > now() - interval '10 minutes') as anybody").columns(
        column("anybody")
    )
)


def version_key(model_id: UUID, number: int) -> str:
    """A version as acknowledgements name it."""
    return f"{model_id}:{number}"


def change_of(promotion: Promotion) -> Change | None:
    """The change to ask for; None where its generation was not written down."""
    return None if promotion.generation is None else (promotion.generation, version_key(promotion.model_id, promotion.version))


def told(promotion: Promotion, known: Effect) -> Promotion:
    """The promotion with what is known of its effect."""
    return replace(promotion, applied_by=known.applied_by, applied_everywhere=known.everywhere)


async def of_promotions(session: AsyncSession, tenant_id: UUID, promotions: Collection[Promotion], now: datetime) -> list[Promotion]:
    """The promotions with what is known of them.

    One older than acknowledgements are kept names nobody: who began to serve it, and when, is forgotten. It is everywhere where each
    replica of today began with it, or said that it serves it or a later change: each one's newest acknowledgement is kept.
    """
    oldest = now - timedelta(days=KEPT_DAYS - 1)
    changes = {p: change for p in promotions if (change := change_of(p)) is not None}
    known = await effects_of(session, tenant_id, list(changes.values())) if changes else {}
    effects = {p: known[change] if p.at > oldest else replace(known[change], applied_by=()) for p, change in changes.items()}
    return [told(p, effects.get(p, NOTHING_KNOWN)) for p in promotions]


async def effects_of(session: AsyncSession | Reading, tenant_id: UUID, changes: Collection[Change]) -> dict[Change, Effect]:
    """What is known of each change now."""
    generations, versions = [c[0] for c in changes], [c[1] for c in changes]
    found: dict[Change, list[tuple[ReplicaAck, bool]]] = defaultdict(list)
    for row in await _EFFECT.rows(session, tenant_id=tenant_id, generations=generations, versions=versions):
        found[(row.generation, row.version)].append((ReplicaAck(row.name, row.at), row.silent))
    # A change that nobody counts for is so old that each replica of today began with it.
    none_behind = True if len(found) == len(changes) else (await _LIVE.row(session)).anybody
    return {change: _effect(found.get(change, []), none_behind=none_behind) for change in changes}


async def await_effect(
    database: Database, tenant_id: UUID, change: Change, within_s: float = WAIT_S, *, here: asyncio.Future[None] | None = None
) -> Effect:
    """What is known once every replica serves the change, or nobody who does not is likely to, or the time is up.

    Call it after the commit: a replica that joins later looks after joining, and so finds the change by itself. `here`: done when this
    process serves it; a look before that would most likely be in vain.
    """

    async def look(session: Reading) -> Effect:
        return (await effects_of(session, tenant_id, [change]))[change]

    return await _awaited(database, tenant_id, look, within_s, here)


async def await_pictures(database: Database, generation: int, within_s: float) -> Effect:
    """As `await_effect`, of a change for all tenants; it takes a heartbeat to be heard of."""

    async def look(session: Reading) -> Effect:
        rows = await _PICTURES.rows(session, generation=generation)
        return _effect([(ReplicaAck(row.name, row.at), row.silent) for row in rows], none_behind=False)

    return await _awaited(database, _NOBODY, look, within_s, None)


def warn_of_missing(tenant_id: UUID | None, known: Effect) -> None:
    """A line in the log that names who has not said that they serve the change; for changes whose answer cannot."""
    if known.missing:
        log.warning("a change is not heard of by every replica", tenant_id=tenant_id and str(tenant_id), replicas=known.missing)


async def _awaited(
    database: Database,
    tenant_id: UUID,
    look: Callable[[Reading], Awaitable[Effect]],
    within_s: float,
    here: asyncio.Future[None] | None,
) -> Effect:
    loop = asyncio.get_running_loop()
    end, wait_s = loop.time() + within_s, _FIRST_LOOK_S
    known = NOTHING_KNOWN
    if here is not None:
        await asyncio.wait([here], timeout=_LONGEST_LOOK_S)
    while True:
        await asyncio.sleep(wait_s)
        try:
            async with database.tenant_read(tenant_id) as reading:
                known = await look(reading)
        except Unavailable:  # the change is committed; what is known of it is no reason to fail
            pass
        if known.everywhere or known.hopeless or loop.time() + wait_s > end:
            return known
        wait_s = min(2 * wait_s, _LONGEST_LOOK_S)


def _effect(acks: list[tuple[ReplicaAck, bool]], *, none_behind: bool) -> Effect:
    missing = [silent for ack, silent in acks if ack.applied_at is None]
    everywhere = not missing and (bool(acks) or none_behind)
    return Effect(tuple(ack for ack, _ in acks), everywhere, hopeless=not everywhere and all(missing))
