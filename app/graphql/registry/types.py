"""Models, versions, aliases and promotions on the wire. Fields read the registry's values by attribute; lists come through loaders."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry
from strawberry.scalars import JSON

from app.graphql.context import Info
from app.graphql.paging import PageInfo, connection, first_of
from app.graphql.scalars import BigInt, given
from app.kernel import signature
from app.kernel.signature import ColumnType, Task
from app.registry import types
from app.registry.types import FallbackKind, RuntimeKind, VersionStatus

strawberry.enum(Task, name="Task")
strawberry.enum(ColumnType, name="ColumnType")
strawberry.enum(VersionStatus, name="VersionStatus")
strawberry.enum(FallbackKind, name="FallbackKind")
strawberry.enum(
    RuntimeKind,
    name="RuntimeKind",
    description="How a version is served: compiled to ONNX and run in process, run by scikit-learn in an isolated worker, or by a remote "
    "Open Inference Protocol server.",
)


@strawberry.type
class Column:
    name: str
    type: ColumnType
    required: bool
    minimum: float | None
    maximum: float | None
    categories: list[str] | None


@strawberry.type(description="Where a version comes from, in the words of whoever registered it.")
class Lineage:
    training_data: str | None
    git_commit: str | None
    pipeline_run: str | None
    parent_version: int | None


@strawberry.type(description="The version of another tenant that this one was published from.")
class VersionOrigin:
    tenant: str
    model: str
    version: int
    artifact_digest: str


@strawberry.type(description="What the inspection found: the versions that serve here, and the scikit-learn that trained the artifact.")
class VersionEnvironment:
    python: str | None
    scikit_learn: str | None
    numpy: str | None
    trained_with: str | None
    estimator: str | None


@strawberry.type(description="What was found out about compiling a version: whether a graph answers for scikit-learn, or why not.")
class CompilationProof:
    reason: str | None = strawberry.field(description="Why scikit-learn itself serves. Null: the compiled graph does.")
    rows: int = strawberry.field(description="How many rows both answered in the proof.")
    tolerance: float | None = strawberry.field(
        description="How far an answer may be from scikit-learn's: a probability as it is, a number in the unit of the target."
    )
    largest_difference: float | None = strawberry.field(description="The largest that was found, among rows like those that clients send.")
    handed_back: int = strawberry.field(description="Rows of the proof that the graph leaves to scikit-learn, as it does when it serves.")
    native_us: float | None = strawberry.field(name="nativeMicroseconds", description="What one row costs scikit-learn; the median.")
    compiled_us: float | None = strawberry.field(name="compiledMicroseconds", description="What one row costs the graph; the median.")
    speed_up: float | None
    precision: str | None = strawberry.field(description="What the graph computes with: float32 or float64.")
    mismatches: int = strawberry.field(description="Answers to live requests that differed from scikit-learn's by more than the tolerance.")


@strawberry.type
class ModelVersion:
    model: str
    number: int
    status: VersionStatus
    status_reason: str | None
    artifact_digest: str | None = strawberry.field(description="Null for versions that a remote server runs.")
    size_bytes: BigInt | None
    runtime: RuntimeKind | None
    classes: list[str] | None
    metrics: JSON | None
    tags: JSON | None
    description: str | None
    created_at: datetime
    created_by: str
    lineage: Lineage | None
    environment: VersionEnvironment | None = strawberry.field(description="Null until the version was inspected.")
    warning: str | None = strawberry.field(description="It serves, but: trained with another scikit-learn, for one.")
    artifact_deleted_at: datetime | None = strawberry.field(
        description="When retention deleted the bytes of a version that had been archived, withdrawn or FAILED. The record stays."
    )

    proof: CompilationProof | None = strawberry.field(description="Null until the version is READY.")
    origin: VersionOrigin | None = strawberry.field(description="Null unless another tenant published this version here.")

    @strawberry.field(graphql_type=list[Column], description="Empty until the version is READY, unless it was given.")
    def signature(self, root: strawberry.Parent[types.ModelVersion]) -> list[signature.Column]:
        return list(root.columns)


@strawberry.type
class ReplicaAck:
    replica: str
    applied_at: datetime | None


@strawberry.type
class Promotion:
    model: str
    alias: str
    version: int
    previous_version: int | None
    revision: int
    at: datetime
    by: str
    reason: str | None
    applied_by: list[ReplicaAck] = strawberry.field(
        description="Replicas that counted as live at the moment of the change, and when each began to serve it (null: not yet heard)."
    )
    applied_everywhere: bool
    still_served_by: list[str] = strawberry.field(description="Experiments that still serve the previous version as one of their variants.")


@strawberry.type
class PromotionEdge:
    cursor: str
    node: Promotion


@strawberry.type
class PromotionConnection:
    edges: list[PromotionEdge]
    page_info: PageInfo


@strawberry.type
class PromotionBlocker:
    code: str
    message: str
    overridable: bool


@strawberry.type
class Alias:
    name: str
    revision: int

    @strawberry.field(graphql_type=ModelVersion)
    async def version(self, root: strawberry.Parent[types.Alias], info: Info) -> types.ModelVersion:
        return await info.context.loaders.versions.load((root.model_id, root.number))

    @strawberry.field(graphql_type=PromotionConnection)
    async def history(
        self, root: strawberry.Parent[types.Alias], info: Info, first: int | None = 20, after: str | None = strawberry.UNSET
    ) -> Any:
        page = await info.context.services.registry.history(info.context.request, root, first_of(first), given(after))
        return connection(PromotionConnection, PromotionEdge, page)


@strawberry.type
class ModelVersionEdge:
    cursor: str
    node: ModelVersion


@strawberry.type
class ModelVersionConnection:
    edges: list[ModelVersionEdge]
    page_info: PageInfo


@strawberry.type(
    description="What answers where the routed version cannot: the alias's previous version, a named version, or a fixed answer "
    "(a label or a number)."
)
class Fallback:
    kind: FallbackKind
    version: int | None
    answer: JSON | None


@strawberry.type
class Model:
    name: str
    task: Task
    description: str | None
    fallback: Fallback | None
    cache_seconds: int = strawberry.field(
        description="For how many seconds the same input to the same version may be given the same answer again; 0: never."
    )

    @strawberry.field(graphql_type=ModelVersionConnection)
    async def versions(
        self, root: strawberry.Parent[types.Model], info: Info, first: int | None = 20, after: str | None = strawberry.UNSET
    ) -> Any:
        page = await info.context.services.registry.versions(info.context.request, root, first_of(first), given(after))
        return connection(ModelVersionConnection, ModelVersionEdge, page)

    @strawberry.field(graphql_type=ModelVersion | None)
    async def version(self, root: strawberry.Parent[types.Model], info: Info, number: int) -> types.ModelVersion:
        return await info.context.services.registry.version(info.context.request, root, number)

    @strawberry.field(graphql_type=list[Alias])
    async def aliases(self, root: strawberry.Parent[types.Model], info: Info) -> list[types.Alias]:
        return await info.context.loaders.aliases.load(root.model_id)


@strawberry.type
class ModelEdge:
    cursor: str
    node: Model


@strawberry.type
class ModelConnection:
    edges: list[ModelEdge]
    page_info: PageInfo
