"""The audit log: written in the transaction of the change that it tells of, so that neither is there without the other."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert, or_, select, tuple_, update

from app.audit.chain import is_pseudonym
from app.audit.rows import AuditEntryRow, AuditPersonRow
from app.audit.rules import check_storable
from app.audit.sealing import write
from app.audit.types import AuditEntry, AuditFilter
from app.errors import InvalidInput
from app.kernel.names import is_storable
from app.kernel.paging import make_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Select
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
_EVERYTHING = AuditFilter()


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

    The tenant's log is held until the transaction ends, so that its entries are in one order: record late, announce after it.
    Raises InvalidInput for a reason that no text column can hold.
    """
    check_storable(reason)
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
    if not await write(session, row):
        await session.execute(insert(AuditEntryRow).values(row))


async def entries(session: AsyncSession, request: PageRequest, wanted: AuditFilter = _EVERYTHING) -> Page[AuditEntry]:
    """A page of the transaction's tenant, newest first; people by their names, where these were not cut."""
    if any(
        len(text) > _LONGEST_SUBJECT or not is_storable(text) for text in (wanted.subject, wanted.actor, wanted.action) if text is not None
    ):
        return make_page(KIND, request, [])
    query = _wanted(wanted).order_by(AuditEntryRow.at.desc(), AuditEntryRow.id.desc()).limit(request.first + 1)
    if request.after is not None:
        query = query.where(tuple_(AuditEntryRow.at, AuditEntryRow.id) < _position(request.after))
    rows = list((await session.execute(query)).scalars())
    names = await _names(session, rows)
    return make_page(KIND, request, [(((row.at - _EPOCH) // _MICROSECOND, row.id.hex), _value(row, names)) for row in rows])


async def forget_person(session: AsyncSession, tenant_id: UUID, subject: str) -> int:
    """How many pseudonyms of the tenant's log nobody can tell any more whose they are: 1, or 0 where `subject` is not in it.

    The entries and their chain stay whole. What the person does later stays without a name, too.
    """
    these = (AuditPersonRow.tenant_id == tenant_id, AuditPersonRow.subject == subject)
    cut = update(AuditPersonRow).where(*these).values(subject=None).returning(AuditPersonRow.pseudonym)
    return len((await session.execute(cut)).all())


def _wanted(wanted: AuditFilter) -> Select[AuditEntryRow]:
    query = select(AuditEntryRow)
    if wanted.subject is not None:
        query = query.where(AuditEntryRow.subject == wanted.subject)
    if wanted.actor is not None:
        known = select(AuditPersonRow.pseudonym).where(AuditPersonRow.subject == wanted.actor)
        query = query.where(or_(AuditEntryRow.actor == wanted.actor, AuditEntryRow.actor.in_(known)))
    if wanted.action is not None:
        query = query.where(AuditEntryRow.action == wanted.action)
    if wanted.start is not None:
        query = query.where(AuditEntryRow.at >= wanted.start)
    if wanted.end is not None:
        query = query.where(AuditEntryRow.at < wanted.end)
    return query


async def _names(session: AsyncSession, rows: Iterable[AuditEntryRow]) -> dict[str, str]:
    found = {text for row in rows for text in _pseudonyms([row.actor, row.before, row.after])}
    if not found:
        return {}
    query = select(AuditPersonRow.pseudonym, AuditPersonRow.subject).where(AuditPersonRow.pseudonym.in_(found))
    return {pseudonym: subject for pseudonym, subject in await session.execute(query) if subject is not None}


def _pseudonyms(value: Any) -> set[str]:
    """All of them in a JSON value."""
    if isinstance(value, str):
        return {value} if is_pseudonym(value) else set()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*(_pseudonyms(each) for each in inner))


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """The JSON value with names for pseudonyms."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _named(each, names) for key, each in value.items()}
    return [_named(each, names) for each in value] if isinstance(value, list) else value


def _value(row: AuditEntryRow, names: Mapping[str, str]) -> AuditEntry:
    before, after = _named(row.before, names), _named(row.after, names)
    return AuditEntry(row.id, row.at, names.get(row.actor, row.actor), row.action, row.subject, before, after, row.reason)


def _position(after: tuple[str | int, ...]) -> tuple[datetime, UUID]:
    """The sort key that a cursor holds. A cursor is the client's text: whatever it holds is no error of ours."""
    try:
        at_us, entry_id = after
        return _EPOCH + int(at_us) * _MICROSECOND, UUID(hex=str(entry_id))
    except (ValueError, OverflowError):
        raise InvalidInput("after is not a cursor of this list: send an endCursor that it answered with.") from None


def _entry_id(at: datetime) -> UUID:
    """A UUIDv7 whose first 60 bits are the time, to a quarter of a microsecond. Source: RFC 9562 section 6.2, method 3."""
    microseconds = (at - _EPOCH) // _MICROSECOND
    fraction = microseconds % 1000 * 4096 // 1000
    return UUID(int=(microseconds // 1000 << 80) | _V7 | (fraction << 64) | _VARIANT | secrets.randbits(62))
