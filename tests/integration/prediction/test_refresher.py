"""From a commit to what this process serves: heard, read, loaded, applied, acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from app.db.line import Line
from app.db.outbox import CHANNEL, announce
from app.errors import AppError, ModelFailed
from app.experiments.flags.building import FlagBuilder
from app.prediction.flags import FlagBook
from app.prediction.picture import read_picture
from app.prediction.pool import NoRoom
from app.prediction.refresher import Refresher
from app.prediction.routing import RoutingTable
from app.registry.mismatches import CompiledMismatches
from app.tenancy.directory import TenantDirectory
from app.tenancy.keys import MasterKey
from tests.integration.registry.conftest import Quiet, registry
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable
    from uuid import UUID

    from app.prediction.pool import Key
    from app.prediction.ports import UnleashShares
    from app.registry.types import VersionRoute
    from tests.integration.registry.conftest import Registry

__all__ = ["registry"]
pytestmark = pytest.mark.integration


class Models:
    """Versions that open, fail or take their time, as a test says. Stands in for the pool, whose models need a model host."""

    def __init__(self) -> None:
        self.open: set[tuple[UUID, int, bool]] = set()  # the last: by its graph
        self.needed: list[frozenset[Key]] = []
        self.failing: dict[int, AppError] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.room_for = 99
        self.shuts: list[UUID] = []

    def opened(self, _tenant_id: UUID, route: VersionRoute) -> object | None:
        return route if (route.model_id, route.number, route.is_compiled) in self.open else None

    async def warm(self, _tenant_id: UUID, routes: Collection[VersionRoute]) -> list[tuple[VersionRoute, AppError]]:
        failures = []
        for route in routes:
            if route.number in self.gates:
                await self.gates[route.number].wait()
            if len(self.open) >= self.room_for:  # as the pool: what nothing needs gives way, what an alias needs does not
                kept = {key[1:] for key in self.needed[-1]}
                self.open = {each for each in self.open if each in kept}
            if len(self.open) >= self.room_for:
                failures.append((route, NoRoom("full")))
            elif route.number in self.failing:
                failures.append((route, self.failing[route.number]))
            else:
                self.open.add((route.model_id, route.number, route.is_compiled))
        return failures

    def shut(self, tenant_id: UUID) -> None:
        self.shuts.append(tenant_id)

    def share_of(self, routes: Iterable[VersionRoute]) -> float:
        return 0.01 * len(list(routes))

    def keep(self, needed: frozenset[Key], of: Collection[UUID]) -> None:
        others = self.needed[-1] if self.needed else frozenset()
        self.needed.append(needed | {key for key in others if key[0] not in of})


class Said:
    """What this replica acknowledged: (generation, cold version numbers); and how often a look ended."""

    def __init__(self) -> None:
        self.acks: list[tuple[int, set[int]]] = []
        self.looks = 0

    def heard(self, _generation: int) -> None:
        self.looks += 1

    def applied(self, _tenant_id: UUID, generation: int, cold: frozenset[tuple[UUID, int]]) -> None:
        self.acks.append((generation, {number for _, number in cold}))


class Nothing:
    """No validation, and nobody who counts."""

    def consider(self, _pending: object) -> None: ...

    def flags_refused(self) -> None: ...


class Process:
    """As much of a serving process as keeps the picture."""

    def __init__(self, registry: Registry, unleash: UnleashShares | None = None) -> None:
        self.registry, self.models, self.said, self.table = registry, Models(), Said(), RoutingTable()
        self.line = Line(registry.urls.sync, "listener", default_transaction_read_only="on")
        directory = TenantDirectory(MasterKey(bytes(32)))
        self.refresher = Refresher(
            self.line,
            registry.sync,
            directory,
            self.table,
            cast("Any", self.models),
            cast("Any", Nothing()),
            cast("Any", self.said),
            FlagBook(directory, FlagBuilder(), cast("Any", Nothing()), unleash),
            ManualClock(),
        )
        self.line.listen(CHANNEL, self.refresher.heard, self.refresher.line_up)
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.refresher.start()
        self.tasks = [asyncio.create_task(self.line.run()), asyncio.create_task(self.refresher.run())]
        await self.until(lambda: self.line.is_up)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110  what is waited for tells nobody
                await asyncio.sleep(0.001)

    def serves(self) -> int | None:
        """What production of `risk` is answered by."""
        model = self.table.tenant(self.registry.tenant).models.get("risk")
        return None if model is None else model.aliases.get("production")

    def compiled(self) -> bool | None:
        """Whether production of `risk` is answered by a graph; None where it is answered by nothing."""
        routes = self.table.tenant(self.registry.tenant)
        routed = routes.aliased.get((routes.models["risk"].model_id, self.serves() or 0))
        return None if routed is None else routed.route.is_compiled

    def compile(self, number: int) -> None:
        """As if the version had a proved graph."""
        proved = (
            "update model_versions set runtime = 'ONNX', compiled_digest = 'graph-' || number, compiled_size_bytes = 9, proof = $2::jsonb"
        )
        self.registry.sql(f"{proved} where number = $1", number, '{"reason": null, "tolerance": 1e-9, "middle": 0.0}')

    async def mismatch(self, number: int) -> None:
        """A live answer of the version's graph was not scikit-learn's."""
        model = await self.registry.service.model(self.registry.ctx, "risk")
        found = CompiledMismatches(self.registry.database, self.registry.clock, Quiet())
        await found.record(self.registry.tenant, model.model_id, number, f"graph-{number}", "another class")

    async def promote(self, number: int) -> int:
        """The change's generation."""
        generation = (await self.registry.service.promote(self.registry.ctx, "risk", number)).generation
        assert generation is not None
        return generation


@pytest.fixture
async def process(registry: Registry) -> AsyncIterator[Process]:
    process = Process(registry)
    for number in (1, 2, 3):
        assert await registry.ready(f"model {number}".encode()) == number
    await process.promote(1)
    await process.start()
    yield process
    for task in process.tasks:
        task.cancel()
    await asyncio.gather(*process.tasks, return_exceptions=True)


async def test_a_change_is_applied_and_acknowledged_when_its_version_is_loaded(process: Process) -> None:
    assert (process.serves(), process.said.acks) == (1, [])
    process.models.gates[2] = asyncio.Event()
    generation = await process.promote(2)
    await process.until(lambda: process.table.generation == generation)
    assert (process.serves(), process.said.acks) == (1, [])
    process.models.gates[2].set()
    await process.until(lambda: process.serves() == 2)
    assert process.said.acks == [(generation, set())]


async def test_what_served_goes_on_where_the_new_version_cannot_be_loaded_and_the_change_is_not_claimed(process: Process) -> None:
    process.models.failing[2] = ModelFailed("its bytes are not those that were uploaded")
    generation = await process.promote(2)
    await process.until(lambda: process.said.acks == [(generation, {2})])
    assert process.serves() == 1
    del process.models.failing[2]
    await process.until(lambda: process.serves() == 2)  # tried again, without another change
    assert process.said.acks[-1] == (generation, set())


async def test_a_withdrawn_version_serves_no_more_even_where_nothing_else_can_be_loaded(process: Process) -> None:
    process.models.failing[2] = ModelFailed("broken")
    await process.promote(2)
    await process.until(lambda: len(process.said.acks) == 1)
    assert process.serves() == 1
    await process.registry.service.withdraw(process.registry.ctx, "risk", 1, "bad data")
    await process.until(lambda: process.serves() == 2)
    assert {number for _, number, _ in process.models.open} == {1}


async def test_nothing_of_an_erased_tenant_is_served_or_open_though_its_rows_are_still_there(process: Process) -> None:
    tenant_id = process.registry.tenant
    process.registry.sql("update tenants set status = 'ERASED', wrapped_secret = ''")
    async with process.registry.database.tenant_tx(tenant_id) as session:
        generation = await announce(session, tenant_id)
    await process.until(lambda: process.said.acks == [(generation, set())])
    assert (process.serves(), process.table.tenant(tenant_id).models, process.models.shuts) == (None, {}, [tenant_id])
    assert process.registry.sql("select count(*) from aliases")[0][0] == 1


async def test_for_want_of_memory_the_old_version_gives_way(process: Process) -> None:
    process.models.failing[2] = NoRoom("full")
    generation = await process.promote(2)
    await process.until(lambda: process.serves() == 2)
    assert process.said.acks == [(generation, {2})]


async def test_a_version_that_does_not_fit_beside_the_old_one_takes_its_place_and_is_claimed_only_then(process: Process) -> None:
    process.models.room_for = 1
    await process.until(lambda: bool(process.models.needed) and bool(process.models.needed[-1]))
    generation = await process.promote(2)
    await process.until(lambda: process.said.acks == [(generation, {2}), (generation, set())])
    assert process.serves() == 2
    assert {number for _, number, _ in process.models.open} == {2}


async def test_what_takes_the_old_ones_place_and_turns_out_broken_gives_it_back(process: Process) -> None:
    process.models.room_for = 1
    process.models.failing[2] = ModelFailed("broken")
    await process.until(lambda: bool(process.models.needed) and bool(process.models.needed[-1]))
    generation = await process.promote(2)
    await process.until(lambda: process.said.acks == [(generation, {2}), (generation, {2})])
    assert process.serves() == 1
    process.refresher.wake()
    await process.until(
        lambda: process.models.needed[-1] == {(process.registry.tenant, next(iter(process.models.needed[-1]))[1], 1, False)}
    )


async def test_a_graph_known_to_be_wrong_answers_nobody_though_its_estimator_takes_its_time_or_cannot_be_loaded(process: Process) -> None:
    process.compile(2)
    await process.promote(2)
    await process.until(lambda: process.serves() == 2)
    assert process.compiled() is True
    process.models.gates[2] = asyncio.Event()
    process.models.failing[2] = ModelFailed("its worker died")
    await process.mismatch(2)
    await process.until(lambda: process.compiled() is False)  # not loaded yet: a request waits for the estimator, or is told to come back
    model_id = process.table.tenant(process.registry.tenant).models["risk"].model_id
    assert process.models.needed[-1] == {(process.registry.tenant, model_id, 2, False)}
    process.models.gates[2].set()
    await process.until(lambda: process.said.acks[-1][1] == {2})
    assert (process.serves(), process.compiled()) == (2, False)
    del process.models.failing[2]
    await process.until(lambda: process.said.acks[-1][1] == set())  # tried again in the background
    assert (model_id, 2, False) in process.models.open


async def test_an_alias_that_was_kept_at_a_version_leaves_that_versions_graph_when_it_is_found_wrong(process: Process) -> None:
    process.compile(2)
    await process.promote(2)
    await process.until(lambda: process.serves() == 2)
    process.models.failing[3] = ModelFailed("broken")
    await process.promote(3)
    await process.until(lambda: process.said.acks[-1][1] == {3})
    assert (process.serves(), process.compiled()) == (2, True)
    await process.mismatch(2)  # no alias points at it any more, as far as the database knows
    await process.until(lambda: process.compiled() is False)
    assert process.serves() == 2


async def test_an_alias_whose_new_version_turns_out_wrong_and_unloadable_keeps_the_other_one(process: Process) -> None:
    process.compile(2)
    process.models.failing[2] = ModelFailed("broken")
    await process.mismatch(2)
    await process.promote(2)
    await process.until(lambda: bool(process.said.acks) and process.said.acks[-1][1] == {2})
    assert (process.serves(), process.compiled()) == (1, False)


async def test_a_slow_model_holds_up_no_other_tenant(process: Process) -> None:
    process.models.gates[2] = asyncio.Event()
    await process.promote(2)
    other = make_tenant(process.registry.urls, "shop")
    async with process.registry.database.tenant_tx(other) as session:
        generation = await announce(session, other)
    await process.until(lambda: (generation, set()) in process.said.acks)
    assert process.serves() == 1


async def test_a_burst_of_changes_is_few_looks_and_ends_with_the_last(process: Process) -> None:
    await process.until(lambda: process.said.looks >= 2)  # the first picture, and the one when the line came up
    async with process.registry.database.tenant_tx(process.registry.tenant) as session:
        for _ in range(50):
            generation = await announce(session, process.registry.tenant)
        before = process.said.looks  # polls go on while fifty changes are made; nobody hears of one before the commit
    await process.until(lambda: process.table.generation == generation)
    assert process.said.acks == [(generation, set())]
    assert process.said.looks - before <= 3  # what was heard, what came while that was read, a poll


async def test_a_line_that_was_lost_means_that_everything_is_read_again(process: Process) -> None:
    broken = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'turnout listener'"
    urls = process.registry.urls
    # As after a failover that lost the newest change and made another: the generation is the one that we know.
    execute(urls.superuser, "update aliases set number = 3")
    execute(urls.superuser, f"{broken} and datname = current_database()")
    await process.until(lambda: process.serves() == 3)


async def test_the_poll_finds_what_nobody_said(process: Process) -> None:
    execute(process.registry.urls.superuser, "update aliases set number = 2")
    execute(process.registry.urls.superuser, "update routing_generation set generation = generation + 1")
    await process.until(lambda: process.serves() == 2)


class TestMoreVersionsThanMemory:
    async def test_at_start_as_many_are_opened_as_fit_and_all_are_served(self, registry: Registry) -> None:
        for number, alias in ((1, "production"), (2, "second"), (3, "third")):
            assert await registry.ready(f"model {number}".encode()) == number
            await registry.service.promote(registry.ctx, "risk", number, alias)
        process = Process(registry)
        process.models.share_of = lambda routes: 0.4 * len(list(routes))  # type: ignore[method-assign]
        await process.start()
        await process.refresher.settled()
        assert len(process.models.open) == 2
        assert len(process.table.tenant(registry.tenant).aliased) == 3
        for task in process.tasks:
            task.cancel()
        await asyncio.gather(*process.tasks, return_exceptions=True)

    async def test_a_change_opens_what_is_new_and_not_what_gave_way_to_others(self, process: Process) -> None:
        await process.registry.service.promote(process.registry.ctx, "risk", 2, "other")
        await process.until(lambda: len(process.models.open) == 2)
        process.models.open = set()
        generation = await process.promote(3)
        await process.until(lambda: (generation, set()) in process.said.acks)
        assert {number for _, number, _ in process.models.open} == {3}


async def test_the_whole_picture_is_the_same_in_portions_and_of_one_moment(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        assert await registry.ready(f"model {number}".encode()) == number
    await registry.service.promote(registry.ctx, "risk", 1)
    for name in ("picture-a", "picture-b", "picture-c"):
        make_tenant(registry.urls, name)
    async with registry.sync.driver_connection() as connection:
        at_once = await read_picture(connection, 0, whole=True)
        for size in (1, 2, 3):
            monkeypatch.setattr("app.prediction.picture._TENANTS_AT_ONCE", size)
            in_portions = await read_picture(connection, 0, whole=True)
            for name in ("generation", "models", "pending", "withdrawn", "changed", "needed", "documents_for_all"):
                assert getattr(in_portions, name) == getattr(at_once, name), name
            assert {s.tenant.id for s in in_portions.tenants} == {s.tenant.id for s in at_once.tenants}
            assert len(in_portions.tenants) == len(at_once.tenants) >= 4
