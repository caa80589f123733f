"""Queries over registered documents: rows in, values out."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import delete, insert, literal, select, text, tuple_

from app.errors import InvalidInput
from app.tenancy.documents.rules import shelf_of
from app.tenancy.documents.types import DocumentText, RegisteredDocument, Shelf
from app.tenancy.rows import DocumentRow, PlatformDocumentRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.paging import PageRequest

FOR_ALL = UUID(int=0)  # in place of a tenant: documents for all of them, in the outbox too
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOCK = text("select pg_advisory_xact_lock(hashtextextended('documents ' || :of, 0))")


def document_queries(of: Select[UUID] | None) -> dict[str, Select[*tuple[Any, ...]]]:
    """What `shelves_of` and `shelf_for_all` read, for the sync role. Those for all tenants are read where they changed alone."""
    own: Select[*tuple[Any, ...]] = select(DocumentRow.tenant_id, DocumentRow.id, DocumentRow.body)
    for_all: Select[*tuple[Any, ...]] = select(PlatformDocumentRow.id, PlatformDocumentRow.body)
    if of is not None:
        own = own.where(DocumentRow.tenant_id.in_(of))
        for_all = for_all.where(literal(FOR_ALL).in_(of))
    return {"documents": own, "documents_for_all": for_all}


def shelves_of(rows: Mapping[str, Iterable[Any]]) -> dict[UUID, Shelf]:
    """By tenant, from the rows of `document_queries`; a tenant without documents is not in it."""
    found: dict[UUID, list[tuple[str, str]]] = defaultdict(list)
    for row in rows["documents"]:
        found[row.tenant_id].append((row.id, row.body))
    return {tenant_id: shelf_of(documents) for tenant_id, documents in found.items()}


def shelf_for_all(rows: Mapping[str, Iterable[Any]]) -> Shelf:
    """The documents for all tenants, from the rows of `document_queries`."""
    return shelf_of((row.id, row.body) for row in rows["documents_for_all"])


async def locked_texts(session: AsyncSession, of: UUID) -> dict[str, str]:
    """Texts by id, of a tenant or FOR_ALL. Nobody else changes them until the transaction ends."""
    await session.execute(_LOCK, {"of": str(of)})
    row = _row(of)
    return {found.id: found.body for found in await session.execute(select(row.id, row.body).where(_belongs(of)))}


async def insert_documents(session: AsyncSession, of: UUID, documents: Sequence[DocumentText], at: datetime, by: str) -> None:
    """Adds documents whose ids are free."""
    owner = {} if of == FOR_ALL else {"tenant_id": of}
    rows = [{**owner, "id": document.id, "body": document.text, "created_at": at, "created_by": by} for document in documents]
    await session.execute(insert(_row(of)), rows)


async def delete_documents(session: AsyncSession, of: UUID, ids: Collection[str]) -> None:
    await session.execute(delete(_row(of)).where(_belongs(of), _row(of).id.in_(ids)))


async def documents_by_id(session: AsyncSession, of: UUID, ids: Collection[str]) -> dict[str, RegisteredDocument]:
    query = _documents(of).where(_row(of).id.in_(ids))
    return {found.id: RegisteredDocument(*found) for found in await session.execute(query)}


async def page_of(session: AsyncSession, of: UUID, request: PageRequest) -> list[tuple[tuple[str | int, ...], RegisteredDocument]]:
    """One more than asked for, newest first, with the sort keys. Raises InvalidInput for another list's cursor."""
    row = _row(of)
    query = _documents(of).order_by(row.created_at.desc(), row.id.desc()).limit(request.first + 1)
    if request.after is not None:
        query = query.where(tuple_(row.created_at, row.id) < _position(request.after))
    rows = await session.execute(query)
    return [(((found.created_at - _EPOCH) // _MICROSECOND, found.id), RegisteredDocument(*found)) for found in rows]


def _row(of: UUID) -> type[DocumentRow | PlatformDocumentRow]:
    return PlatformDocumentRow if of == FOR_ALL else DocumentRow


def _belongs(of: UUID) -> ColumnElement[bool]:
    return literal(value=True) if of == FOR_ALL else DocumentRow.tenant_id == of


def _documents(of: UUID) -> Select[*tuple[Any, ...]]:
    row = _row(of)
    return select(row.id, row.body, row.created_at, row.created_by).where(_belongs(of))


def _position(after: tuple[str | int, ...]) -> tuple[datetime, str]:
    match after:
        case (int(at_us), str(name)) if "\0" not in name:
            try:
                return _EPOCH + at_us * _MICROSECOND, name
            except OverflowError:
                pass
    raise InvalidInput("after is not a cursor of this list: send an endCursor that it answered with.")
