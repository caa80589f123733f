"""One change of one tenant: written with its audit entry and its news in one transaction, then heard by every replica."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.audit import store as audit
from app.db.outbox import announce
from app.errors import NotFound
from app.tenancy.store import locked_tenant, names_of, stored_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.replicas import Replicas
    from app.tenancy.directory import TenantDirectory
    from app.tenancy.rows import TenantRow
    from app.tenancy.types import Tenant


def no_such_tenant() -> NotFound:
    """In the words of every other way in which a tenant is not there."""
    return NotFound("There is no such tenant.")


@dataclass(slots=True)
class Change:
    """A transaction in which the tenant's row is held. What is not recorded is no change, and nobody is told of it."""

    session: AsyncSession
    row: TenantRow
    actor: str
    clock: Clock
    recorded: bool = False

    async def record(self, action: str, *, before: Any = None, after: Any = None, reason: str | None = None) -> None:
        """Adds an entry by the actor to the tenant's own audit log."""
        self.recorded = True
        about = {"action": action, "subject": f"tenant:{self.row.id}", "before": before, "after": after, "reason": reason}
        await audit.record_by(self.session, self.row.tenant_id, self.actor, self.clock, **about)

    async def tenant(self) -> Tenant:
        """The tenant as this transaction leaves it."""
        return stored_tenant(self.row, await names_of(self.session, self.row.tenant_id)).tenant


class Changes:
    """One a process."""

    def __init__(self, database: Database, directory: TenantDirectory, clock: Clock, replicas: Replicas) -> None:
        self.database, self.directory, self.clock = database, directory, clock
        self._replicas = replicas

    async def tenant_id(self, slug: str) -> UUID:
        """Of the tenant with this name, also where another process made it a moment ago. Raises NotFound."""
        entry = self.directory.find(slug)
        if entry is None:
            await self.catch_up()
            entry = self.directory.find(slug)
        if entry is None:
            raise no_such_tenant()
        return entry.tenant.tenant_id

    @asynccontextmanager
    async def of(self, tenant_id: UUID, ctx: RequestContext, *, erased: bool = False) -> AsyncIterator[Change]:
        """A change of this tenant by the caller. After it every replica that is heard of serves it, or two seconds are over.

        Raises NotFound for a tenant that was erased, unless `erased`; Unavailable.
        """
        generation: int | None = None
        async with self.database.tenant_tx(tenant_id) as session:
            row = await locked_tenant(session, tenant_id, erased=erased)
            if row is None:
                raise no_such_tenant()
            change = Change(session, row, ctx.subject, self.clock)
            yield change
            if change.recorded:
                generation = await announce(session, tenant_id)
        if generation is not None:
            await self.take_effect(tenant_id, generation)

    async def take_effect(self, tenant_id: UUID | None, generation: int) -> None:
        """Returns when every replica serves the change; after two seconds, with a line in the log that names who does not.

        None: a change for all tenants, for which it is four seconds.
        """
        await self._replicas.in_force(tenant_id, generation)

    async def catch_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what is committed; where it cannot just now, the next look does."""
        await self._replicas.caught_up(tenant_id)
