"""How much of large bodies is under way, and for whom."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Unavailable
from app.graphql.http import body_bytes
from app.graphql.http.body_bytes import SMALL_BYTES, BodyBytes

pytestmark = pytest.mark.unit
ONE, OTHER = UUID(int=1), UUID(int=2)
MIB = 1024 * 1024


class Told:
    def __init__(self):
        self.reasons = Counter()

    def turned_away(self, reason):
        self.reasons[reason] += 1


class Ended:
    times = 0

    def end(self):
        self.times += 1


async def full(bodies, tenant, size):
    """As many bodies of that size as the tenant may have."""
    held = []
    while True:
        body = bodies.begin(tenant, None)
        try:
            body.need(size)
        except Unavailable as error:
            assert 500 <= error.details["retry_after_ms"] <= 1500
            return held
        held.append(body)


async def test_a_tenant_that_is_alone_has_half_and_the_next_one_half_of_the_rest():
    told = Told()
    bodies = BodyBytes(64 * MIB, told)
    assert [len(await full(bodies, tenant, 4 * MIB)) for tenant in (ONE, OTHER)] == [8, 4]
    assert told.reasons == {"bodies": 2}


async def test_one_body_may_be_as_large_as_there_is_room():
    bodies = BodyBytes(8 * MIB, Told())
    bodies.begin(ONE, None).need(8 * MIB)
    assert bodies.free == 0
    with pytest.raises(Unavailable):
        bodies.begin(OTHER, None).need(SMALL_BYTES + 1)


async def test_small_bodies_are_not_counted_and_never_refused():
    bodies = BodyBytes(8 * MIB, Told())
    bodies.begin(ONE, None).need(8 * MIB)
    bodies.begin(OTHER, None).need(SMALL_BYTES)
    assert bodies.free == 0


async def test_a_body_whose_length_nobody_knew_is_counted_as_it_comes():
    bodies = BodyBytes(8 * MIB, Told())
    body = bodies.begin(ONE, None)
    for size in (1000, MIB, 2 * MIB, 2 * MIB):
        body.need(size)
    assert bodies.free == 6 * MIB
    with pytest.raises(Unavailable):
        body.need(9 * MIB)
    assert bodies.free == 6 * MIB
    body.end()
    assert bodies.free == 8 * MIB


@given(st.lists(st.tuples(st.sampled_from([ONE, OTHER, UUID(int=3)]), st.integers(1, 12 * MIB), st.booleans()), max_size=40))
async def test_whatever_comes_and_goes_what_is_held_is_bounded_and_all_of_it_comes_back(steps):
    bodies, held, places = BodyBytes(16 * MIB, Told()), [], []
    for tenant, size, ends in steps:
        places.append(Ended())
        body = bodies.begin(tenant, places[-1])
        try:
            body.need(size)
        except Unavailable:
            body.end()
        else:
            held.append(body)
        assert 0 <= bodies.free == 16 * MIB - sum(body.size for body in held)
        if ends and held:
            held.pop(0).end()
    for body in held:
        body.end()
    assert (bodies.free, bodies._taken) == (16 * MIB, {})
    assert [place.times for place in places] == [1] * len(places)


async def test_memory_is_given_back_once_a_moment_after_the_last_large_body(monkeypatch):
    import asyncio

    given_back, done = [], asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(body_bytes, "_GIVE_BACK_S", 0.0)
    monkeypatch.setattr(body_bytes, "give_back_memory", lambda: (given_back.append(1), loop.call_soon_threadsafe(done.set)))
    bodies = BodyBytes(64 * MIB, Told())
    first, second, small = (bodies.begin(ONE, None) for _ in range(3))
    first.need(2 * MIB)
    second.need(2 * MIB)
    small.need(MIB // 2)
    small.end()
    assert bodies._timer is None  # not worth it
    first.end()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (bodies._timer, given_back) == (None, [])  # another one is under way
    second.end()
    await done.wait()
    assert given_back == [1]
