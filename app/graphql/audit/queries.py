"""Reading the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from app.graphql.context import Info, root_field
from app.graphql.paging import PageInfo, connection
from app.graphql.scalars import given, moment
from app.kernel.context import Action


@strawberry.type
class AuditEntry:
    id: strawberry.ID
    at: datetime
    actor: str
    action: str
    subject: str
    before: JSON | None
    after: JSON | None
    reason: str | None


@strawberry.type
class AuditEntryEdge:
    cursor: str
    node: AuditEntry


@strawberry.type
class AuditEntryConnection:
    edges: list[AuditEntryEdge]
    page_info: PageInfo


@strawberry.type
class AuditQuery:
    @root_field(Action.READ_AUDIT, "What was changed in your tenant, by whom and why, newest first.", graphql_type=AuditEntryConnection)
    async def audit_log(
        self,
        info: Info,
        first: int | None = 50,
        after: str | None = strawberry.UNSET,
        subject: str | None = strawberry.UNSET,
        actor: str | None = strawberry.UNSET,
        action: str | None = strawberry.UNSET,
        start: Annotated[datetime | None, strawberry.argument(name="from")] = strawberry.UNSET,
        end: Annotated[datetime | None, strawberry.argument(name="to")] = strawberry.UNSET,
    ) -> Any:
        count = 50 if first is None else first
        wanted = {"actor": given(actor), "action": given(action), "start": moment("from", start), "end": moment("to", end)}
        page = await info.context.services.audit.entries(info.context.request, count, given(after), given(subject), **wanted)
        return connection(AuditEntryConnection, AuditEntryEdge, page)
