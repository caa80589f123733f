"""Writing an entry as the next link of its tenant's chain, and verifying the whole chain."""

from __future__ import annotations

import hmac
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, LargeBinary, Text, Uuid, bindparam, cast, null, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from app.audit.chain import Link, pseudonym, seal, start
from app.audit.ports import SEALS
from app.audit.rows import AuditEntryRow, AuditHeadRow
from app.audit.types import Break, Person, Verdict
from app.db.base import Bigint, Jsonb
from app.db.statement import Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.audit.ports import Seals
    from app.audit.types import AuditKeys

_PAGE = 1_000
_NOTHING: Mapping[int, bytes] = MappingProxyType({})
# The head is held until the transaction ends. What the database makes of the JSON is what is sealed: it is what can be read again.
_HEAD = Statement(
    select(
        AuditHeadRow.sequence,
        AuditHeadRow.seal,
        cast(bindparam("before", type_=Jsonb), Text).label("before"),
        cast(bindparam("after", type_=Jsonb), Text).label("after"),
    )
    .where(AuditHeadRow.tenant_id == bindparam("tenant"))
    .with_for_update()
)
# Entry, head and names in one journey. Said once: a statement that is put together for each entry is compiled for each, too.
_WRITE = Statement(
    text("""
    with moved as (update audit_heads set sequence = :sequence, seal = :seal where tenant_id = :tenant_id),
         met as (insert into audit_people (tenant_id, pseudonym, subject)
                 select :tenant_id, pseudonym, subject
                 from unnest(cast(:pseudonyms as text[]), cast(:subjects as text[])) as these (pseudonym, subject)
                 on conflict do nothing)
    insert into audit_entries (tenant_id, id, at, actor, action, subject, before, after, reason, sequence, seal)
    values (:tenant_id, :id, :at, :actor, :action, :subject, :before, :after, :reason, :sequence, :seal)
""").bindparams(
        *(bindparam(name, type_=Uuid()) for name in ("tenant_id", "id")),
        *(bindparam(name, type_=Jsonb) for name in ("before", "after")),
        bindparam("at", type_=DateTime(timezone=True)),
        bindparam("sequence", type_=Bigint),
        bindparam("seal", type_=LargeBinary()),
    )
)


async def write(session: AsyncSession, row: dict[str, Any]) -> bool:
    """Whether the entry was written, sealed; False where nothing seals (a tenant that is erased, a tool without keys): not written.

    `row`: the columns of an entry with plain names of people. Raises Unavailable where the tenant's keys cannot be read.
    """
    seals: Seals | None = session.info.get(SEALS)
    keys = None if seals is None else await seals.keys(session, row["tenant_id"])
    if keys is None:
        return False
    people: dict[str, str] = {}
    sealed = {**row, **{name: _hidden(row[name], keys, people) for name in ("before", "after")}}
    sealed["actor"] = _hidden(Person(row["actor"]), keys, people)
    tenant_id, values = row["tenant_id"], {"tenant": row["tenant_id"], "before": sealed["before"], "after": sealed["after"]}
    head = await _HEAD.row(session, **values)
    if head is None:
        await _begin(session, tenant_id, keys)
        head = await _HEAD.row(session, **values)
    fields = {name: sealed[name] for name in ("id", "at", "actor", "action", "subject", "reason")}
    link = Link(sequence=head.sequence + 1, before=head.before, after=head.after, **fields)
    sealed |= {"sequence": link.sequence, "seal": seal(keys.chain, head.seal, link)}
    await _WRITE.rows(session, **sealed, pseudonyms=list(people), subjects=list(people.values()))
    return True


async def verify(session: AsyncSession, tenant_id: UUID, keys: AuditKeys, written: Mapping[int, bytes] = _NOTHING) -> Verdict:
    """What holds of the tenant's log, read in the tenant's own transaction. Entries that are written meanwhile are no break.

    `written`: seals by sequence that were written down elsewhere; a log that was taken back to an older state no longer has them.
    """
    head = (await session.execute(select(AuditHeadRow.sequence, AuditHeadRow.seal))).one_or_none()
    older = [link async for link in _older(session)]
    if head is None:
        lost = (await session.execute(_sealed().limit(1))).first()
        return Verdict(0, len(older), None if lost is None else Break(0, "is missing: the head of the chain was taken away"))
    previous, number = start(keys.chain, tenant_id, older), 0
    async for link in _links(session, head.sequence):
        if link.sequence != number + 1:
            return Verdict(number, len(older), _gap(number, link))
        expected = seal(keys.chain, previous, link)
        if not hmac.compare_digest(link.seal or b"", expected):
            return Verdict(number, len(older), _changed(link, len(older)))
        previous, number = expected, number + 1
        if not hmac.compare_digest(written.get(number, previous), previous):
            return Verdict(number, len(older), Break(number, "is another one than was written to the service's log", link.id))
    if number != head.sequence:
        return Verdict(number, len(older), Break(number + 1, f"is missing: the log ends too early, its head says {head.sequence}"))
    if number < max(written, default=0):
        return Verdict(number, len(older), Break(number + 1, f"is missing: the service's log has the seal of entry {max(written)}"))
    if not hmac.compare_digest(previous, head.seal):
        return Verdict(number, len(older), Break(number, "does not bear the seal that the head of the chain has"))
    return Verdict(number, len(older), await _beyond(session))


def _hidden(value: Any, keys: AuditKeys, people: dict[str, str]) -> Any:
    """The JSON value with pseudonyms for people, who are noted in `people` by theirs."""
    if isinstance(value, Person):
        name = pseudonym(keys.people, value)
        people[name] = str(value)
        return name
    if isinstance(value, dict):
        return {key: _hidden(each, keys, people) for key, each in value.items()}
    return [_hidden(each, keys, people) for each in value] if isinstance(value, (list, tuple)) else value


async def _begin(session: AsyncSession, tenant_id: UUID, keys: AuditKeys) -> None:
    """The head of a chain without a link; two that come first at once make the same one."""
    seal_before = start(keys.chain, tenant_id, [link async for link in _older(session)])
    first = {"tenant_id": tenant_id, "sequence": 0, "seal": seal_before}
    await session.execute(upsert(AuditHeadRow).values(first).on_conflict_do_nothing())


def _sealed() -> Select[*tuple[Any, ...]]:
    row = AuditEntryRow
    before, after = cast(row.before, Text).label("before"), cast(row.after, Text).label("after")
    columns = (row.sequence, row.id, row.at, row.actor, row.action, row.subject, before, after, row.reason, row.seal)
    return select(*columns).where(row.sequence.is_not(None)).order_by(row.sequence, row.id)


async def _links(session: AsyncSession, last: int) -> AsyncIterator[Link]:
    """The sealed entries up to the number `last`, in order."""
    after = -(2**62)
    while True:
        query = _sealed().where(AuditEntryRow.sequence > after, AuditEntryRow.sequence <= last).limit(_PAGE)
        rows = (await session.execute(query)).all()
        for row in rows:
            yield Link(*row)
        if len(rows) < _PAGE:
            return
        after = rows[-1].sequence


async def _older(session: AsyncSession) -> AsyncIterator[Link]:
    row = AuditEntryRow
    before, after = cast(row.before, Text), cast(row.after, Text)
    columns = (row.sequence, row.id, row.at, row.actor, row.action, row.subject, before, after, row.reason, null())
    query: Select[*tuple[Any, ...]] = select(*columns).where(row.sequence.is_(None)).order_by(row.at, row.id)
    for found in (await session.execute(query)).all():
        yield Link(*found)


def _gap(number: int, link: Link) -> Break:
    if link.sequence is not None and link.sequence <= number:
        return Break(link.sequence, "has a number that no entry has, or another one has", link.id)
    return Break(number + 1, f"is missing: entry {link.sequence} follows")


def _changed(link: Link, older: int) -> Break:
    if link.sequence == 1:
        what = f"was changed, or one of the {older} entries from before the chain was changed, taken out or put in"
    else:
        what = "was changed, or does not stand where it stood"
    return Break(link.sequence or 0, what, link.id)


async def _beyond(session: AsyncSession) -> Break | None:
    """An entry after the head, both as they are at one moment: nobody of ours wrote it."""
    last = select(AuditHeadRow.sequence).scalar_subquery()
    extra = (await session.execute(_sealed().where(AuditEntryRow.sequence > last).limit(1))).first()
    return None if extra is None else Break(extra.sequence, "was put in: the chain ends before it", extra.id)
