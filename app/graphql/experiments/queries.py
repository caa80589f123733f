"""Reading experiments."""

from __future__ import annotations

from typing import Any

import strawberry

from app.experiments import types
from app.graphql.context import Info, root_field
from app.graphql.experiments.enums import ExperimentStatus
from app.graphql.experiments.types import Experiment, ExperimentConnection, ExperimentEdge
from app.graphql.paging import connection, first_of
from app.graphql.scalars import given
from app.kernel.context import Action


@strawberry.type
class ExperimentQuery:
    @root_field(Action.READ_EXPERIMENTS, "One experiment of your tenant.", graphql_type=Experiment | None)
    async def experiment(self, info: Info, key: str) -> types.Experiment:
        return await info.context.services.experiments.experiment(info.context.request, key)

    @root_field(
        Action.READ_EXPERIMENTS,
        "Your tenant's experiments, newest first; of one model or status where it is named.",
        graphql_type=ExperimentConnection,
    )
    async def experiments(
        self,
        info: Info,
        model: str | None = strawberry.UNSET,
        status: ExperimentStatus | None = strawberry.UNSET,
        first: int | None = 20,
        after: str | None = strawberry.UNSET,
    ) -> Any:
        page = await info.context.services.experiments.experiments(
            info.context.request, first_of(first), given(after), given(model), given(status)
        )
        return connection(ExperimentConnection, ExperimentEdge, page)
