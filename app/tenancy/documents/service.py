"""Documents that a tenant registers for its clients, and operators for everybody's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.audit import store as audit
from app.db.outbox import announce
from app.kernel.context import Action
from app.kernel.paging import Page, make_page, page_request
from app.tenancy.documents import store
from app.tenancy.documents.rules import check_distinct, known_id, news
from app.tenancy.documents.store import FOR_ALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.context import RequestContext
    from app.tenancy.changing import Changes
    from app.tenancy.documents.types import DocumentText, RegisteredDocument

KIND = "documents"
_log = logging.getLogger(__name__)


class DocumentService:
    """One a process. Texts come here checked against the schema, which this room does not know."""

    def __init__(self, changes: Changes) -> None:
        self._changes, self._database, self._clock = changes, changes.database, changes.clock

    def may_register(self, ctx: RequestContext, *, for_all: bool) -> None:
        """Raises PermissionDenied where the caller may not change these documents."""
        ctx.require(Action.MANAGE_PLATFORM_DOCUMENTS if for_all else Action.MANAGE_DOCUMENTS)

    async def register(
        self, ctx: RequestContext, documents: Sequence[DocumentText], *, for_all: bool = False, replace: bool = False
    ) -> list[RegisteredDocument]:
        """The documents as they are registered now, in the order given. What is there already stays as it is: a repeat changes nothing.

        All or none; every replica that is heard of knows them when this returns, or two seconds are over; for all tenants, four.

        Raises PermissionDenied, InvalidInput (an id twice), Conflict (an id of another text), QuotaExceeded, Unavailable.
        """
        self.may_register(ctx, for_all=for_all)
        of = FOR_ALL if for_all else ctx.tenant_id
        given = check_distinct(documents)
        generation: int | None = None
        async with self._database.tenant_tx(of) as session:
            there = await store.locked_texts(session, of)
            new = news(there, given, replace=replace)
            if new:
                await store.delete_documents(session, of, [document.id for document in new if document.id in there])
                await store.insert_documents(session, of, new, self._clock.now(), ctx.subject)
            found = await store.documents_by_id(session, of, given.keys())
            if new:
                generation = await self._tell(session, ctx, of, "registerDocuments", [document.id for document in new])
        await self._take_effect(of, generation)
        return [found[name] for name in given]

    async def remove(self, ctx: RequestContext, ids: Iterable[str], *, for_all: bool = False) -> list[str]:
        """Those of `ids` that were registered and are no longer. Raises PermissionDenied, Unavailable."""
        self.may_register(ctx, for_all=for_all)
        of = FOR_ALL if for_all else ctx.tenant_id
        named = {known_id(name) for name in ids}
        generation: int | None = None
        async with self._database.tenant_tx(of) as session:
            there = await store.locked_texts(session, of)
            gone = sorted(named & there.keys())
            if gone:
                await store.delete_documents(session, of, gone)
                generation = await self._tell(session, ctx, of, "removeDocuments", gone)
        await self._take_effect(of, generation)
        return gone

    async def documents(self, ctx: RequestContext, first: int, after: str | None, *, for_all: bool = False) -> Page[RegisteredDocument]:
        """A page, newest first. Raises PermissionDenied, InvalidInput, Unavailable."""
        ctx.require(Action.MANAGE_PLATFORM_DOCUMENTS if for_all else Action.READ_DOCUMENTS)
        of = FOR_ALL if for_all else ctx.tenant_id
        request = page_request(KIND, first, after)
        async with self._database.tenant_tx(of) as session:
            return make_page(KIND, request, await store.page_of(session, of, request))

    async def _tell(self, session: AsyncSession, ctx: RequestContext, of: UUID, action: str, ids: list[str]) -> int:
        """Into the tenant's audit log; what is for all tenants is in nobody's, and so in the service's log. The generation."""
        if of == FOR_ALL:
            _log.info("documents for all tenants changed", extra={"action": action, "by": ctx.subject, "documents": len(ids)})
        else:
            before, after = (None, {"ids": ids}) if action == "registerDocuments" else ({"ids": ids}, None)
            await audit.record(session, ctx, self._clock, action=action, subject="documents", before=before, after=after)
        return await announce(session, of)

    async def _take_effect(self, of: UUID, generation: int | None) -> None:
        """Returns when the change is served by every replica that is heard of; at once where nothing changed."""
        if generation is not None:
            await self._changes.take_effect(None if of == FOR_ALL else of, generation)
