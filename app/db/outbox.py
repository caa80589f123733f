"""What changed, in order: each change of a tenant's routing gets the next generation, and replicas ask for what is newer than theirs.

The generation is one row that `announce` locks until its transaction ends. So generations are handed out in the order of
commits, and a reader that has seen generation n has seen all changes up to n. Announce last: the lock holds up every other writer.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Select, Uuid, bindparam, column, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Bigint
from app.db.statement import Statement

CHANNEL = "turnout_routing"  # of NOTIFY; the payload is the generation in decimal


class OutboxRow(Base):
    """A change of one tenant."""

    __tablename__ = "outbox"

    generation: Mapped[int] = mapped_column(Bigint, primary_key=True, autoincrement=False)
    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class RoutingGenerationRow(Base):
    """The newest generation: the one row of this table."""

    __tablename__ = "routing_generation"
    __table_args__ = (CheckConstraint("singleton", name="singleton"),)

    singleton: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    generation: Mapped[int] = mapped_column(Bigint, server_default=text("0"))


_SINCE = bindparam("since", 0, type_=Bigint)
# One journey, for other writers wait meanwhile.
_ANNOUNCE = Statement(
    text("""
    with raised as (update routing_generation set generation = generation + 1 returning generation),
         told as (insert into outbox (generation, tenant_id) select generation, :tenant_id from raised)
    select generation, pg_notify(:channel, generation::text) as told from raised
""")
    .bindparams(bindparam("tenant_id", type_=Uuid()))
    .columns(column("generation"), column("told"))
)


async def announce(session: AsyncSession, tenant_id: UUID) -> int:
    """The generation of this transaction's change to `tenant_id`; the caller's transaction makes it visible.

    Whoever listens to `CHANNEL` hears it at the commit: the number alone, for a listener may be anybody who can log in.
    """
    row = await _ANNOUNCE.row(session, tenant_id=tenant_id, channel=CHANNEL)
    return int(row.generation)


def changed_tenants() -> Select[UUID]:
    """Each tenant that changed after the generation in the parameter `since`."""
    return select(OutboxRow.tenant_id).where(OutboxRow.generation > _SINCE)


def news() -> Select[int, int]:
    """One row: the newest generation, and of how many after `since` the outbox tells.

    Where these are fewer than there were (trimmed, or a database restored to an older state), `is_told` says so, and a reader
    must read everything.
    """
    told = select(func.count()).select_from(OutboxRow).where(OutboxRow.generation > _SINCE).scalar_subquery()
    return select(RoutingGenerationRow.generation, told.label("told"))


def is_told(generation: int, told: int, since: int) -> bool:
    """Whether the outbox tells of everything that changed after `since`."""
    return told == generation - since


async def trim(connection: AsyncConnection, keep: int) -> int:
    """How many rows were removed: all but those of the newest `keep` generations; run as the owner, in the caller's transaction."""
    newest = select(RoutingGenerationRow.generation).scalar_subquery()
    return (await connection.execute(delete(OutboxRow).where(OutboxRow.generation <= newest - keep))).rowcount
