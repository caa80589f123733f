"""Who serves a change: what replicas wrote down, and nothing that was not heard."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from app.db.line import Line
from app.errors import Unavailable
from app.registry import effect
from app.registry.effect import NO_VERSION, Effect, await_effect, effects_of, version_key
from app.registry.everywhere import Everywhere
from app.registry.life_signs import LifeSigns
from app.registry.replicas import Replica
from app.registry.types import Promotion
from tests.integration.registry.conftest import Quiet
from tests.support.clock import ManualClock
from tests.support.database import make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from tests.integration.registry.conftest import Registry

pytestmark = pytest.mark.integration

MODEL = UUID(int=9)
VERSION = version_key(MODEL, 2)


class House:
    """Replicas that write for real, and what is known of changes."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.clock = registry, ManualClock()
        self.tasks: list[asyncio.Task[None]] = []

    async def replica(self, name: str, generation: int = 0, signs: Path | None = None) -> Replica:
        line = Line(self.registry.urls.runtime, "replica")
        self.tasks.append(asyncio.create_task(line.run()))
        replica_id = uuid4()
        own_signs = None if signs is None else LifeSigns(signs, replica_id)
        replica = Replica(line, replica_id, name, self.clock, own_signs)
        replica.heard(generation)
        await replica.join()
        return replica

    def running(self, replica: Replica) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(replica.run()))
        return self.tasks[-1]

    async def effect(self, generation: int, version: str = VERSION) -> Effect:
        async with self.registry.database.tenant_tx(self.registry.tenant) as session:
            return (await effects_of(session, self.registry.tenant, [(generation, version)]))[(generation, version)]

    async def awaited(self, generation: int, within_s: float = 60.0) -> Effect:
        return await await_effect(self.registry.database, self.registry.tenant, (generation, VERSION), within_s)

    def silent(self, name: str, seconds: int) -> None:
        self.registry.sql(f"update replicas set seen_at = now() - interval '{seconds} seconds' where name = $1", name)


@pytest.fixture
async def house(registry: Registry) -> AsyncIterator[House]:
    house = House(registry)
    yield house
    for task in house.tasks:
        task.cancel()
    await asyncio.gather(*house.tasks, return_exceptions=True)


def named(effect: Effect) -> dict[str, bool]:
    return {ack.replica: ack.applied_at is not None for ack in effect.applied_by}


async def test_a_change_is_everywhere_when_each_live_replica_has_said_so(house: House) -> None:
    first, second = await house.replica("a"), await house.replica("b")
    house.running(first)
    house.running(second)
    first.applied(house.registry.tenant, 5, frozenset())
    waiting = asyncio.create_task(house.awaited(5))
    early = await house.awaited(5, within_s=0.0)
    assert early.everywhere is False
    second.applied(house.registry.tenant, 6, frozenset())  # a later change holds the earlier one
    known = await waiting
    assert (named(known), known.everywhere) == ({"a": True, "b": True}, True)
    assert (await house.effect(6)).everywhere is False
    assert named(await house.effect(6)) == {"a": False, "b": True}


class Here:
    """This process's picture, which catches up when it is let."""

    def __init__(self) -> None:
        self.asked: list[UUID | None] = []
        self.may = asyncio.Event()

    def wake(self) -> None: ...

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        self.asked.append(tenant_id)
        await self.may.wait()


class Away(Quiet):
    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        raise Unavailable("away")


def unheard(lines: list[Any]) -> list[Any]:
    """Of the log: who is said not to have heard of a change."""
    return [line["replicas"] for line in lines if line["event"] == "a change is not heard of by every replica"]


async def test_a_change_about_no_version_is_served_when_every_replica_has_taken_it_in_whatever_it_could_not_load(house: House) -> None:
    first, second = await house.replica("a"), await house.replica("b")
    house.running(first)
    house.running(second)
    first.applied(house.registry.tenant, 5, frozenset())
    with capture_logs() as lines:
        waiting = asyncio.create_task(house.registry.everywhere.in_force(house.registry.tenant, 5))
        while not named(await house.effect(5))["a"]:  # noqa: ASYNC110  the database tells nobody
            await asyncio.sleep(0)
        assert not waiting.done()
        second.applied(house.registry.tenant, 5, frozenset({(MODEL, 2)}))
        await waiting
    assert unheard(lines) == []


async def test_who_is_not_heard_of_is_named_and_who_is_unknown_is_called_so(house: House) -> None:
    with capture_logs() as lines:
        await house.registry.everywhere.in_force(house.registry.tenant, 5)
    assert unheard(lines) == [("unknown",)]
    speaks = await house.replica("speaks")
    await house.replica("silent")
    house.running(speaks)
    speaks.applied(house.registry.tenant, 5, frozenset())
    await speaks_of(house, 5, "speaks")
    house.silent("silent", 7)
    with capture_logs() as lines:
        await house.registry.everywhere.in_force(house.registry.tenant, 5)
    assert unheard(lines) == [("silent",)]


async def test_a_change_is_in_force_only_once_this_process_too_serves_it_whoever_else_has_said_so(house: House) -> None:
    other, here = await house.replica("other"), Here()
    house.running(other)
    other.applied(house.registry.tenant, 5, frozenset())
    await speaks_of(house, 5, "other")
    everywhere = Everywhere(house.registry.database, here)
    told = asyncio.create_task(everywhere.in_force(house.registry.tenant, 5))
    known = asyncio.create_task(everywhere.effect_of(house.registry.tenant, (5, VERSION)))
    async with asyncio.timeout(20):
        while len(here.asked) < 2:  # noqa: ASYNC110  both are about to ask
            await asyncio.sleep(0)
    assert (await house.awaited(5)).everywhere
    assert (told.done(), known.done(), here.asked) == (False, False, [house.registry.tenant] * 2)
    here.may.set()
    await told
    assert (await known).everywhere


async def test_a_change_stands_though_this_process_cannot_catch_up_just_now(house: House) -> None:
    everywhere = Everywhere(house.registry.database, Away())
    with capture_logs() as lines:
        await everywhere.in_force(house.registry.tenant, 5)
        assert await everywhere.effect_of(house.registry.tenant, (5, VERSION)) == Effect((), everywhere=False, hopeless=True)
    assert [line["event"] for line in lines].count("the picture was not refreshed after a change") == 2


async def beat(house: House, replica: Replica, generation: int) -> None:
    """The replica's picture is of this generation, and it has said so with a heartbeat."""
    replica.heard(generation)
    house.clock.advance(10)
    async with asyncio.timeout(20):
        while house.registry.sql("select generation from replicas where name = $1", replica.name)[0][0] != generation:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_change_for_all_tenants_is_in_force_when_every_replicas_picture_is_as_new(house: House) -> None:
    first, second, here = await house.replica("a"), await house.replica("b"), Here()
    await house.replica("late", generation=5)  # began with it
    house.running(first)
    house.running(second)
    await beat(house, first, 5)
    await beat(house, second, 4)
    with capture_logs() as lines:
        waiting = asyncio.create_task(Everywhere(house.registry.database, here).in_force(None, 5))
        while not here.asked:  # noqa: ASYNC110  it is about to
            await asyncio.sleep(0)
        here.may.set()
        assert not waiting.done()
        await beat(house, second, 6)  # a later picture holds the earlier change
        await waiting
    assert (unheard(lines), here.asked) == ([], [None])


async def test_a_change_for_all_tenants_is_in_force_only_once_this_process_too_serves_it(house: House) -> None:
    await house.replica("other", generation=5)
    here = Here()
    waiting = asyncio.create_task(Everywhere(house.registry.database, here).in_force(None, 5))
    await house.registry.everywhere.in_force(None, 5)  # as long as it takes to ask for the replicas' pictures
    assert not waiting.done()
    here.may.set()
    await waiting


async def test_who_has_not_heard_of_a_change_for_all_tenants_is_named(house: House) -> None:
    async def named_of(generation: int) -> list[Any]:
        with capture_logs() as lines:
            await house.registry.everywhere.in_force(None, generation)
        return unheard(lines)

    assert await named_of(5) == [("unknown",)]  # this process is not on record either
    await house.replica("has", generation=5)
    await house.replica("silent")
    house.silent("silent", 7)
    assert await named_of(5) == [("silent",)]
    assert await named_of(6) == [("has", "silent")]  # one of them is heard of, and was waited for
    house.silent("silent", 601)
    assert await named_of(5) == []


@pytest.mark.parametrize("change", ["update_model", "archive", "withdraw"])
async def test_what_a_change_says_is_in_force_at_every_replica_when_it_returns(house: House, change: str) -> None:
    registry = house.registry
    number = await registry.ready(b"one")
    first, second = await house.replica("a"), await house.replica("b")
    house.running(first)
    house.running(second)
    before = registry.sql("select generation from routing_generation")[0][0]
    work: Callable[[], Coroutine[Any, Any, Any]] = {
        "update_model": lambda: registry.service.update_model(registry.ctx, "risk", {"cache_seconds": 60}),
        "archive": lambda: registry.service.archive(registry.ctx, "risk", number, None),
        "withdraw": lambda: registry.service.withdraw(registry.ctx, "risk", number, "it is wrong"),
    }[change]
    returned = asyncio.create_task(work())
    while registry.sql("select generation from routing_generation")[0][0] == before:  # noqa: ASYNC110  it is about to commit
        await asyncio.sleep(0)
    first.applied(registry.tenant, before + 1, frozenset())
    await speaks_of(house, before + 1, "a")
    assert not returned.done()
    second.applied(registry.tenant, before + 1, frozenset())
    await returned
    assert (await house.effect(before + 1)).everywhere


async def test_a_replica_that_left_is_no_longer_waited_for_and_still_told_of_where_it_served(house: House) -> None:
    stays, leaves = await house.replica("stays"), await house.replica("leaves")
    house.running(stays)
    running = house.running(leaves)
    for replica in (stays, leaves):
        replica.applied(house.registry.tenant, 5, frozenset())
    assert (await house.awaited(5)).everywhere
    running.cancel()
    await leaves.leave()
    stays.applied(house.registry.tenant, 7, frozenset())
    assert named(await house.awaited(7)) == {"stays": True}
    assert named(await house.effect(5)) == {"leaves": True, "stays": True}


async def test_a_replica_whose_process_has_ended_counts_no_more_once_its_successor_has_joined(house: House, tmp_path: Path) -> None:
    folder = tmp_path / "replicas"
    await house.replica("dead", signs=folder)
    await house.replica("elsewhere")
    (held,) = handles_below(folder)
    assert named(await house.effect(5)) == {"dead": False, "elsewhere": False}
    os.close(held)  # as the kernel does for a process that was killed
    successor = await house.replica("successor", signs=folder)
    assert named(await house.effect(5)) == {"elsewhere": False, "successor": False}
    house.registry.sql("update replicas set left_at = null where name = 'dead'")  # its last heartbeat was under way
    house.running(successor)
    await heard(house, "dead", left=True)


async def test_another_process_of_the_machine_tells_of_the_dead_one(house: House, tmp_path: Path) -> None:
    lives = await house.replica("lives", signs=tmp_path)
    house.running(lives)
    signs = LifeSigns(tmp_path, UUID(int=7))
    signs.show()
    house.registry.sql("insert into replicas (replica_id, name) values ($1, 'dead')", UUID(int=7))
    assert named(await house.effect(5)) == {"dead": False, "lives": False}
    assert signs._held is not None
    os.close(signs._held)
    await heard(house, "dead", left=True)
    assert named(await house.effect(5)) == {"lives": False}


def handles_below(folder: Path) -> list[int]:
    """Descriptors of this process that are open on files of the folder."""
    return [int(path.name) for path in Path("/proc/self/fd").iterdir() if str(path.resolve()).startswith(str(folder))]


async def heard(house: House, name: str, *, left: bool) -> None:
    async with asyncio.timeout(30):
        while house.registry.sql("select left_at is not null from replicas where name = $1", name)[0][0] is not left:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_silent_replica_shows_as_not_applied_for_ten_minutes_and_is_not_waited_for(house: House) -> None:
    speaks = await house.replica("speaks")
    await house.replica("silent")
    house.running(speaks)
    speaks.applied(house.registry.tenant, 5, frozenset())
    await speaks_of(house, 5, "speaks")
    house.silent("silent", 7)
    known = await house.awaited(5, within_s=3600.0)
    assert (named(known), known.everywhere, known.hopeless) == ({"silent": False, "speaks": True}, False, True)
    house.silent("silent", 599)
    assert named(await house.effect(5)) == {"silent": False, "speaks": True}
    house.silent("silent", 601)
    known = await house.effect(5)
    assert (named(known), known.everywhere) == ({"speaks": True}, True)


async def speaks_of(house: House, generation: int, name: str) -> None:
    while not named(await house.effect(generation)).get(name):
        pass  # the question itself lets the others run


async def until(house: House, query: str, rows: int) -> None:
    async with asyncio.timeout(20):
        while len(house.registry.sql(query)) != rows:  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.001)


async def test_a_replica_that_joined_later_began_with_the_change(house: House) -> None:
    await house.replica("late", generation=5)
    assert (await house.effect(5)) == Effect((), everywhere=True, hopeless=False)
    assert named(await house.effect(6)) == {"late": False}


async def test_a_version_that_could_not_be_loaded_is_not_claimed_until_it_is_and_holds_up_no_other(house: House) -> None:
    replica = await house.replica("a")
    house.running(replica)
    replica.applied(house.registry.tenant, 5, frozenset({(MODEL, 2)}))
    while not (await house.effect(5, version_key(MODEL, 1))).everywhere:
        pass
    assert (await house.effect(5, NO_VERSION)).everywhere is True
    assert (await house.effect(5)).everywhere is False
    replica.applied(house.registry.tenant, 5, frozenset())  # loaded after all
    assert (await house.awaited(5)).everywhere is True


async def test_where_no_replica_is_known_nothing_is_claimed_and_nobody_waits(house: House) -> None:
    assert (await house.awaited(5, within_s=3600.0)) == Effect((), everywhere=False, hopeless=True)


async def test_what_one_tenant_acknowledges_says_nothing_of_another(house: House) -> None:
    replica = await house.replica("a")
    house.running(replica)
    replica.applied(house.registry.tenant, 5, frozenset())
    await speaks_of(house, 5, "a")
    other = uuid4()
    async with house.registry.database.tenant_tx(other) as session:
        known = await effects_of(session, other, [(5, NO_VERSION)])
    assert named(known[(5, NO_VERSION)]) == {"a": False}


async def test_a_replica_whose_row_is_gone_is_registered_again_with_its_next_word(house: House) -> None:
    replica = await house.replica("a")
    house.registry.sql("delete from replicas")
    house.running(replica)
    replica.applied(house.registry.tenant, 5, frozenset())
    await speaks_of(house, 5, "a")


async def test_old_acknowledgements_go_once_a_day_and_old_promotions_then_tell_of_nobody(house: House) -> None:
    replica = await house.replica("a")
    house.running(replica)
    tenant = house.registry.tenant
    replica.applied(tenant, 5, frozenset())
    await speaks_of(house, 5, "a")
    house.registry.sql("update replica_acks set at = at - interval '31 days'")
    replica.applied(tenant, 6, frozenset())
    await speaks_of(house, 6, "a")
    assert [row["generation"] for row in house.registry.sql("select generation from replica_acks order by 1")] == [5, 6]
    house.clock.advance(86_401)
    replica.applied(tenant, 7, frozenset())
    await speaks_of(house, 7, "a")
    assert [row["generation"] for row in house.registry.sql("select generation from replica_acks order by 1")] == [6, 7]


def promotion(house: House, generation: int | None, days: int) -> Promotion:
    at = house.clock.now() - timedelta(days=days)
    return Promotion("risk", "production", 2, 1, 1, at, "ann", None, model_id=MODEL, generation=generation)


async def of_promotions(house: House, *promotions: Promotion) -> list[tuple[dict[str, bool], bool]]:
    async with house.registry.database.tenant_tx(house.registry.tenant) as session:
        found = await effect.of_promotions(session, house.registry.tenant, promotions, house.clock.now())
    return [({ack.replica: ack.applied_at is not None for ack in each.applied_by}, bool(each.applied_everywhere)) for each in found]


async def test_an_old_promotion_names_nobody_and_is_everywhere_only_where_each_replica_of_today_said_so(house: House) -> None:
    first, second = await house.replica("a"), await house.replica("b")
    running = [house.running(replica) for replica in (first, second)]
    first.applied(house.registry.tenant, 5, frozenset())
    await speaks_of(house, 5, "a")
    young, old, unknown = promotion(house, 5, 28), promotion(house, 5, 40), promotion(house, None, 40)
    assert await of_promotions(house, young, old, unknown) == [({"a": True, "b": False}, False), ({}, False), ({}, False)]
    second.applied(house.registry.tenant, 6, frozenset({(MODEL, 2)}))  # heard of a later change, and cannot load the version
    await until(house, "select 1 from replica_acks where generation = 6", 1)
    assert await of_promotions(house, old) == [({}, False)]
    second.applied(house.registry.tenant, 7, frozenset())
    await speaks_of(house, 7, "b")
    assert await of_promotions(house, young, old, unknown) == [({"a": True, "b": True}, True), ({}, True), ({}, False)]
    assert len(running) == 2


async def test_the_newest_word_of_a_replica_is_kept_however_old(house: House) -> None:
    speaks, silent = await house.replica("speaks"), await house.replica("kept")
    for replica in (speaks, silent):
        house.running(replica)
        replica.applied(house.registry.tenant, 5, frozenset())
    for name in ("speaks", "kept"):
        await speaks_of(house, 5, name)
    house.registry.sql("update replica_acks set at = at - interval '31 days'")
    house.clock.advance(86_401)
    speaks.applied(house.registry.tenant, 6, frozenset())
    await speaks_of(house, 6, "speaks")
    kept = "select r.name, a.generation from replica_acks a join replicas r using (replica_id) order by 1, 2"
    assert [tuple(row) for row in house.registry.sql(kept)] == [("kept", 5), ("speaks", 6)]
    assert await of_promotions(house, promotion(house, 5, 40)) == [({}, True)]


async def test_replicas_long_gone_are_forgotten_with_all_that_they_said(house: House) -> None:
    replica = await house.replica("a")
    gone = await house.replica("gone")
    other = make_tenant(house.registry.urls, "shop")
    running = house.running(gone)
    for tenant in (house.registry.tenant, other):
        gone.applied(tenant, 5, frozenset())
    await until(house, "select 1 from replica_acks", 2)
    running.cancel()
    house.silent("gone", 32 * 86_400)
    house.running(replica)
    await until(house, "select 1 from replicas", 1)
    assert [row["name"] for row in house.registry.sql("select name from replicas")] == ["a"]
    assert house.registry.sql("select 1 from replica_acks") == []


async def test_a_name_cannot_be_more_than_a_name(house: House) -> None:
    replica = await house.replica("it's\"; drop table replicas")
    assert replica.name == "it-s---drop-table-replicas"
