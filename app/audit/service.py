"""Reading the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.audit import store
from app.audit.types import AuditFilter
from app.kernel.context import Action
from app.kernel.paging import page_request

if TYPE_CHECKING:
    from datetime import datetime

    from app.audit.types import AuditEntry
    from app.db.session import Database
    from app.kernel.context import RequestContext
    from app.kernel.paging import Page


class AuditService:
    """What was changed in a tenant, for those who may read it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def entries(
        self,
        ctx: RequestContext,
        first: int,
        after: str | None = None,
        subject: str | None = None,
        *,
        actor: str | None = None,
        action: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Page[AuditEntry]:
        """A page, newest first; of one `subject` ("model:churn"), actor or action where these are named, from `start` to before `end`.

        `actor`: a name, or the pseudonym of somebody whose name was cut. Raises PermissionDenied, InvalidInput.
        """
        ctx.require(Action.READ_AUDIT)
        request = page_request(store.KIND, first, after)
        wanted = AuditFilter(subject, actor, action, start, end)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return await store.entries(session, request, wanted)
