"""Who is calling; and, for operators, which tenants there are."""

from __future__ import annotations

from typing import Any

import strawberry

from app.graphql.context import Info, root_field
from app.graphql.paging import connection, first_of
from app.graphql.scalars import given
from app.graphql.tenancy.types import Tenant, TenantConnection, TenantEdge, Viewer
from app.kernel.context import Action
from app.tenancy import types


@strawberry.type
class TenancyQuery:
    @root_field(Action.VIEW_SELF, "Who is calling, and what is left of their limits.", graphql_type=Viewer)
    def viewer(self, info: Info) -> types.Viewer:
        return info.context.services.tenants.viewer(info.context.request)

    @root_field(Action.HASH_UNIT, "The pseudonym under which this unit appears in flags, logs and exports.")
    def unit_hash(self, info: Info, unit: strawberry.ID) -> str:
        return info.context.services.tenants.unit_hash(info.context.request, str(unit))

    @root_field(Action.MANAGE_TENANTS, "Platform operators only: all tenants, newest first.", graphql_type=TenantConnection)
    def tenants(self, info: Info, first: int | None = 20, after: str | None = strawberry.UNSET) -> Any:
        page = info.context.services.tenants.tenants(info.context.request, first_of(first), given(after))
        return connection(TenantConnection, TenantEdge, page)

    @root_field(Action.MANAGE_TENANTS, "Platform operators only: one tenant.", graphql_type=Tenant | None)
    def tenant(self, info: Info, id: str) -> types.Tenant:  # noqa: A002  the contract's name
        return info.context.services.tenants.tenant(info.context.request, id)
