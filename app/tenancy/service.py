"""What callers and operators ask about tenants. Reads come from memory; making one writes its row, its audit entry and its news."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from app.audit import store as audit
from app.db.outbox import announce
from app.errors import InvalidInput, NotFound, Unavailable
from app.kernel.context import Action, Role
from app.kernel.names import MAX_TENANT, check_name, check_unit
from app.kernel.paging import Page, make_page, page_request
from app.tenancy.keys import new_secret
from app.tenancy.store import insert_tenant
from app.tenancy.types import StoredTenant, Tenant, TenantLimits, TenantSettings, TenantStatus, Viewer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.tenancy.directory import TenantDirectory
    from app.tenancy.keys import MasterKey
    from app.tenancy.limits.limiter import RateLimiter

KIND = "tenants"
LONGEST_NAME = 200
_PATIENCE_S = 2.0  # a refresh may have other tenants' models to load
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_log = logging.getLogger(__name__)


class TenantService:
    """One a process. `refresh` brings the rest of the process's picture up to date after a change; it may be left out."""

    def __init__(
        self,
        database: Database,
        directory: TenantDirectory,
        master_key: MasterKey,
        limiter: RateLimiter,
        clock: Clock,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._database, self._directory, self._master_key = database, directory, master_key
        self._limiter, self._clock, self._refresh = limiter, clock, refresh

    async def create_tenant(
        self, ctx: RequestContext, slug: str, name: str, limits: TenantLimits | None = None, settings: TenantSettings | None = None
    ) -> Tenant:
        """A new tenant with a secret of its own; this process serves it at once, the others within a second or so.

        Raises PermissionDenied, InvalidInput, Conflict (the id is taken, be it by an erased tenant), Unavailable.
        """
        ctx.require(Action.MANAGE_TENANTS)
        check_name("tenant", slug, MAX_TENANT)
        tenant = Tenant(
            tenant_id=uuid4(),
            id=slug,
            name=_check_title(name),
            status=TenantStatus.ACTIVE,
            limits=limits or TenantLimits(),
            settings=settings or TenantSettings(),
            created_at=self._clock.now(),
        )
        stored = StoredTenant(tenant, self._master_key.wrap(tenant.tenant_id, new_secret()))
        async with self._database.tenant_tx(tenant.tenant_id) as session:
            await insert_tenant(session, stored)
            after = {"id": slug, "name": tenant.name, "limits": tenant.limits.to_json(), "settings": tenant.settings.to_json()}
            await audit.record_by(
                session, tenant.tenant_id, ctx.subject, self._clock, action="createTenant", subject=f"tenant:{slug}", after=after
            )
            await announce(session, tenant.tenant_id)
        self._directory.apply([stored])
        await self._catch_up()
        return tenant

    def tenants(self, ctx: RequestContext, first: int, after: str | None = None) -> Page[Tenant]:
        """All tenants but erased ones, newest first. Raises PermissionDenied, InvalidInput."""
        ctx.require(Action.MANAGE_TENANTS)
        request = page_request(KIND, first, after)
        keyed = [(_sort_key(entry.tenant), entry.tenant) for entry in self._directory.entries()]
        if request.after is not None:
            position = _position(request.after)
            keyed = [(key, tenant) for key, tenant in keyed if key < position]
        return make_page(KIND, request, list(keyed[: request.first + 1]))

    def tenant(self, ctx: RequestContext, slug: str) -> Tenant:
        """One tenant. Raises PermissionDenied, NotFound."""
        ctx.require(Action.MANAGE_TENANTS)
        entry = self._directory.find(slug)
        if entry is None:
            raise NotFound("There is no such tenant.")
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
            quota=self._limiter.peek(ctx.tenant_id, limits),
        )

    def unit_hash(self, ctx: RequestContext, unit: str) -> str:
        """The pseudonym of `unit` in flags, logs and exports, of the current generation. Raises PermissionDenied, InvalidInput."""
        ctx.require(Action.HASH_UNIT)
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:
            raise NotFound("There is no such tenant.")
        return entry.keys.unit_pseudonym(check_unit(unit))

    async def _catch_up(self) -> None:
        if self._refresh is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._refresh()
        except (Unavailable, TimeoutError) as error:
            # The tenant is made and announced: the next look finds it.
            _log.warning("the picture was not refreshed after a change", extra={"error": type(error).__name__})


def _check_title(name: str) -> str:
    if 1 <= len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip():
        return name
    raise InvalidInput(f"name must be 1 to {LONGEST_NAME} printable characters without spaces around them.")


def _sort_key(tenant: Tenant) -> tuple[str | int, ...]:
    return ((tenant.created_at - _EPOCH) // _MICROSECOND, tenant.id)


def _position(after: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if len(after) == 2 and isinstance(after[0], int) and isinstance(after[1], str):
        return after
    raise InvalidInput("after is not a cursor of this list: send an endCursor that it answered with.")
