"""What operators do with a tenant: its limits and settings, suspending, resuming and erasing it, and the names that issuers give it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from app.audit.rules import check_optional_reason, check_reason
from app.errors import InvalidInput, NotFound
from app.kernel.context import Action
from app.tenancy import store
from app.tenancy.changing import no_such_tenant
from app.tenancy.rules import LONGEST_ISSUER, check_claim
from app.tenancy.types import Erasure, TenantLimits, TenantName, TenantSettings, TenantStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from app.kernel.context import RequestContext
    from app.tenancy.changing import Change, Changes
    from app.tenancy.types import Tenant


class TenantLife:
    """One a process. Each change counts on every replica when the call returns, unless a replica was not heard of within two seconds.

    All raise PermissionDenied, NotFound (also for an erased tenant), InvalidInput and Unavailable. What is so already stays as it is,
    without an entry in the audit log.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def update_limits(self, ctx: RequestContext, slug: str, given: Mapping[str, Any]) -> Tenant:
        """The tenant with these limits, by their names on the wire; null and what is left out stay."""
        ctx.require(Action.MANAGE_TENANTS)
        async with self._changes.of(await self._changes.tenant_id(slug), ctx) as change:
            before = store.stored_tenant(change.row).tenant.limits
            after = TenantLimits.from_json(given, before)
            if after != before:
                change.row.limits = {**change.row.limits, **after.to_json()}
                await _record_difference(change, "updateTenantLimits", before.to_json(), after.to_json())
            return await change.tenant()

    async def update_settings(self, ctx: RequestContext, slug: str, given: Mapping[str, Any]) -> Tenant:
        """The tenant with these settings, by their names on the wire; null and what is left out stay."""
        ctx.require(Action.MANAGE_TENANTS)
        async with self._changes.of(await self._changes.tenant_id(slug), ctx) as change:
            before = store.stored_tenant(change.row).tenant.settings
            after = TenantSettings.from_json(given, before)
            if after != before:
                change.row.settings = {**change.row.settings, **after.to_json()}
                await _record_difference(change, "updateTenantSettings", before.to_json(), after.to_json())
            return await change.tenant()

    async def suspend(self, ctx: RequestContext, slug: str, reason: str) -> Tenant:
        """From now on every request of the tenant is refused with TENANT_SUSPENDED, also with tokens seen before; nothing is lost."""
        ctx.require(Action.MANAGE_TENANTS)
        return await self._move(ctx, slug, "suspendTenant", TenantStatus.SUSPENDED, check_reason(reason))

    async def resume(self, ctx: RequestContext, slug: str, reason: str | None = None) -> Tenant:
        """The tenant answers again."""
        ctx.require(Action.MANAGE_TENANTS)
        return await self._move(ctx, slug, "resumeTenant", TenantStatus.ACTIVE, check_optional_reason(reason))

    async def erase(self, ctx: RequestContext, slug: str, confirm: str, reason: str) -> Erasure:
        """Ends the tenant for good: nobody is served, what was sealed under its secret is unreadable, and its rows follow.

        Once more, it tells how many rows are gone by now. The id stays taken. `confirm` repeats it.
        """
        ctx.require(Action.MANAGE_TENANTS)
        if confirm != slug:
            raise InvalidInput("confirm must repeat the tenant's id: everything of the tenant goes, and nothing brings it back.")
        check_reason(reason)
        tenant_id = await self._also_erased(slug)
        async with self._changes.of(tenant_id, ctx, erased=True) as change:
            known = await store.erasure_of(change.session, tenant_id)
            if known is not None:
                return known
            erasure = Erasure(uuid4(), self._changes.clock.now(), 0)
            await change.record("eraseTenant", before={"status": change.row.status}, after={"status": "ERASED"}, reason=reason)
            await store.bury_tenant(change.session, tenant_id, erasure)
            return erasure

    async def map_name(self, ctx: RequestContext, slug: str, issuer: str, external_id: str) -> Tenant:
        """From now on the issuer's tokens that say `external_id` are this tenant's. Raises Conflict where they are another's."""
        ctx.require(Action.MANAGE_TENANTS)
        name = _name(issuer, external_id)
        async with self._changes.of(await self._changes.tenant_id(slug), ctx) as change:
            if name not in await store.names_of(change.session, change.row.tenant_id):
                await store.insert_name(change.session, change.row.tenant_id, name, ctx.subject)
                await change.record("mapTenantName", after=_shown(name))
            return await change.tenant()

    async def unmap_name(self, ctx: RequestContext, slug: str, issuer: str, external_id: str) -> Tenant:
        """The issuer's tokens that say `external_id` are this tenant's no longer. An erased tenant's names can be freed, too."""
        ctx.require(Action.MANAGE_TENANTS)
        name = _name(issuer, external_id)
        async with self._changes.of(await self._also_erased(slug), ctx, erased=True) as change:
            if not await store.delete_name(change.session, change.row.tenant_id, name):
                raise NotFound("The tenant has no such name.")
            await change.record("unmapTenantName", before=_shown(name))
            return await change.tenant()

    async def _move(self, ctx: RequestContext, slug: str, action: str, to: TenantStatus, reason: str | None) -> Tenant:
        async with self._changes.of(await self._changes.tenant_id(slug), ctx) as change:
            before = change.row.status
            if before != to.value:
                change.row.status = to.value
                await change.record(action, before={"status": before}, after={"status": to.value}, reason=reason)
            return await change.tenant()

    async def _also_erased(self, slug: str) -> UUID:
        try:
            return await self._changes.tenant_id(slug)
        except NotFound:
            erased = self._changes.directory.erased(slug)
            if erased is None:
                raise no_such_tenant() from None
            return erased


def _name(issuer: str, external_id: str) -> TenantName:
    return TenantName(check_claim("issuer", issuer, LONGEST_ISSUER), check_claim("externalId", external_id))


def _shown(name: TenantName) -> dict[str, str]:
    return {"issuer": name.issuer, "externalId": name.external_id}


async def _record_difference(change: Change, action: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """What differs alone, as it was and as it is."""
    changed = [name for name in after if before[name] != after[name]]
    await change.record(action, before={name: before[name] for name in changed}, after={name: after[name] for name in changed})
