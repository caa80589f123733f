"""A tenant's first transaction, whoever has it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.audit import store as audit
from app.db.outbox import announce
from app.tenancy.store import insert_name, insert_tenant

if TYPE_CHECKING:
    from app.tenancy.changing import Changes
    from app.tenancy.types import StoredTenant


async def insert_with_news(changes: Changes, stored: StoredTenant, actor: str, *, issuer: str | None = None) -> int:
    """The generation in which the others hear of the new tenant; this process serves it. `issuer`: whose token had it made.

    Raises Conflict where the id or one of its names is taken, Unavailable.
    """
    tenant = stored.tenant
    after = {"id": tenant.id, "name": tenant.name, "limits": tenant.limits.to_json(), "settings": tenant.settings.to_json()}
    if issuer is not None:
        after["issuer"] = issuer
    async with changes.database.tenant_tx(tenant.tenant_id) as session:
        await insert_tenant(session, stored)
        for name in tenant.names:
            await insert_name(session, tenant.tenant_id, name, actor)
        await audit.record_by(
            session, tenant.tenant_id, actor, changes.clock, action="createTenant", subject=f"tenant:{tenant.id}", after=after
        )
        generation = await announce(session, tenant.tenant_id)
    changes.directory.apply([stored])
    return generation
