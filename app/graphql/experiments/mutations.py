"""Changing experiments."""

from __future__ import annotations

import strawberry

from app.experiments import types
from app.graphql.context import Info, root_mutation
from app.graphql.experiments.inputs import CreateExperimentInput, UpdateExperimentInput
from app.graphql.experiments.types import Experiment
from app.graphql.scalars import given
from app.kernel.context import Action


@strawberry.type
class ExperimentMutation:
    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "A draft: nobody takes part until it is started. Refused, with all that is wrong, where it cannot be tried.",
        graphql_type=Experiment | None,
    )
    async def create_experiment(self, info: Info, input: CreateExperimentInput) -> types.Experiment:  # noqa: A002  the contract's
        return await info.context.services.experiments.create(info.context.request, input.plan(), input.forced())

    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "Change a draft. Once it runs, variants, weights and plan stay: ramp it, or stop it and create another. An experiment that was "
        "born in Unleash may be given its metrics and looks, once.",
        graphql_type=Experiment | None,
    )
    async def update_experiment(self, info: Info, key: str, input: UpdateExperimentInput) -> types.Experiment:  # noqa: A002  as create
        return await info.context.services.experiments.update(info.context.request, key, input.changes(), input.forced())

    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "Start a draft for `rollout` percent of units (0.1 to 100, in steps of 0.001). Refused while another experiment runs on the model, "
        "unless both share a layer.",
        graphql_type=Experiment | None,
    )
    async def start_experiment(self, info: Info, key: str, rollout: float = 100) -> types.Experiment:
        return await info.context.services.experiments.start(info.context.request, key, rollout)

    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "Change what share of units takes part, in percent (0.1 to 100). Nobody who takes part changes variant.",
        graphql_type=Experiment | None,
    )
    async def ramp_experiment(self, info: Info, key: str, rollout: float) -> types.Experiment:
        return await info.context.services.experiments.ramp(info.context.request, key, rollout)

    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "Nobody takes part any more: everybody gets the alias `production`. The results stay.",
        graphql_type=Experiment | None,
    )
    async def stop_experiment(self, info: Info, key: str, reason: str | None = strawberry.UNSET) -> types.Experiment:
        return await info.context.services.experiments.stop(info.context.request, key, given(reason))

    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "End it, and promote the model version of the named variant to the alias `production`: both or neither. Promoting needs an "
        "ADMIN. `expectedRevision` is the alias's.",
        graphql_type=Experiment | None,
    )
    async def conclude_experiment(
        self,
        info: Info,
        key: str,
        promote_variant: str | None = strawberry.UNSET,
        expected_revision: int | None = strawberry.UNSET,
        reason: str | None = strawberry.UNSET,
    ) -> types.Experiment:
        return await info.context.services.rollouts.conclude(
            info.context.request, key, given(promote_variant), given(expected_revision), given(reason)
        )
