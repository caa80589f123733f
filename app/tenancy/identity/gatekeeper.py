"""From an Authorization header to a RequestContext: the one door by which a request enters."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import structlog

from app.errors import DeadlineExceeded, RateLimited, TenantSuspended, Unauthenticated, Unavailable
from app.kernel.clock import SystemClock
from app.kernel.context import RequestContext, Role
from app.tenancy.identity.refusals import Refusal, refused
from app.tenancy.identity.tokens import LONGEST_TOKEN
from app.tenancy.permissions import actions_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.kernel.clock import Clock, Deadline
    from app.tenancy.directory import TenantDirectory, TenantEntry
    from app.tenancy.identity.verifier import Verifier
    from app.tenancy.types import Principal

NO_TENANT = UUID(int=0)
_REFRESH_EVERY_S = 1.0
_OPERATOR = frozenset({Role.OPERATOR})
log = structlog.get_logger(__name__)


class TenantMaker(Protocol):
    """Makes tenants that tokens name, for issuers that may."""

    async def make(self, issuer: str, external_id: str, *, own_name: bool) -> None:
        """Returns when the directory has the tenant, or it cannot be made. Raises Unavailable."""


class Word(Protocol):
    """What a limiter says."""

    @property
    def allowed(self) -> bool: ...
    @property
    def retry_after_ms(self) -> int | None: ...


class Attempts(Protocol):
    """How often a caller's address may fail."""

    def may_try(self, address: str) -> Word:
        """Whether it may present a token that nobody knows yet; takes nothing."""

    def take_failure(self, address: str) -> Word:
        """Counts one failed authentication."""


class Gatekeeper:
    """Admits verified callers of tenants that exist and are active."""

    def __init__(
        self,
        verifier: Verifier,
        directory: TenantDirectory,
        clock: Clock | None = None,
        refresh: Callable[[], Awaitable[None]] | None = None,
        maker: TenantMaker | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        """`refresh` is asked, at most once a second, when a good token names a tenant that this process has not heard of.

        `maker`: after that, where the token's issuer may have tenants made. `attempts`: failures are counted by address, and who has
        failed too often is refused before anything of an unknown token is looked at.
        """
        self._verifier, self._directory = verifier, directory
        self._clock, self._refresh, self._maker = clock or SystemClock(), refresh, maker
        self._attempts = attempts
        self._refreshed_at = -math.inf

    async def admit(self, authorization: str | None, request_id: str, deadline: Deadline, address: str = "unknown") -> RequestContext:
        """The caller's context. A token seen before costs under 3 µs and awaits nothing. `address`: where the caller is.

        Whether the tenant is suspended and the token revoked is looked up each time.

        Raises Unauthenticated (one text for every bad token and for a tenant that does not exist), RateLimited for an address that
        failed too often, TenantSuspended, and Unavailable or DeadlineExceeded while the issuer's keys cannot be had.
        """
        try:
            token = _bearer(authorization)
            principal = self._verifier.known(token) or await self._verify(token, deadline, address)
            entry = self._directory.meant(principal) or await self._look_again(principal)
            if entry is None:
                return self._without_tenant(principal, request_id, deadline)
            if entry.denied is not None and entry.denied.holds(principal.subject, principal.jti, principal.issued_at_s):
                raise refused(Refusal.REVOKED)
        except Unauthenticated as error:
            log.info("token_refused", reason=error.reason)  # here alone: the caller hears one text for every bad token
            if self._attempts is not None:
                _check(self._attempts.take_failure(address))
            raise
        if not entry.active:
            raise TenantSuspended("This tenant is suspended.")
        tenant = entry.tenant
        return RequestContext(
            tenant.tenant_id, tenant.id, principal.subject, principal.roles, principal.allowed, principal.unit, request_id, deadline
        )

    async def _look_again(self, principal: Principal) -> TenantEntry | None:
        """Another process may have made the tenant a moment ago; or it is to be made now."""
        if self._refresh is not None and self._clock.monotonic() - self._refreshed_at >= _REFRESH_EVERY_S:
            self._refreshed_at = self._clock.monotonic()
            await self._refresh()
            if (entry := self._directory.meant(principal)) is not None:
                return entry
        if self._maker is None or not principal.creates_tenants or not principal.roles or Role.OPERATOR in principal.roles:
            return None
        await self._maker.make(principal.issuer, principal.tenant, own_name=principal.own_names)
        return self._directory.meant(principal)

    def _without_tenant(self, principal: Principal, request_id: str, deadline: Deadline) -> RequestContext:
        if not self._directory.filled:
            raise Unavailable("Which tenants there are is not known yet: the database has not been heard.", retry_after_ms=1000)
        return _operator_context(principal, request_id, deadline)

    async def _verify(self, token: str, deadline: Deadline, address: str) -> Principal:
        """Of a token that nobody knows yet; raises RateLimited where its address failed too often."""
        if self._attempts is not None:
            _check(self._attempts.may_try(address))
        try:
            async with asyncio.timeout(max(0.0, deadline.remaining_s())):
                return await self._verifier.verify(token)
        except TimeoutError:
            raise DeadlineExceeded("The token could not be verified in time.") from None


def _check(word: Word) -> None:
    if not word.allowed:
        raise RateLimited("Too many failed attempts from your address. Wait, then try again.", retry_after_ms=word.retry_after_ms or 1000)


def _bearer(authorization: str | None) -> str:
    """The token of "Bearer <token>"; the scheme in any case, as HTTP has it. Source: RFC 9110 section 11.1, RFC 6750 section 2.1."""
    if authorization is None:
        raise refused(Refusal.MISSING)
    if len(authorization) > LONGEST_TOKEN + 16:
        raise refused(Refusal.TOO_LONG)
    if authorization[:7] == "Bearer " or authorization[:7].lower() == "bearer ":
        return authorization[7:].strip(" ")
    raise refused(Refusal.SCHEME)


def _operator_context(principal: Principal, request_id: str, deadline: Deadline) -> RequestContext:
    """A platform operator's context where the token's tenant does not exist (yet): somebody has to create the first one.

    It belongs to no tenant, so row-level security shows it no row; for everybody else an unknown tenant is a bad token.
    """
    if Role.OPERATOR not in principal.roles:
        raise refused(Refusal.UNKNOWN_TENANT)
    return RequestContext(
        tenant_id=NO_TENANT,
        tenant=principal.tenant,
        subject=principal.subject,
        roles=_OPERATOR,
        allowed=actions_of(_OPERATOR),
        unit=None,
        request_id=request_id,
        deadline=deadline,
    )
