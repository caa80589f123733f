"""The audit log: written in the transaction of the change that it tells of, so that neither is there without the other."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert, select, tuple_

from app.audit.rows import AuditEntryRow
from app.audit.types import AuditEntry
from app.errors import InvalidInput
from app.kernel.paging import make_page

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.paging import Page, PageRequest

KIND = "audit"
_LONGEST_SUBJECT = 1_000  # "artifact:" and a digest, "alias:" and two names: none is near it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_V7 = 0x7 << 76
_VARIANT = 0b10 << 62


async def record(
    session: AsyncSession,
    ctx: RequestContext,
    clock: Clock,
    *,
    action: str,
    subject: str,
    before: Any = None,
    after: Any = None,
    reason: str | None = None,
) -> None:
    """Adds an entry by the caller to the log of the caller's tenant, in the transaction at hand."""
    await record_by(session, ctx.tenant_id, ctx.subject, clock, action=action, subject=subject, before=before, after=after, reason=reason)


async def record_by(
    session: AsyncSession,
    tenant_id: UUID,
    actor: str,
    clock: Clock,
    *,
    action: str,
    subject: str,
    before: Any = None,
    after: Any = None,
    reason: str | None = None,
) -> None:
    """As `record`, by `actor` and for the transaction's tenant: for the service itself, and for operators' changes to a tenant.

    Raises InvalidInput for a reason that no text column can hold.
    """
    if reason is not None and not _storable(reason):
        raise InvalidInput("reason holds a character that cannot be stored: NUL, or half of a surrogate pair.")
    at = clock.now()
    row = {
        "tenant_id": tenant_id,
        "id": _entry_id(at),
        "at": at,
        "actor": actor,
        "action": action,
        "subject": subject,
        "before": before,
        "after": after,
        "reason": reason,
    }
    await session.execute(insert(AuditEntryRow).values(row))


async def entries(session: AsyncSession, request: PageRequest, subject: str | None = None) -> Page[AuditEntry]:
    """A page of the transaction's tenant, newest first; of one `subject` where it is named."""
    if subject is not None and (len(subject) > _LONGEST_SUBJECT or not _storable(subject)):
        return make_page(KIND, request, [])
    query = select(AuditEntryRow).order_by(AuditEntryRow.at.desc(), AuditEntryRow.id.desc()).limit(request.first + 1)
    if request.after is not None:
        query = query.where(tuple_(AuditEntryRow.at, AuditEntryRow.id) < _position(request.after))
    if subject is not None:
        query = query.where(AuditEntryRow.subject == subject)
    rows = (await session.execute(query)).scalars()
    return make_page(KIND, request, [(((row.at - _EPOCH) // _MICROSECOND, row.id.hex), _value(row)) for row in rows])


def _value(row: AuditEntryRow) -> AuditEntry:
    return AuditEntry(row.id, row.at, row.actor, row.action, row.subject, row.before, row.after, row.reason)


def _position(after: tuple[str | int, ...]) -> tuple[datetime, UUID]:
    """The sort key that a cursor holds. A cursor is the client's text: whatever it holds is no error of ours."""
    try:
        at_us, entry_id = after
        return _EPOCH + int(at_us) * _MICROSECOND, UUID(hex=str(entry_id))
    except (ValueError, OverflowError):
        raise InvalidInput("after is not a cursor of this list: send an endCursor that it answered with.") from None


def _storable(text: str) -> bool:
    """Whether PostgreSQL has a way to write this text."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _entry_id(at: datetime) -> UUID:
    """A UUIDv7 whose first 60 bits are the time, to a quarter of a microsecond. Source: RFC 9562 section 6.2, method 3."""
    microseconds = (at - _EPOCH) // _MICROSECOND
    fraction = microseconds % 1000 * 4096 // 1000
    return UUID(int=(microseconds // 1000 << 80) | _V7 | (fraction << 64) | _VARIANT | secrets.randbits(62))
