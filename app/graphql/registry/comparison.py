"""Two versions side by side, on the wire."""

from __future__ import annotations

import strawberry
from strawberry.scalars import JSON

from app.graphql.context import Info, root_field
from app.graphql.registry.types import ModelVersion
from app.graphql.scalars import FeatureRow
from app.kernel.context import Action
from app.prediction import comparison


@strawberry.type
class ComparedMetric:
    name: str
    a: JSON | None
    b: JSON | None
    difference: float | None = strawberry.field(description="b less a, where both are numbers.")


@strawberry.type(description="Something that callers of one version send and the other would refuse, or read otherwise.")
class SignatureBreak:
    code: str
    message: str


@strawberry.type
class ComparedAnswer:
    label: str | None
    probability: float | None = strawberry.field(description="That of `label`.")
    value: float | None


@strawberry.type
class ComparedRow:
    row: FeatureRow
    a: ComparedAnswer
    b: ComparedAnswer
    agree: bool = strawberry.field(description="The same label; or values that agree to six digits.")
    difference: float | None = strawberry.field(description="The largest of any class's probability, or that of the values.")


@strawberry.type(description="What both answer to the sample that b was registered with, else to a's.")
class ComparedAnswers:
    rows: list[ComparedRow] = strawberry.field(description="The first 50.")
    compared: int = strawberry.field(description="Of how many rows the agreement and the largest difference are.")
    agreement: float | None = strawberry.field(description="The share of rows, 0 to 1, on which they agree.")
    largest_difference: float | None
    unavailable: str | None = strawberry.field(description="Why there is nothing to compare.")


@strawberry.type
class ModelVersionComparison:
    a: ModelVersion
    b: ModelVersion
    metrics: list[ComparedMetric]
    breaks_callers_of_a: list[SignatureBreak] = strawberry.field(description="Where b takes the place of a.")
    breaks_callers_of_b: list[SignatureBreak] = strawberry.field(description="Where a takes the place of b.")
    columns_added: list[str] = strawberry.field(description="Columns of b that a does not have.")
    columns_removed: list[str] = strawberry.field(description="Columns of a that b does not have.")
    classes_equal: bool
    sample_of: int | None = strawberry.field(description="The version whose sample was asked.")
    answers: ComparedAnswers


@strawberry.type
class ComparisonQuery:
    @root_field(
        Action.READ_REGISTRY,
        "Two versions of a model side by side: metrics, signature, classes, and what both answer to a sample. The answers are nobody's "
        "predictions: they are not in the log and count against no quota.",
        graphql_type=ModelVersionComparison | None,
    )
    async def compare_model_versions(self, info: Info, model: str, a: int, b: int) -> comparison.VersionComparison:
        return await info.context.services.comparer.compare(info.context.request, model, a, b)
