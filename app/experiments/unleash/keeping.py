"""The last good document of a flag server, kept in the database for a start without that server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from app.experiments.rows import FlagDocumentRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.db.sync import SyncDatabase

SOURCE = "unleash"
_NOBODY = UUID(int=0)  # the document is of no tenant: its transaction sees nobody's rows


async def kept_document(database: SyncDatabase, newer_than: int = -1) -> Any | None:
    """The kept document as parsed JSON; None where there is none of a newer revision. Raises Unavailable."""
    query = select(FlagDocumentRow.document).where(FlagDocumentRow.source == SOURCE, FlagDocumentRow.revision > newer_than)
    async with database.connection() as connection:
        return (await connection.execute(query)).scalar_one_or_none()


async def keep_document(database: Database, revision: int, document: Any, *, also_older: bool = False) -> None:
    """Keeps the document; one of a newer revision stays, unless `also_older`. Raises Unavailable."""
    async with database.tenant_tx(_NOBODY) as session:
        kept = await kept_revision(session)
        if kept is not None and (kept == revision or (kept > revision and not also_older)):
            return
        new = insert(FlagDocumentRow).values(source=SOURCE, revision=revision, document=document)
        changed = {"revision": new.excluded.revision, "document": new.excluded.document, "fetched_at": func.now()}
        where = None if also_older else FlagDocumentRow.revision < new.excluded.revision
        await session.execute(new.on_conflict_do_update(index_elements=["source"], set_=changed, where=where))


async def kept_revision(session: AsyncSession, *, hold: bool = False) -> int | None:
    """The revision of the kept document; where `hold`, nobody keeps another one until the transaction ends."""
    query = select(FlagDocumentRow.revision).where(FlagDocumentRow.source == SOURCE)
    found: int | None = (await session.execute(query.with_for_update(read=True) if hold else query)).scalar_one_or_none()
    return found
