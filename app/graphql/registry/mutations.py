"""Changing the registry."""

from __future__ import annotations

import strawberry

from app.graphql.context import Info, root_mutation
from app.graphql.registry.inputs import RegisterModelVersionInput, UpdateModelInput
from app.graphql.registry.types import Model, ModelVersion, Promotion
from app.graphql.scalars import given
from app.kernel.context import Action
from app.registry import types


@strawberry.type
class RegistryMutation:
    @root_mutation(
        Action.REGISTER_VERSION,
        "Register a version from an artifact that was uploaded with POST /artifacts. Returns at once with status VALIDATING. "
        "The same digest and input again: the same version.",
        graphql_type=ModelVersion | None,
    )
    async def register_model_version(self, info: Info, input: RegisterModelVersionInput) -> types.ModelVersion:  # noqa: A002  the contract's
        return await info.context.services.registry.register(info.context.request, input.value())

    @root_mutation(
        Action.PUBLISH_VERSION,
        "Copy a READY version into another tenant, as a new VALIDATING version there with its origin; the bytes keep their digest. "
        "targetToken: a token of an ADMIN of toTenant, for the request's own token speaks for one tenant. Send it as a variable. "
        "The same again: the same version.",
        graphql_type=ModelVersion | None,
    )
    async def publish_model_version(
        self, info: Info, model: str, version: int, to_tenant: str, to_model: str, target_token: str
    ) -> types.ModelVersion:
        publishing = info.context.services.publishing
        return await publishing.publish(info.context.request, model, version, to_tenant, to_model, target_token)

    @root_mutation(Action.UPDATE_MODEL, "Change a model's description, fallback or cache.", graphql_type=Model | None)
    async def update_model(self, info: Info, name: str, input: UpdateModelInput) -> types.Model:  # noqa: A002  the contract's name
        return await info.context.services.registry.update_model(info.context.request, name, input.changes())

    @root_mutation(
        Action.PROMOTE,
        "Point an alias at a version. Refused, with every blocker named, when the version is not READY or its signature breaks the "
        "alias's callers. What already serves: no change, same revision.",
        graphql_type=Promotion | None,
    )
    async def promote(
        self,
        info: Info,
        model: str,
        version: int,
        alias: str = "production",
        expected_revision: int | None = strawberry.UNSET,
        allow_breaking: bool = False,
        reason: str | None = strawberry.UNSET,
    ) -> types.Promotion:
        return await info.context.services.registry.promote(
            info.context.request, model, version, alias, given(expected_revision), allow_breaking, given(reason)
        )

    @root_mutation(
        Action.PROMOTE,
        "Point an alias back at the version that it served before: walks down the alias's history (1, 2, 3: to 2, to 1, then CONFLICT).",
        graphql_type=Promotion | None,
    )
    async def rollback(
        self,
        info: Info,
        model: str,
        alias: str = "production",
        expected_revision: int | None = strawberry.UNSET,
        reason: str | None = strawberry.UNSET,
    ) -> types.Promotion:
        return await info.context.services.registry.rollback(info.context.request, model, alias, given(expected_revision), given(reason))

    @root_mutation(
        Action.WITHDRAW_VERSION,
        "Emergency stop: no route leads to this version any more; its aliases step back to what they served before.",
        graphql_type=ModelVersion | None,
    )
    async def withdraw_model_version(self, info: Info, model: str, version: int, reason: str) -> types.ModelVersion:
        return await info.context.services.registry.withdraw(info.context.request, model, version, reason)

    @root_mutation(Action.ARCHIVE_VERSION, "Retire a version that no alias points at.", graphql_type=ModelVersion | None)
    async def archive_model_version(
        self, info: Info, model: str, version: int, reason: str | None = strawberry.UNSET
    ) -> types.ModelVersion:
        return await info.context.services.registry.archive(info.context.request, model, version, given(reason))
