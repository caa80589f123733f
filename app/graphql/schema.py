"""The public contract, put together from the rooms' parts."""

from __future__ import annotations

import strawberry
from strawberry.schema.config import StrawberryConfig

from app.graphql.audit.queries import AuditQuery
from app.graphql.codes import ErrorCode
from app.graphql.experiments.mutations import ExperimentMutation
from app.graphql.experiments.outcomes import OutcomeMutation
from app.graphql.experiments.queries import ExperimentQuery
from app.graphql.experiments.results import ResultsQuery
from app.graphql.prediction.captures import CaptureQuery
from app.graphql.prediction.queries import PredictionQuery
from app.graphql.registry.comparison import ComparisonQuery
from app.graphql.registry.mutations import RegistryMutation
from app.graphql.registry.queries import RegistryQuery
from app.graphql.scalars import SCALARS
from app.graphql.tenancy.documents import DocumentMutation, DocumentQuery
from app.graphql.tenancy.erasures import ErasureMutation
from app.graphql.tenancy.mutations import TenancyMutation
from app.graphql.tenancy.queries import TenancyQuery
from app.graphql.usage.queries import UsageQuery


@strawberry.type
class Query(
    TenancyQuery,
    DocumentQuery,
    PredictionQuery,
    RegistryQuery,
    ComparisonQuery,
    ExperimentQuery,
    ResultsQuery,
    UsageQuery,
    AuditQuery,
    CaptureQuery,
):
    pass


@strawberry.type
class Mutation(RegistryMutation, ExperimentMutation, OutcomeMutation, TenancyMutation, DocumentMutation, ErasureMutation):
    pass


def build_schema() -> strawberry.Schema:
    """The schema; what must happen on each request is in the handler and the services, so it has no extensions."""
    return strawberry.Schema(query=Query, mutation=Mutation, types=[ErrorCode], config=StrawberryConfig(scalar_map=SCALARS))
