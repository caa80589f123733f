"""What clients send about models and versions, and how it becomes the registry's values."""

from __future__ import annotations

from typing import Any

import strawberry
from strawberry.scalars import JSON

from app.errors import InvalidInput
from app.graphql.scalars import FeatureRow, given
from app.kernel import signature
from app.kernel.signature import ColumnType, Task
from app.registry import types
from app.registry.types import FallbackKind


@strawberry.input
class ColumnInput:
    name: str
    type: ColumnType
    required: bool = True
    minimum: float | None = strawberry.UNSET
    maximum: float | None = strawberry.UNSET
    categories: list[str] | None = strawberry.UNSET

    def value(self) -> signature.Column:
        categories = given(self.categories)
        return signature.Column(
            name=self.name,
            type=self.type,
            required=self.required,
            minimum=given(self.minimum),
            maximum=given(self.maximum),
            categories=None if categories is None else tuple(categories),
        )


@strawberry.input
class LineageInput:
    training_data: str | None = strawberry.field(default=strawberry.UNSET, description="Which data: a name, an address, a fingerprint.")
    git_commit: str | None = strawberry.UNSET
    pipeline_run: str | None = strawberry.UNSET
    parent_version: int | None = strawberry.field(default=strawberry.UNSET, description="A version of the same model.")

    def value(self) -> types.Lineage:
        return types.Lineage(given(self.training_data), given(self.git_commit), given(self.pipeline_run), given(self.parent_version))


@strawberry.input
class RegisterModelVersionInput:
    model: str
    task: Task
    artifact_digest: str | None = strawberry.field(default=strawberry.UNSET, description="sha256 hex that POST /artifacts answered with.")
    signature: list[ColumnInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Left out where the artifact itself names and types its columns, or the sample does."
    )
    sample: list[FeatureRow] | None = strawberry.field(
        default=strawberry.UNSET, description="5 to 1,000 rows, run through the model before it is READY."
    )
    metrics: JSON | None = strawberry.UNSET
    tags: JSON | None = strawberry.UNSET
    description: str | None = strawberry.UNSET
    lineage: LineageInput | None = strawberry.UNSET

    def value(self) -> types.VersionRegistration:
        columns, digest, lineage = given(self.signature), given(self.artifact_digest), given(self.lineage)
        if digest is None:
            raise InvalidInput("artifactDigest is missing: upload the file with POST /artifacts and send the digest that it answers with.")
        return types.VersionRegistration(
            model=self.model,
            task=self.task,
            artifact_digest=digest,
            columns=None if columns is None else tuple(column.value() for column in columns),
            sample=tuple(given(self.sample) or ()),
            metrics=given(self.metrics),
            tags=given(self.tags),
            description=given(self.description),
            lineage=None if lineage is None else lineage.value(),
        )


@strawberry.input
class FallbackInput:
    kind: FallbackKind
    version: int | None = strawberry.UNSET
    answer: JSON | None = strawberry.UNSET


@strawberry.input
class UpdateModelInput:
    description: str | None = strawberry.UNSET
    fallback: FallbackInput | None = strawberry.UNSET
    cache_seconds: int | None = strawberry.UNSET

    def changes(self) -> dict[str, Any]:
        """Only what was sent: null clears, left out stays."""
        sent = {"description": self.description, "fallback": self.fallback, "cache_seconds": self.cache_seconds}
        changes: dict[str, Any] = {name: value for name, value in sent.items() if value is not strawberry.UNSET}
        if isinstance(self.fallback, FallbackInput):
            fallback = self.fallback
            changes["fallback"] = types.Fallback(fallback.kind, given(fallback.version), given(fallback.answer))
        return changes
