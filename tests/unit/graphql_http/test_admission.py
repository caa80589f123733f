"""Who is begun and who is refused, turn by turn, by a clock that is set."""

import asyncio
from collections import Counter
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AppError, RateLimited, Unavailable
from app.graphql.http.admission import (
    LEAST_A_TURN,
    LEAST_WAITING,
    MOST_WAIT_S,
    STANDING_S,
    TARGET_S,
    Admission,
    Busy,
    Crowded,
    Places,
    wait_ms,
    water_level,
)

pytestmark = pytest.mark.unit
A, B, C = (UUID(int=number) for number in range(1, 4))
FAR = 10_000.0


class Counts(Counter):
    def turned_away(self, reason):
        self[reason] += 1


class World:
    def __init__(self, most=1000):
        self.at = 100.0
        self.counts = Counts()
        self.admission = Admission(most, self.counts, lambda: self.at)

    def turn(self, took_s):
        self.at += took_s
        return self.admission.turned(self.at, took_s)

    def overloaded(self):
        while not self.admission.shedding:
            self.turn(0.06)

    def asks(self, tenant, times, token=b"", cost_s=0.0003):
        """How many of them are begun at once; each is answered at once."""
        begun = 0
        for _ in range(times):
            with suppress(AppError):
                place = self.admission.begin(tenant, FAR, token)
                if place is not None:
                    self.at += cost_s
                    place.end()
                    begun += 1
        return begun

    async def waits(self, tenant, times, token=b""):
        """The tasks of those that have to wait; as many as are refused are left out."""
        tasks = []
        for _ in range(times):
            with suppress(AppError):
                assert self.admission.begin(tenant, FAR, token) is None
                tasks.append(asyncio.create_task(self.admission.turn(tenant)))
                await asyncio.sleep(0)
        return tasks

    async def next_turn(self, took_s=0.06):
        self.turn(took_s)
        await asyncio.sleep(0)


def done(tasks):
    return sum(task.done() for task in tasks)


def test_as_long_as_turns_are_short_everything_is_begun():
    world = World()
    for _ in range(100):
        assert world.asks(A, 500) == 500
        assert world.turn(TARGET_S * 0.9) is False
    assert world.counts == {}


def test_one_long_turn_is_a_pause_and_no_overload():
    world = World()
    assert world.turn(5.0) is True
    assert world.asks(A, 500) == 500
    assert world.turn(0.001) is False
    assert world.counts == {}


async def test_delay_that_stands_is_an_overload_in_which_requests_wait_and_each_turn_begins_what_fits():
    world = World()
    turns = 0
    while not world.admission.shedding:
        assert world.asks(A, 500, cost_s=0) == 500
        world.turn(0.05)
        turns += 1
    assert turns * 0.05 >= STANDING_S
    waiting = await world.waits(A, 300)
    assert (len(waiting), done(waiting), world.counts) == (300, 0, {})
    await world.next_turn()
    first = done(waiting)
    assert LEAST_A_TURN <= first < 150
    await world.next_turn(0.001)  # a short turn ends nothing as long as somebody waits
    assert done(waiting) > first
    for _ in range(50):
        await world.next_turn(0.001)
    assert done(waiting) == 300
    assert not world.admission.shedding
    for task in waiting:
        task.result().end()
    assert world.asks(A, 500) == 500


async def test_an_overload_that_comes_back_at_once_needs_not_stand_again():
    world = World()
    world.overloaded()
    world.turn(0.001)
    assert not world.admission.shedding
    world.turn(0.05)
    world.turn(0.05)
    assert world.admission.shedding


async def test_who_asks_for_little_gets_it_and_who_asks_for_much_shares_the_rest():
    world = World()
    world.overloaded()
    much, little, more = await world.waits(A, 400), await world.waits(B, 5), await world.waits(C, 300)
    await world.next_turn()
    assert done(little) == 5
    assert done(much) == done(more) > 5


async def test_what_could_not_be_begun_soon_is_refused_in_the_turn_in_which_it_came_and_another_tenant_finds_room():
    world = World()
    world.overloaded()
    waiting = await world.waits(A, 5000)
    assert LEAST_WAITING < len(waiting) < 5000
    with pytest.raises(Unavailable, match="busy") as refused:
        world.admission.begin(A, FAR)
    assert isinstance(refused.value, Busy)
    assert refused.value.details["retry_after_ms"] >= 500
    assert world.admission.begin(B, FAR) is None
    assert await world.waits(B, 20) != []
    with pytest.raises(RateLimited, match="your tenant has its share") as shared:
        world.admission.begin(A, FAR)
    assert isinstance(shared.value, Crowded)
    assert 0.0003 < MOST_WAIT_S / (len(waiting) * 5 / 4) < 0.0005  # what a request costs, until some were measured


async def test_who_was_refused_is_so_again_by_the_token_alone_until_there_is_room():
    world = World()
    world.overloaded()
    waiting = await world.waits(A, 5000, b"token of A")
    assert isinstance(world.admission.known(b"token of A"), Unavailable)
    assert world.admission.known(b"token of B") is None
    await world.next_turn()
    assert done(waiting) > 0
    assert world.admission.known(b"token of A") is None


async def begun_where_a_request_costs(cost_s):
    """In a turn, after a while in which more came than could be begun."""
    world = World(most=10_000)
    world.overloaded()
    waiting, begun = [], []
    for _ in range(40):
        waiting += await world.waits(A, 450)
        for task in begun:
            task.result().end()
        await world.next_turn(len(begun) * cost_s)
        begun = [task for task in waiting if task.done()]
        waiting = [task for task in waiting if not task.done()]
    for task in waiting:
        task.cancel()
    return len(begun)


async def test_a_turn_begins_what_fits_by_what_a_request_costs_with_all_that_is_done_beside():
    assert await begun_where_a_request_costs(0.0001) == pytest.approx(TARGET_S / 0.0001, rel=0.02)
    assert await begun_where_a_request_costs(0.0004) == pytest.approx(TARGET_S / 0.0004, rel=0.02)
    assert await begun_where_a_request_costs(0.05) == LEAST_A_TURN


async def test_what_waits_for_something_else_says_nothing_of_what_a_request_costs():
    world = World()
    world.overloaded()
    cost_s = world.admission._cost_s
    for _ in range(100):
        (task,) = await world.waits(A, 1)
        world.turn(0.05)
        place = await task
        world.turn(0.05)
        place.end()
    assert world.admission._cost_s == cost_s


async def test_what_a_request_costs_is_known_also_where_many_tenants_get_a_few_each():
    world = World(most=10_000)
    world.overloaded()
    world.admission._cost_s = 1.0  # as after something dreadful
    waiting = {UUID(int=number): [] for number in range(1, 8)}
    begun = []
    for _ in range(200):
        for tenant in waiting:
            waiting[tenant] += await world.waits(tenant, 20)
        for task in begun:
            task.result().end()
        await world.next_turn(len(begun) * 0.0004)
        begun = [task for tasks in waiting.values() for task in tasks if task.done()]
        waiting = {tenant: [task for task in tasks if not task.done()] for tenant, tasks in waiting.items()}
    for tasks in waiting.values():
        for task in tasks:
            task.cancel()
    assert world.admission._cost_s == pytest.approx(0.0004, rel=0.05)


async def test_what_ended_while_nobody_looked_at_turns_says_nothing_of_what_a_request_costs():
    world = World()
    world.overloaded()
    cost_s = world.admission._cost_s
    (task,) = await world.waits(A, 1)
    world.admission._process.ended = 500
    watching = asyncio.create_task(world.admission.run())
    async with asyncio.timeout(5):
        while world.admission._process.ended == 500:  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.001)
    watching.cancel()
    task.cancel()
    assert world.admission._cost_s == cost_s


@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "as its turn comes"])
async def test_who_gives_up_while_waiting_leaves_no_place_taken(late):
    world = World(most=16)
    world.overloaded()
    (task,) = await world.waits(A, 1)
    if late:
        world.turn(0.06)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    await world.next_turn()
    await world.next_turn(0.001)
    assert world.admission._process.free == 16
    assert world.admission._waiting == 0
    assert not world.admission.shedding


def test_what_cannot_be_answered_in_its_time_is_not_begun():
    world = World()
    world.turn(0.5)
    world.turn(0.5)
    with pytest.raises(Unavailable):
        world.admission.begin(A, world.at + 0.4)
    world.admission.begin(A, world.at + 0.6)
    assert world.counts == {"late": 1}


def test_a_tenant_that_is_alone_has_four_fifths_of_what_may_be_under_way_and_another_finds_room():
    world = World(most=100)
    begun = []
    with pytest.raises(Unavailable):
        begun.extend(world.admission.begin(A, FAR) for _ in range(200))
    held = []
    with suppress(AppError):
        while True:
            held.append(world.admission.begin(B, FAR))
    assert world.counts["full"] == 1
    assert len(held) >= 10
    for place in held:
        place.end()
    world2 = World(most=100)
    count = 0
    with suppress(AppError):
        while True:
            world2.admission.begin(A, FAR)
            count += 1
    assert count == 80


async def test_who_waited_has_no_more_of_the_places_than_who_did_not_and_another_finds_room():
    world = World(most=100)
    world.overloaded()
    tasks = await world.waits(A, 200)
    for _ in range(20):
        await world.next_turn()
    assert done(tasks) == 80
    (other,) = await world.waits(B, 1)
    await world.next_turn()
    assert other.done()
    for task in tasks[:40]:
        (await task).end()
    await world.next_turn()
    assert done(tasks) == 40 + 80
    for task in tasks:
        task.cancel()


async def test_while_there_is_no_place_for_who_waits_the_loop_is_not_kept_turning():
    world = World(most=10)
    world.overloaded()
    tasks = await world.waits(A, 20)
    assert world.turn(0.001) is True
    await asyncio.sleep(0)
    assert done(tasks) == 8
    assert world.turn(0.001) is False
    assert world.admission.shedding
    for task in tasks[8:]:
        task.cancel()
    await asyncio.sleep(0)
    world.turn(0.001)
    assert world.admission._waiting == 0
    assert world.turn(0.001) is False
    assert not world.admission.shedding


def test_changes_are_fewer_than_requests_and_end_with_them():
    world = World(most=64)
    places = [world.admission.change(A, world.admission.begin(A, FAR)) for _ in range(4)]
    places.append(fifth := world.admission.begin(A, FAR))
    with pytest.raises(Unavailable):
        world.admission.change(A, fifth)
    assert world.counts == {"admin": 1}
    for place in places:
        place.end()
    assert world.admission.change(A, world.admission.begin(A, FAR)) is not None
    assert world.asks(A, 60) == 60


def test_a_tenant_has_half_of_the_places_when_it_is_alone():
    counts = Counts()
    places = Places(32, 1, "upload", counts)
    held = []
    with pytest.raises(Unavailable):
        held.extend(places.begin(A) for _ in range(40))
    more = []
    with suppress(Unavailable):
        while True:
            more.append(places.begin(B))
    assert len(more) == 8
    assert counts == {"upload": 2}


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 2000))
def test_the_level_gives_everybody_the_same_or_what_was_wanted_and_no_more_than_fits(wanted, fits):
    level = water_level(wanted, fits)
    given_out = sum(min(each, level) for each in wanted)
    assert given_out <= max(fits, len(wanted))
    if sum(wanted) <= fits:
        assert given_out == sum(wanted)
    else:
        assert level == 1 or given_out > fits - len(wanted)


@given(st.floats(1.0, 1000.0))
def test_who_is_refused_comes_back_at_a_random_moment_and_the_later_the_more_there_are(crowd):
    waits = [wait_ms(crowd) for _ in range(50)]
    assert all(500 <= wait <= min(10_000, 500 + 1000 * crowd) for wait in waits)
    assert len(set(waits)) > 1 or crowd > 500


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["begin", "end", "turn", "long"])), max_size=80))
def test_whatever_happens_all_places_come_back(steps):
    world = World(most=16)
    held = {"A": [], "B": [], "C": []}
    tenants = {"A": A, "B": B, "C": C}
    for who, what in steps:
        if what == "begin":
            with suppress(AppError):
                place = world.admission.begin(tenants[who], FAR)
                held[who] += [] if place is None else [place]
        elif what == "end" and held[who]:
            held[who].pop().end()
        elif what == "turn":
            world.turn(0.001)
        elif what == "long":
            world.turn(0.06)
    for place in (place for places in held.values() for place in places):
        place.end()
    assert world.admission._process.free == 16
    world.turn(0.001)
    world.turn(0.001)
    assert world.admission._shares == {}
