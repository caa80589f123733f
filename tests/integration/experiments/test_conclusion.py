"""Concluding with a promotion: both or neither; and what the registry knows of experiments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from app.errors import Conflict, InvalidInput, NotPromotable, PermissionDenied
from app.experiments.types import ExperimentStatus, Variant
from app.kernel.context import Role
from tests.integration.experiments.lab import plan

if TYPE_CHECKING:
    from tests.integration.experiments.lab import Lab

pytestmark = pytest.mark.integration


def production(lab: Lab) -> list[tuple[int, int, int | None, str | None]]:
    """(revision, version, version before, reason) of the alias's history."""
    rows = lab.registry.sql("select revision, number, previous_number, reason from promotions where alias = 'production' order by revision")
    return [tuple(row) for row in rows]


async def test_concluding_promotes_the_winner_in_one_transaction(lab: Lab) -> None:
    await lab.registry.service.promote(lab.ctx, "risk", 1)
    await lab.started(rollout=50)
    before = lab.generation()
    concluded = await lab.rollouts.conclude(lab.ctx, "new-price", "v1", expected_revision=1)
    assert (concluded.status, concluded.ended_at) == (ExperimentStatus.CONCLUDED, lab.clock.now())
    assert production(lab)[1:] == [(2, 2, 1, "the experiment new-price was concluded with the variant v1")]
    assert lab.generation() == before + 1
    (*_, (action, _, after, _)) = lab.audited("experiment:new-price")
    assert action == "concludeExperiment"
    assert {name: json.loads(after)[name] for name in ("status", "promotedVariant", "promotedVersion")} == {
        "status": "CONCLUDED",
        "promotedVariant": "v1",
        "promotedVersion": 2,
    }
    assert [row[0] for row in lab.audited("alias:risk/production")] == ["promote", "promote"]
    with pytest.raises(Conflict, match="is CONCLUDED and cannot be concluded: it is over"):
        await lab.rollouts.conclude(lab.ctx, "new-price", "v1")


async def test_where_the_promotion_is_refused_the_experiment_runs_on(lab: Lab) -> None:
    await lab.registry.service.promote(lab.ctx, "risk", 1)
    await lab.started()
    before = lab.generation()
    with pytest.raises(Conflict, match="is at revision 1, not 7: look again"):
        await lab.rollouts.conclude(lab.ctx, "new-price", "v1", expected_revision=7)
    await lab.registry.service.withdraw(lab.ctx, "risk", 2, "wrong data")
    with pytest.raises(NotPromotable) as caught:
        await lab.rollouts.conclude(lab.ctx, "new-price", "v1")
    assert [b["code"] for b in caught.value.details["blockers"]] == ["WITHDRAWN"]
    with pytest.raises(InvalidInput, match="has the variants v0, v1"):
        await lab.rollouts.conclude(lab.ctx, "new-price", "v7")
    assert (await lab.service.experiment(lab.ctx, "new-price")).status is ExperimentStatus.RUNNING
    assert len(production(lab)) == 1
    assert lab.generation() == before + 1  # of the withdrawal
    assert [row[0] for row in lab.audited("experiment:new-price")] == ["createExperiment", "startExperiment"]


async def test_promoting_what_serves_already_concludes_and_is_announced(lab: Lab) -> None:
    await lab.registry.service.promote(lab.ctx, "risk", 1)
    await lab.started()
    before = lab.generation()
    await lab.rollouts.conclude(lab.ctx, "new-price", "v0")
    assert (len(production(lab)), lab.generation()) == (1, before + 1)


async def test_an_experimenter_concludes_and_only_an_admin_promotes_by_it(lab: Lab) -> None:
    experimenter = lab.as_role(Role.EXPERIMENTER)
    await lab.started()
    with pytest.raises(PermissionDenied, match=r"needs the permission PROMOTE \(ADMIN\) as well; your roles \(EXPERIMENTER\)"):
        await lab.rollouts.conclude(experimenter, "new-price", "v1")
    with pytest.raises(InvalidInput, match="expectedRevision is of the alias that promoteVariant moves"):
        await lab.rollouts.conclude(experimenter, "new-price", expected_revision=1)
    assert (await lab.rollouts.conclude(experimenter, "new-price")).status is ExperimentStatus.CONCLUDED
    assert production(lab) == []


async def test_a_version_is_not_archived_while_a_draft_or_running_experiment_has_it(lab: Lab) -> None:
    dark = Variant("dark", 3, None, 1, control=False, shadow=True)
    await lab.create(variants=(*plan("x", 1, 2).variants, dark))
    for number in (1, 2, 3):
        with pytest.raises(Conflict, match=rf"Version {number} of 'risk' is a variant of the experiment 'new-price' \(DRAFT\)"):
            await lab.registry.service.archive(lab.ctx, "risk", number, None)
    await lab.service.start(lab.ctx, "new-price", 5)
    with pytest.raises(Conflict, match=r"is a variant of the experiment 'new-price' \(RUNNING\): stop or conclude"):
        await lab.registry.service.archive(lab.ctx, "risk", 3, None)
    await lab.service.stop(lab.ctx, "new-price", None)
    assert (await lab.registry.service.archive(lab.ctx, "risk", 3, None)).status == "ARCHIVED"


async def test_a_withdrawn_versions_experiment_runs_on_and_falls_back_where_it_serves(lab: Lab) -> None:
    await lab.started()
    await lab.registry.service.withdraw(lab.ctx, "risk", 2, "wrong data")
    assert (await lab.service.experiment(lab.ctx, "new-price")).status is ExperimentStatus.RUNNING


async def test_a_promotion_names_the_experiments_that_still_serve_the_version_before(lab: Lab) -> None:
    dark = Variant("dark", 3, None, 1, control=False, shadow=True)
    registry = lab.registry.service
    await registry.promote(lab.ctx, "risk", 1)
    await lab.started("a-test", rollout=10, layer="ranking", variants=(*plan("x", 1, 2).variants, dark))
    await lab.started("b-test", rollout=10, layer="ranking")
    await lab.create("draft")
    assert (await registry.promote(lab.ctx, "risk", 3)).still_served_by == ("a-test", "b-test")
    assert (await registry.promote(lab.ctx, "risk", 3)).still_served_by == ("a-test", "b-test")
    assert (await registry.promote(lab.ctx, "risk", 2)).still_served_by == ()  # 3 is a shadow: it answers nobody
    assert (await registry.rollback(lab.ctx, "risk")).still_served_by == ("a-test", "b-test")  # 2 answers in both
    await lab.service.stop(lab.ctx, "b-test", None)
    (alias,) = (await registry.aliases_of(lab.ctx, [(await registry.model(lab.ctx, "risk")).model_id])).popitem()[1]
    history = (await registry.history(lab.ctx, alias, 10, None)).items
    assert [(p.previous_version, p.still_served_by) for p in history] == [(2, ("a-test",)), (3, ()), (1, ("a-test",)), (None, ())]
