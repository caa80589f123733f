"""From an experiment's start to the flags that decide in this process: with their versions open, at once, and kept where refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.errors import ModelFailed
from app.experiments.flags.document import FlagsRefused, Problem
from app.experiments.flags.selector import TenantFlags
from app.experiments.unleash.splitting import SplitDocument
from app.prediction import refresher
from app.tenancy.keys import MasterKey, new_secret
from tests.integration.experiments.lab import Lab
from tests.integration.prediction.test_refresher import Process
from tests.integration.registry.conftest import registry
from tests.support.database import execute
from tests.support.unleash_features import document, feature, on, strategy, variant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.experiments.types import Decision
    from app.experiments.unleash.types import UnleashDocument
    from app.prediction.flags import ServedFlags
    from app.prediction.routing import TenantRoutes
    from tests.integration.registry.conftest import Registry

__all__ = ["registry"]
pytestmark = pytest.mark.integration
UNIT = "0" * 32


class FlagServer:
    """What a flag server said last."""

    def __init__(self) -> None:
        self.document: SplitDocument | None = None

    def says(self, revision: int, name: str, version: int) -> None:
        """Everybody gets this variant."""
        flag = feature("model.risk", strategy(on("clinic"), variants=[variant(name, 1000, {"version": version})]))
        self.document = SplitDocument.of(document(flag, revision=revision), shared_flags=False)

    def of_tenant(self, tenant: str) -> UnleashDocument | None:
        return None if self.document is None else self.document.of_tenant(tenant)


class Flagged(Process):
    """A process whose tenant's keys are open, with experiments beside."""

    def __init__(self, registry: Registry) -> None:
        self.server = FlagServer()
        super().__init__(registry, self.server)
        self.lab = Lab(registry)

    @property
    def routes(self) -> TenantRoutes:
        return self.table.tenant(self.registry.tenant)

    def flags(self) -> ServedFlags:
        assert self.routes.flags is not None
        return self.routes.flags

    def decided(self) -> Decision:
        decision = self.flags().decide("risk", UNIT, None)
        assert decision is not None
        return decision

    def kept_open(self) -> set[int]:
        return {number for _, _, number, _ in self.models.needed[-1]}


@pytest.fixture
async def process(registry: Registry) -> AsyncIterator[Flagged]:
    wrapped = MasterKey(bytes(32)).wrap(registry.tenant, new_secret())
    execute(registry.urls.superuser, "update tenants set wrapped_secret = $1", wrapped)
    process = Flagged(registry)
    for number in (1, 2, 3):
        assert await registry.ready(f"model {number}".encode()) == number
    await process.promote(1)
    await process.start()
    yield process
    for task in process.tasks:
        task.cancel()
    await asyncio.gather(*process.tasks, return_exceptions=True)


async def test_flags_decide_when_their_versions_are_open_and_both_begin_in_one_moment(process: Flagged) -> None:
    process.models.gates[2] = asyncio.Event()
    before = process.table.generation
    await process.lab.started()
    await process.until(lambda: process.table.generation > before)
    assert process.routes.flags is None
    assert not process.routes.has("risk", 2)
    seen = process.routes
    process.models.gates[2].set()
    await process.until(lambda: process.routes is not seen)

    assert process.flags().needed == {("risk", 1), ("risk", 2)}
    assert process.routes.has("risk", 2)
    assert process.decided().flag_revision == process.table.generation
    assert process.said.acks[-1] == (process.table.generation, set())


async def test_an_arm_that_cannot_be_opened_holds_nothing_back_and_joins_when_it_can(process: Flagged) -> None:
    process.models.failing[2] = ModelFailed("its bytes are not those that were uploaded")
    await process.lab.started()
    await process.until(lambda: process.routes.flags is not None)
    assert (process.serves(), process.routes.has("risk", 2), process.routes.has("risk", 1)) == (1, False, True)
    del process.models.failing[2]
    await process.until(lambda: process.routes.has("risk", 2))


async def test_versions_of_arms_are_kept_open_until_the_experiment_ends_and_flags_end_with_it(process: Flagged) -> None:
    await process.lab.started()
    await process.until(lambda: process.routes.flags is not None)
    await process.until(lambda: process.kept_open() == {1, 2})
    await process.lab.service.stop(process.lab.ctx, "new-price", None)
    await process.until(lambda: process.routes.flags is None)
    await process.until(lambda: process.kept_open() == {1})


async def test_flags_that_turn_out_wrong_give_way_to_those_from_before(process: Flagged, monkeypatch: pytest.MonkeyPatch) -> None:
    await process.lab.started(rollout=50)
    await process.until(lambda: process.routes.flags is not None)
    before = process.flags()

    def differs(_flags: TenantFlags) -> None:
        raise FlagsRefused([Problem("experiment.new-price", "", "is not decided as it is written.")])

    process.refresher._prove_flags()
    monkeypatch.setattr(TenantFlags, "prove", differs)
    await process.lab.service.ramp(process.lab.ctx, "new-price", 100)
    await process.until(lambda: process.flags() is not before)
    await process.until(lambda: process.flags() is before)


async def test_a_promotion_leaves_the_flags_as_they_are(process: Flagged) -> None:
    await process.lab.started()
    await process.until(lambda: process.routes.flags is not None)
    flags, revision = process.flags(), process.decided().flag_revision
    await process.promote(3)
    await process.until(lambda: process.serves() == 3)
    assert process.flags() is flags
    assert process.decided().flag_revision == revision


async def test_a_withdrawn_arm_is_routed_to_no_more_and_the_flags_go_on(process: Flagged) -> None:
    await process.lab.started()
    await process.until(lambda: process.routes.flags is not None)
    await process.registry.service.withdraw(process.registry.ctx, "risk", 2, "bad data")
    await process.until(lambda: not process.routes.has("risk", 2))
    assert process.decided().experiment == "new-price"


class TestAFlagServer:
    async def test_that_names_versions_which_are_open_decides_at_once(self, process: Flagged) -> None:
        process.server.says(5, "one", 1)
        process.refresher.reflag()
        decision = process.decided()
        assert (decision.experiment, decision.variant, decision.version, decision.flag_revision) == ("unleash-risk", "one", 1, 5)
        process.server.says(6, "first", 1)
        process.refresher.reflag()
        assert (process.decided().variant, process.decided().flag_revision) == ("first", 6)

    async def test_that_names_a_new_version_decides_when_the_tenants_next_change_has_brought_it(self, process: Flagged) -> None:
        process.server.says(5, "one", 1)
        process.refresher.reflag()
        process.server.says(6, "two", 2)
        process.refresher.reflag()
        assert process.decided().variant == "one"
        await process.lab.started()  # brings version 2
        await process.until(lambda: process.routes.has("risk", 2))
        assert process.flags().needed == {("risk", 1), ("risk", 2)}

    async def test_that_names_a_version_which_does_not_come_is_taken_at_its_word_after_a_while(
        self, process: Flagged, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refresher, "_VERSIONS_WITHIN_S", 0.01)
        process.server.says(5, "one", 1)
        process.refresher.reflag()
        process.server.says(6, "nine", 9)
        process.refresher.reflag()
        assert process.decided().variant == "one"
        await process.until(lambda: process.decided().variant == "nine")

    async def test_that_says_nothing_new_of_a_tenant_changes_nothing_there(self, process: Flagged) -> None:
        process.server.says(5, "one", 1)
        process.refresher.reflag()
        flags = process.flags()
        process.server.says(6, "one", 1)
        process.refresher.reflag()
        assert process.flags() is flags

    async def test_whose_flag_is_gone_leaves_no_flags(self, process: Flagged) -> None:
        process.server.says(5, "one", 1)
        process.refresher.reflag()
        process.server.document = SplitDocument.of(document(revision=6), shared_flags=False)
        process.refresher.reflag()
        assert process.routes.flags is None
