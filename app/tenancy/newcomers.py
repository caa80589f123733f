"""Tenants that are made by their first good token, for issuers whose settings say so."""

from __future__ import annotations

import asyncio
import logging
import math
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import uuid4

from app.errors import Conflict, InvalidInput
from app.kernel.names import MAX_TENANT, check_name
from app.tenancy.keys import new_secret
from app.tenancy.making import insert_with_news
from app.tenancy.types import StoredTenant, Tenant, TenantLimits, TenantName, TenantSettings, TenantStatus

if TYPE_CHECKING:
    from app.tenancy.changing import Changes
    from app.tenancy.keys import MasterKey

ACTOR = "turnout"
_REFUSED_FOR_S = 10.0
_MOST_REFUSED = 1_000
_DIGITS = 16
_log = logging.getLogger(__name__)


class Newcomers:
    """One a process."""

    def __init__(self, changes: Changes, master_key: MasterKey) -> None:
        self._changes, self._master_key = changes, master_key
        self._flights: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._refused: dict[tuple[str, str], float] = {}  # until when it is not tried again

    async def make(self, issuer: str, external_id: str, *, own_name: bool) -> None:
        """Returns when the directory has the tenant of this name, made here or elsewhere; or when it cannot be made.

        It cannot where an erased tenant has the id or the name. Many callers, one attempt. Raises Unavailable.
        """
        key = (issuer, external_id)
        if self._changes.clock.monotonic() < self._refused.get(key, -math.inf):
            return
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._make(issuer, external_id, own_name=own_name))
            flight.add_done_callback(lambda done: self._landed(key, done))
        await asyncio.shield(flight)  # one caller's cancellation is not the others'

    async def _make(self, issuer: str, external_id: str, *, own_name: bool) -> None:
        own = own_name and _is_id(external_id)
        slug = external_id if own else derived_id(issuer, external_id)
        name = TenantName(issuer, external_id)
        names = () if own else (name,)
        tenant = Tenant(uuid4(), slug, external_id, TenantStatus.ACTIVE, TenantLimits(), TenantSettings(), self._changes.clock.now(), names)
        stored = StoredTenant(tenant, self._master_key.wrap(tenant.tenant_id, new_secret()))
        try:
            await insert_with_news(self._changes, stored, ACTOR, issuer=issuer)
            await self._changes.catch_up()  # the others look for themselves when they meet the next such token
        except Conflict:
            await self._changes.catch_up()  # somebody else was first; or the name is an erased tenant's
            directory = self._changes.directory
            if directory.named(issuer, external_id) is None and (not own or directory.find(slug) is None):
                self._refuse((issuer, external_id))
            return
        _log.info("a tenant was made by its first token", extra={"tenant": slug, "issuer": issuer})

    def _refuse(self, key: tuple[str, str]) -> None:
        if len(self._refused) >= _MOST_REFUSED:
            self._refused.clear()
        self._refused[key] = self._changes.clock.monotonic() + _REFUSED_FOR_S

    def _landed(self, key: tuple[str, str], done: asyncio.Task[None]) -> None:
        del self._flights[key]
        if not done.cancelled():
            done.exception()  # whoever waits has it; where nobody waits any more, the next token tries again


def derived_id(issuer: str, external_id: str) -> str:
    """The id of a tenant whose name at the issuer is no id of ours: the same whoever makes it, and nobody else's."""
    return "t-" + sha256(f"{issuer}\0{external_id}".encode()).hexdigest()[:_DIGITS]


def _is_id(text: str) -> bool:
    try:
        return check_name("tenant", text, MAX_TENANT) == text
    except InvalidInput:
        return False
