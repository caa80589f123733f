"""What changed, in order: each change of a tenant's routing gets the next generation, and replicas ask for what is newer than theirs.

The generation is one row that `announce` locks until its transaction ends. So generations are handed out in the order of
commits, and a reader that has seen generation n has seen all changes up to n. Announce last: the lock holds up every other writer.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Bigint

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


async def announce(session: AsyncSession, tenant_id: UUID) -> int:
    """The generation of this transaction's change to `tenant_id`; the caller's transaction makes it visible.

    Whoever listens to `CHANNEL` hears it at the commit: the number alone, for a listener may be anybody who can log in.
    """
    raised = update(RoutingGenerationRow).values(generation=RoutingGenerationRow.generation + 1).returning(RoutingGenerationRow.generation)
    generation = (await session.execute(raised)).scalar_one()
    await session.execute(insert(OutboxRow).values(generation=generation, tenant_id=tenant_id))
    await session.execute(select(func.pg_notify(CHANNEL, str(generation))))
    return generation


async def changes_since(connection: AsyncConnection, generation: int) -> tuple[int, set[UUID]]:
    """The newest generation, and each tenant that changed after `generation`; run as the sync role.

    Where the outbox does not tell all of it (trimmed since, or a database restored to an older state), that is every tenant.
    """
    newest, told, tenants = (await connection.execute(_CHANGES, {"generation": generation})).one()
    if told == newest - generation:
        return newest, set(tenants)
    return newest, set((await connection.execute(text("select tenant_id from tenants"))).scalars())


# One statement, so one snapshot: the generation and the rows belong together.
_CHANGES = text("""
    select g.generation,
           (select count(*) from outbox o where o.generation > :generation),
           array(select distinct o.tenant_id from outbox o where o.generation > :generation)
    from routing_generation g
""")


async def trim(connection: AsyncConnection, keep: int) -> int:
    """How many rows were removed: all but those of the newest `keep` generations; run as the owner, in the caller's transaction."""
    newest = select(RoutingGenerationRow.generation).scalar_subquery()
    return (await connection.execute(delete(OutboxRow).where(OutboxRow.generation <= newest - keep))).rowcount
