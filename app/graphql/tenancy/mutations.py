"""Changing tenants: platform operators, but for tokens, which an ADMIN revokes in the own tenant."""

from __future__ import annotations

import strawberry

from app.graphql.context import Info, root_mutation
from app.graphql.scalars import given
from app.graphql.tenancy.types import CreateTenantInput, Erasure, Tenant, TenantLimitsInput, TenantSettingsInput, sent
from app.kernel.context import Action
from app.tenancy import types

_OPERATORS = "Platform operators only: "
_HEARD = "Counts on every replica when the answer comes."


@strawberry.type
class TenancyMutation:
    @root_mutation(Action.MANAGE_TENANTS, f"{_OPERATORS}a new tenant, with a key of its own.", graphql_type=Tenant | None)
    async def create_tenant(self, info: Info, input: CreateTenantInput) -> types.Tenant:  # noqa: A002  the contract's name
        limits = types.TenantLimits.from_json(sent(input.limits))
        settings = types.TenantSettings.from_json(sent(input.settings))
        return await info.context.services.tenants.create_tenant(info.context.request, input.id, input.name, limits, settings)

    @root_mutation(Action.MANAGE_TENANTS, f"{_OPERATORS}what is null or left out stays. {_HEARD}", graphql_type=Tenant | None)
    async def update_tenant_limits(self, info: Info, tenant: str, limits: TenantLimitsInput) -> types.Tenant:
        return await info.context.services.tenant_life.update_limits(info.context.request, tenant, sent(limits))

    @root_mutation(Action.MANAGE_TENANTS, f"{_OPERATORS}what is null or left out stays. {_HEARD}", graphql_type=Tenant | None)
    async def update_tenant_settings(self, info: Info, tenant: str, settings: TenantSettingsInput) -> types.Tenant:
        return await info.context.services.tenant_life.update_settings(info.context.request, tenant, sent(settings))

    @root_mutation(
        Action.MANAGE_TENANTS, f"{_OPERATORS}every request is refused with TENANT_SUSPENDED. {_HEARD}", graphql_type=Tenant | None
    )
    async def suspend_tenant(self, info: Info, tenant: str, reason: str) -> types.Tenant:
        return await info.context.services.tenant_life.suspend(info.context.request, tenant, reason)

    @root_mutation(Action.MANAGE_TENANTS, f"{_OPERATORS}a suspended tenant answers again. {_HEARD}", graphql_type=Tenant | None)
    async def resume_tenant(self, info: Info, tenant: str, reason: str | None = strawberry.UNSET) -> types.Tenant:
        return await info.context.services.tenant_life.resume(info.context.request, tenant, given(reason))

    @root_mutation(
        Action.MANAGE_TENANTS,
        f"{_OPERATORS}everything of the tenant, for good; its id stays taken. `confirm` repeats the id. Its key is destroyed and its "
        "requests are refused when the answer comes, its rows follow: the same call again tells how many.",
        graphql_type=Erasure | None,
    )
    async def erase_tenant(self, info: Info, tenant: str, confirm: str, reason: str) -> types.Erasure:
        return await info.context.services.tenant_life.erase(info.context.request, tenant, confirm, reason)

    @root_mutation(
        Action.MANAGE_TENANTS,
        f"{_OPERATORS}tokens of this issuer that say `externalId` are this tenant's. {_HEARD}",
        graphql_type=Tenant | None,
    )
    async def map_tenant_name(self, info: Info, tenant: str, issuer: str, external_id: str) -> types.Tenant:
        return await info.context.services.tenant_life.map_name(info.context.request, tenant, issuer, external_id)

    @root_mutation(
        Action.MANAGE_TENANTS,
        f"{_OPERATORS}tokens of this issuer that say `externalId` are this tenant's no longer. {_HEARD}",
        graphql_type=Tenant | None,
    )
    async def unmap_tenant_name(self, info: Info, tenant: str, issuer: str, external_id: str) -> types.Tenant:
        return await info.context.services.tenant_life.unmap_name(info.context.request, tenant, issuer, external_id)

    @root_mutation(
        Action.REVOKE_TOKENS,
        "The one token `jti`, or all tokens of `subject` issued until now, stop working on every replica at once. `tenant`: for platform "
        "operators; an ADMIN's is the own one.",
    )
    async def revoke_tokens(
        self,
        info: Info,
        reason: str,
        tenant: str | None = strawberry.UNSET,
        subject: str | None = strawberry.UNSET,
        jti: str | None = strawberry.UNSET,
    ) -> bool | None:
        revocations = info.context.services.revocations
        return await revocations.revoke(info.context.request, given(tenant), given(subject), given(jti), reason)
