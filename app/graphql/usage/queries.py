"""What a tenant used and what it costs, and how well it was served."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from app.graphql.context import Info, root_field
from app.graphql.scalars import BigInt, moment
from app.kernel.context import Action

if TYPE_CHECKING:
    from app.tenancy.service_levels import ServiceLevel as Level
    from app.usage import types


@strawberry.type
class ModelUsage:
    model: str
    version: int
    requests: BigInt
    rows: BigInt
    compute_ms: float


@strawberry.type(description="One version on one UTC day. Without a model: uploads that no version was registered from.")
class DayUsage:
    day: date
    model: str | None
    version: int | None
    requests: BigInt
    rows: BigInt
    compute_ms: float
    artifact_bytes: BigInt = strawberry.field(description="At the end of the day. An artifact of several versions counts for one of them.")


@strawberry.type
class Usage:
    requests: BigInt
    rows: BigInt
    compute_ms: float
    artifact_bytes: BigInt = strawberry.field(description="What is kept at the end of the time.")
    cost_micros: BigInt = strawberry.field(description="In millionths of the currency: the exact sum, rounded once, half up.")
    currency: str
    by_model: list[ModelUsage]
    start: strawberry.Private[datetime]
    end: strawberry.Private[datetime]

    @strawberry.field(description="The same by UTC day, model and version; of 31 days at the most.")
    async def by_day(self, info: Info) -> list[DayUsage]:
        found = await info.context.services.usage.by_day(info.context.request, self.start, self.end)
        return [_day(each) for each in found]


@strawberry.type
class ServiceLevel:
    requests: BigInt = strawberry.field(description="Requests for predictions that were answered or should have been.")
    failed: BigInt = strawberry.field(description="Of these, how many brought an error that was not the caller's.")
    late: BigInt = strawberry.field(description="Of these, how many did not fail and took longer than the service is to take.")
    share: float = strawberry.field(description="Of the requests, in time and without an error; 1 where there were none.")
    objective: float
    error_budget_left: float = strawberry.field(
        description="1: nothing failed or was late; 0: as much as the objective allows; negative: more."
    )


@strawberry.type
class UsageQuery:
    @root_field(
        Action.READ_USAGE,
        "What your tenant used from one time up to, not including, another, and what that costs. Whole UTC days are exact for good; "
        "of a day that is cut, the log is counted while it keeps it.",
        graphql_type=Usage,
    )
    async def usage(
        self,
        info: Info,
        start: Annotated[datetime, strawberry.argument(name="from")],
        end: Annotated[datetime, strawberry.argument(name="to")],
    ) -> Any:
        first, last = moment("from", start), moment("to", end)
        return _usage(await info.context.services.usage.usage(info.context.request, first, last), first, last)

    @root_field(
        Action.READ_USAGE,
        "How well your tenant was served over the last days, today included; some seconds behind.",
        graphql_type=ServiceLevel,
    )
    async def service_level(self, info: Info, days: int | None = 30) -> Any:
        return _level(await info.context.services.service_levels.of(info.context.request, 30 if days is None else days))


def _usage(found: types.Usage, start: datetime, end: datetime) -> Usage:
    used = found.quantities
    models = [
        ModelUsage(
            model=each.model,
            version=each.version,
            requests=BigInt(each.requests),
            rows=BigInt(each.rows),
            compute_ms=each.compute_us / 1000,
        )
        for each in found.by_model
    ]
    return Usage(
        requests=BigInt(used.requests),
        rows=BigInt(used.rows),
        compute_ms=used.compute_us / 1000,
        artifact_bytes=BigInt(found.artifact_bytes),
        cost_micros=BigInt(found.cost_micros),
        currency=found.currency,
        by_model=models,
        start=start,
        end=end,
    )


def _day(each: types.DayUsage) -> DayUsage:
    return DayUsage(
        day=each.day,
        model=each.model,
        version=each.version,
        requests=BigInt(each.requests),
        rows=BigInt(each.rows),
        compute_ms=each.compute_us / 1000,
        artifact_bytes=BigInt(each.artifact_bytes),
    )


def _level(level: Level) -> ServiceLevel:
    return ServiceLevel(
        requests=BigInt(level.requests),
        failed=BigInt(level.failed),
        late=BigInt(level.late),
        share=level.share,
        objective=level.objective,
        error_budget_left=level.error_budget_left,
    )
