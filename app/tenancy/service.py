"""What callers and operators ask about tenants. Reads come from memory; making one writes its row, its audit entry and its news."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from app.errors import InvalidInput
from app.kernel.context import Action, Role
from app.kernel.names import MAX_TENANT, check_name, check_unit
from app.kernel.paging import Page, make_page, page_request
from app.tenancy.changing import no_such_tenant
from app.tenancy.keys import new_secret
from app.tenancy.making import insert_with_news
from app.tenancy.rules import check_title
from app.tenancy.types import StoredTenant, Tenant, TenantLimits, TenantSettings, TenantStatus, Viewer

if TYPE_CHECKING:
    from app.kernel.context import RequestContext
    from app.tenancy.changing import Changes
    from app.tenancy.keys import MasterKey
    from app.tenancy.ports import Quotas

KIND = "tenants"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class TenantService:
    """One a process."""

    def __init__(self, changes: Changes, master_key: MasterKey, quotas: Quotas) -> None:
        self._changes, self._directory, self._clock = changes, changes.directory, changes.clock
        self._master_key, self._quotas = master_key, quotas

    async def create_tenant(
        self, ctx: RequestContext, slug: str, name: str, limits: TenantLimits | None = None, settings: TenantSettings | None = None
    ) -> Tenant:
        """A new tenant with a secret of its own, served by every replica that is heard of, or two seconds are over.

        Raises PermissionDenied, InvalidInput, Conflict (the id is taken, be it by an erased tenant), Unavailable.
        """
        ctx.require(Action.MANAGE_TENANTS)
        check_name("tenant", slug, MAX_TENANT)
        tenant = Tenant(
            tenant_id=uuid4(),
            id=slug,
            name=check_title(name),
            status=TenantStatus.ACTIVE,
            limits=limits or TenantLimits(),
            settings=settings or TenantSettings(),
            created_at=self._clock.now(),
        )
        stored = StoredTenant(tenant, self._master_key.wrap(tenant.tenant_id, new_secret()))
        generation = await insert_with_news(self._changes, stored, ctx.subject)
        await self._changes.take_effect(tenant.tenant_id, generation)
        return tenant

    def tenants(self, ctx: RequestContext, first: int, after: str | None = None) -> Page[Tenant]:
        """All tenants but erased ones, newest first. Raises PermissionDenied, InvalidInput."""
        ctx.require(Action.MANAGE_TENANTS)
        request = page_request(KIND, first, after)
        entries, start = self._directory.entries(), 0
        if request.after is not None:
            position = _position(request.after)
            start = bisect_left(entries, True, key=lambda entry: _sort_key(entry.tenant) < position)
        found = entries[start : start + request.first + 1]
        return make_page(KIND, request, [(_sort_key(entry.tenant), entry.tenant) for entry in found])

    def tenant(self, ctx: RequestContext, slug: str) -> Tenant:
        """One tenant. Raises PermissionDenied, NotFound."""
        ctx.require(Action.MANAGE_TENANTS)
        entry = self._directory.find(slug)
        if entry is None:
            raise no_such_tenant()
        return entry.tenant

    def viewer(self, ctx: RequestContext) -> Viewer:
        """The caller as verified, and what is left of their tenant's limits on this machine."""
        ctx.require(Action.VIEW_SELF)
        entry = self._directory.by_id(ctx.tenant_id)
        limits = entry.tenant.limits if entry else TenantLimits()  # an operator's token may name a tenant that does not exist yet
        return Viewer(
            tenant=ctx.tenant,
            subject=ctx.subject,
            unit=ctx.unit,
            roles=tuple(role for role in Role if role in ctx.roles),
            limits=limits,
            quota=self._quotas.peek(ctx.tenant_id, limits),
        )

    def unit_hash(self, ctx: RequestContext, unit: str) -> str:
        """The pseudonym of `unit` in flags, logs and exports, of the current generation. Raises PermissionDenied, InvalidInput."""
        ctx.require(Action.HASH_UNIT)
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:
            raise no_such_tenant()
        return entry.keys.unit_pseudonym(check_unit(unit))


def _sort_key(tenant: Tenant) -> tuple[str | int, ...]:
    return ((tenant.created_at - _EPOCH) // _MICROSECOND, tenant.id)


def _position(after: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if len(after) == 2 and isinstance(after[0], int) and isinstance(after[1], str):
        return after
    raise InvalidInput("after is not a cursor of this list: send an endCursor that it answered with.")
