"""Tokens that are to work no longer: denied on every replica, for as long as one of them could be taken for good."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from app.audit.rules import check_reason
from app.audit.types import Person
from app.db.rounds import rounds
from app.errors import InvalidInput, QuotaExceeded
from app.kernel.context import Action, Role
from app.tenancy import store
from app.tenancy.changing import no_such_tenant
from app.tenancy.identity.verifier import LEEWAY_S, LONGEST_LIFETIME_S
from app.tenancy.rules import check_claim
from app.tenancy.types import TokenDenial

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.sync import SyncDatabase
    from app.kernel.context import RequestContext
    from app.tenancy.changing import Changes

# A token that was good at the revocation was issued at most a leeway later by our clock, and is good for a lifetime with a leeway
# beyond its issuing, and for one more after it expired.
KEPT = timedelta(seconds=LONGEST_LIFETIME_S + 3 * LEEWAY_S)
MOST_DENIALS = 10_000  # of a tenant at one time: all of them are in every process's memory
_EVERY_S, _FIRST_S = 3600.0, (180.0, 900.0)
log = structlog.get_logger()


class Revocations:
    """One a process."""

    def __init__(self, changes: Changes, sync: SyncDatabase) -> None:
        self._changes, self._sync = changes, sync

    async def revoke(self, ctx: RequestContext, tenant: str | None, subject: str | None, jti: str | None, reason: str) -> bool:
        """True: the one token `jti`, or all tokens of `subject` that were issued before now, are refused by every replica.

        A token issued in the same second as the revocation is refused with those before it, and so is every token that does not say
        when it was issued. An ADMIN may do it in the own tenant, an operator in the one that `tenant` names.

        Raises PermissionDenied, NotFound, InvalidInput, QuotaExceeded, Unavailable.
        """
        ctx.require(Action.REVOKE_TOKENS)
        tenant_id = await self._tenant(ctx, tenant)
        if (subject is None) == (jti is None):
            raise InvalidInput("Exactly one of subject and jti says which tokens end: all of a caller's, or one.")
        check_reason(reason)
        now = self._changes.clock.now()
        shown: dict[str, str]
        if subject is not None:
            denial, shown = TokenDenial(None, check_claim("subject", subject), now.timestamp()), {"subject": Person(subject)}
        else:
            denial, shown = TokenDenial(check_claim("jti", str(jti)), None, now.timestamp()), {"jti": str(jti)}
        async with self._changes.of(tenant_id, ctx) as change:
            if await store.replace_denial(change.session, tenant_id, denial, now, now + KEPT) > MOST_DENIALS:
                raise QuotaExceeded(f"A tenant can have {MOST_DENIALS:,} revocations in a day: suspend it, or take its issuer out.")
            await change.record("revokeTokens", after=shown, reason=reason)
        return True

    async def run(self) -> None:
        """Deletes once an hour what no token outlives, until cancelled; not at the same minute as every other process."""
        await rounds(self.sweep, _EVERY_S, log, waits="revocations_wait", failed="revocations_not_swept", first_s=random.uniform(*_FIRST_S))  # noqa: S311  no secret

    async def sweep(self) -> int:
        """How many denials were deleted because every token that they meant has expired. Raises Unavailable."""
        now = self._changes.clock.now()
        async with self._sync.connection() as connection:
            tenants = list((await connection.execute(store.with_ended_denials(now))).scalars())
        deleted = 0
        for tenant_id in tenants:
            async with self._changes.database.tenant_tx(tenant_id) as session:
                deleted += await store.delete_ended_denials(session, tenant_id, now)
        return deleted

    async def _tenant(self, ctx: RequestContext, tenant: str | None) -> UUID:
        """The caller's own for an ADMIN who names none or it; any that is named for an operator."""
        if Role.OPERATOR in ctx.roles and tenant is not None:
            return await self._changes.tenant_id(tenant)
        if Role.ADMIN not in ctx.roles:
            raise InvalidInput("tenant must be named: an operator's own tokens say nothing of whose tokens are to end.")
        if tenant is not None and tenant != ctx.tenant:
            raise no_such_tenant()  # as for one that is there: an ADMIN knows the own tenant alone
        return ctx.tenant_id
