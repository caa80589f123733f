"""The public contract, put together from the rooms' parts."""

from __future__ import annotations

import strawberry
from strawberry.schema.config import StrawberryConfig

from app.graphql.audit.queries import AuditQuery
from app.graphql.errors import ErrorCode
from app.graphql.experiments.mutations import ExperimentMutation
from app.graphql.experiments.queries import ExperimentQuery
from app.graphql.prediction.queries import PredictionQuery
from app.graphql.registry.comparison import ComparisonQuery
from app.graphql.registry.mutations import RegistryMutation
from app.graphql.registry.queries import RegistryQuery
from app.graphql.scalars import SCALARS
from app.graphql.tenancy.mutations import TenancyMutation
from app.graphql.tenancy.queries import TenancyQuery


@strawberry.type
class Query(TenancyQuery, PredictionQuery, RegistryQuery, ComparisonQuery, ExperimentQuery, AuditQuery):
    pass


@strawberry.type
class Mutation(RegistryMutation, ExperimentMutation, TenancyMutation):
    pass


ErrorCodeEnum = strawberry.enum(ErrorCode, name="ErrorCode", description="`extensions.code` of each error.")


def build_schema() -> strawberry.Schema:
    """The schema; what must happen on each request is in the handler and the services, so it has no extensions."""
    return strawberry.Schema(query=Query, mutation=Mutation, types=[ErrorCodeEnum], config=StrawberryConfig(scalar_map=SCALARS))
