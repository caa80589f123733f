"""Changing tenants: platform operators only."""

from __future__ import annotations

import strawberry

from app.graphql.context import Info, root_mutation
from app.graphql.tenancy.types import CreateTenantInput, Tenant, sent
from app.kernel.context import Action
from app.tenancy import types


@strawberry.type
class TenancyMutation:
    @root_mutation(Action.MANAGE_TENANTS, "Platform operators only: a new tenant, with a key of its own.", graphql_type=Tenant | None)
    async def create_tenant(self, info: Info, input: CreateTenantInput) -> types.Tenant:  # noqa: A002  the contract's name
        limits = types.TenantLimits.from_json(sent(input.limits))
        settings = types.TenantSettings.from_json(sent(input.settings))
        return await info.context.services.tenants.create_tenant(info.context.request, input.id, input.name, limits, settings)
