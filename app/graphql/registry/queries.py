"""Reading the registry."""

from __future__ import annotations

from typing import Any

import strawberry

from app.graphql.context import Info, root_field
from app.graphql.paging import connection, first_of
from app.graphql.registry.types import Model, ModelConnection, ModelEdge, PromotionBlocker
from app.graphql.scalars import given
from app.kernel.context import Action
from app.registry import types


@strawberry.type
class RegistryQuery:
    @root_field(Action.READ_REGISTRY, "One model of your tenant.", graphql_type=Model | None)
    async def model(self, info: Info, name: str) -> types.Model:
        return await info.context.services.registry.model(info.context.request, name)

    @root_field(Action.READ_REGISTRY, "Your tenant's models, by name.", graphql_type=ModelConnection)
    async def models(self, info: Info, first: int | None = 20, after: str | None = strawberry.UNSET) -> Any:
        page = await info.context.services.registry.models(info.context.request, first_of(first), given(after))
        return connection(ModelConnection, ModelEdge, page)

    @root_field(
        Action.READ_REGISTRY,
        "What stands in the way of promoting this version; empty where nothing does.",
        graphql_type=list[PromotionBlocker],
    )
    async def promotion_blockers(self, info: Info, model: str, version: int, alias: str = "production") -> list[types.PromotionBlocker]:
        return await info.context.services.registry.blockers(info.context.request, model, version, alias)
