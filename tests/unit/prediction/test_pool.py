"""Open versions of one process: within its memory, one opening each, and nobody held up by somebody else's cold version."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from app.errors import ModelFailed, ModelUnavailable, Unavailable
from app.kernel.clock import Deadline
from app.prediction.budget import loaded_bytes, native_bytes, onnx_bytes
from app.prediction.pool import NoRoom, RuntimePool, key_of
from tests.support.clock import ManualClock
from tests.support.serving import TENANT, GraphOpener, Graphs, compiled_route, numbers, sum_graph

pytestmark = pytest.mark.unit

GRAPH = sum_graph()
ONE = onnx_bytes(compiled_route("d"))
NATIVE = native_bytes(compiled_route(None))


class Shop:
    def __init__(self, folder, memory_bytes):
        self.graphs = Graphs()
        self.digest = self.graphs.add(GRAPH)
        self.opener = GraphOpener(folder, self.graphs)
        self.clock = ManualClock()
        self.pool = RuntimePool(self.opener, memory_bytes, self.clock)

    def route(self, number, model=1):
        return compiled_route(self.digest, number, model_id=UUID(int=model))

    async def ask(self, route):
        runtime = self.pool.use(TENANT, route) or await self.pool.get_within(TENANT, route, Deadline.after(10))
        return (await runtime.infer(numbers((1, 2)), Deadline.after(10))).values.tolist()


@pytest.fixture
async def make_shop(tmp_path):
    made = []

    def make(memory_bytes=100 * ONE):
        made.append(Shop(tmp_path, memory_bytes))
        return made[-1]

    yield make
    for shop in made:
        await shop.pool.close()


class Gate:
    """Holds up every opening until it is opened; counts how many began."""

    def __init__(self, opener):
        self.began = 0
        self.open = asyncio.Event()
        for name in ("compiled", "estimator"):
            setattr(opener, name, self._guarded(getattr(opener, name)))

    def _guarded(self, method):
        async def wait(*arguments):
            self.began += 1
            await self.open.wait()
            return await method(*arguments)

        return wait


async def test_a_version_is_served_by_its_graph_where_it_has_one(make_shop):
    shop = make_shop(10 * NATIVE)
    compiled, native = shop.route(1), compiled_route(None, 2)
    assert [(await shop.pool.get(TENANT, route)).kind for route in (compiled, native)] == ["onnx", "sklearn"]
    assert shop.pool.held_bytes == ONE + NATIVE


async def test_many_callers_one_opening(make_shop):
    shop = make_shop()
    gate = Gate(shop.opener)
    callers = [asyncio.ensure_future(shop.pool.get(TENANT, shop.route(1))) for _ in range(20)]
    gate.open.set()
    assert len({id(runtime) for runtime in await asyncio.gather(*callers)}) == 1
    assert gate.began == 1


async def test_a_cold_pinned_version_says_when_to_come_back_and_is_there_then(make_shop):
    shop = make_shop()
    warm, cold = shop.route(1), shop.route(2)
    await shop.pool.warm(TENANT, [warm])
    gate = Gate(shop.opener)
    with pytest.raises(ModelUnavailable) as refused:
        await shop.ask(cold)
    assert refused.value.details["retry_after_ms"] > 0
    with pytest.raises(ModelUnavailable):
        await shop.ask(cold)
    assert await shop.ask(warm) == [3.0]
    gate.open.set()
    await shop.pool.get(TENANT, cold)
    assert await shop.ask(cold) == [3.0]
    assert gate.began == 1


async def test_an_aliased_version_is_waited_for(make_shop):
    shop = make_shop()
    route = shop.route(1)
    shop.pool.keep(frozenset({key_of(TENANT, route)}))
    gate = Gate(shop.opener)
    asking = asyncio.ensure_future(shop.ask(route))
    done, _ = await asyncio.wait([asking], timeout=0.2)
    assert not done
    gate.open.set()
    assert await asking == [3.0]


async def test_a_version_that_fails_slowly_says_so_and_is_tried_again_later(make_shop):
    shop = make_shop(10 * NATIVE)
    shop.opener.failure = ModelFailed("broken")
    route = compiled_route(None)
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="broken") as refused:
            await shop.ask(route)
        assert refused.value.details["retry_after_ms"] > 0
    shop.opener.failure = None
    with pytest.raises(ModelUnavailable, match="broken"):
        await shop.ask(route)
    shop.clock.advance(5)
    assert await shop.ask(route) == [3.0]


@pytest.mark.parametrize("registered", [500, pytest.param(5000, marks=pytest.mark.slow)])
async def test_hot_versions_stay_while_thousands_of_others_come_and_go(make_shop, registered):
    """5,000 registered, 50 hot, room for 60: what is held is never above the bound, and no hot one is ever opened twice."""
    shop = make_shop(60 * ONE)
    opened = []
    real = shop.opener.compiled

    async def noting(tenant_id, route, native):
        assert shop.pool.held_bytes <= 60 * ONE
        assert shop.pool.size < 60
        opened.append(route.number)
        return await real(tenant_id, route, native)

    shop.opener.compiled = noting
    hot = [shop.route(number) for number in range(50)]
    await shop.pool.warm(TENANT, hot)
    for number in range(50, registered):
        await shop.pool.get(TENANT, shop.route(number))
        for route in hot[number % 5 :: 5]:
            assert shop.pool.use(TENANT, route) is not None
    assert shop.pool.held_bytes == 60 * ONE
    assert [opened.count(number) for number in range(50)] == [1] * 50
    assert len(opened) == registered
    assert await shop.ask(hot[0]) == [3.0]


async def test_aliased_versions_stay_however_long_they_are_not_used(make_shop):
    shop = make_shop(3 * ONE)
    aliased = [shop.route(1), shop.route(2)]
    await shop.pool.warm(TENANT, aliased)
    shop.pool.keep(frozenset(key_of(TENANT, route) for route in aliased))
    for number in range(3, 20):
        await shop.pool.get(TENANT, shop.route(number))
    assert [shop.pool.opened(TENANT, route) is not None for route in aliased] == [True, True]
    assert shop.pool.size == 3


async def test_a_version_that_does_not_fit_beside_the_aliased_ones_is_refused(make_shop):
    shop = make_shop(2 * ONE)
    aliased = [shop.route(1), shop.route(2)]
    await shop.pool.warm(TENANT, aliased)
    shop.pool.keep(frozenset(key_of(TENANT, route) for route in aliased))
    with pytest.raises(NoRoom) as refused:
        await shop.ask(shop.route(3))
    assert (refused.value.code, "TURNOUT_MODEL_MEMORY_BYTES" in refused.value.message) == ("MODEL_UNAVAILABLE", True)
    assert await shop.ask(aliased[0]) == [3.0]


async def test_a_busy_version_is_not_closed_under_its_callers(make_shop):
    shop = make_shop(2 * NATIVE)
    first = await shop.pool.get(TENANT, compiled_route(None, 1))
    await shop.pool.get(TENANT, compiled_route(None, 2))
    first.busy = True
    await shop.pool.get(TENANT, compiled_route(None, 3))
    assert [estimator.closed for estimator in shop.opener.estimators] == [False, True, False]


async def test_what_an_alias_needs_waits_for_the_answers_of_what_must_go_for_it(make_shop):
    shop = make_shop(2 * NATIVE)
    left, other, new = (compiled_route(None, number) for number in (1, 2, 3))
    runtimes = [await shop.pool.get(TENANT, route) for route in (left, other)]
    shop.pool.keep(frozenset(key_of(TENANT, route) for route in (other, new)))
    runtimes[0].busy = True
    asking = asyncio.ensure_future(shop.ask(new))
    done, _ = await asyncio.wait([asking], timeout=0.1)
    assert not done
    runtimes[0].busy = False
    assert await asking == [3.0]
    assert [estimator.closed for estimator in shop.opener.estimators] == [True, False, False]


async def test_what_an_estimator_took_is_charged_once_that_is_known_and_the_next_time_from_the_beginning(make_shop):
    shop = make_shop(3 * NATIVE)
    shop.opener.memory_bytes = NATIVE // 2
    real = loaded_bytes(NATIVE // 2)
    await shop.pool.get(TENANT, compiled_route(None, 1))
    assert shop.pool.held_bytes == real
    shop.opener.memory_bytes = None
    await shop.pool.get(TENANT, replace(compiled_route(None, 2), artifact_digest="b" * 64))
    assert shop.pool.held_bytes == real + NATIVE
    await shop.pool.get(TENANT, compiled_route(None, 3))  # of the first one's artifact
    assert shop.pool.held_bytes == real + NATIVE + real


async def test_one_that_took_more_than_was_reckoned_sends_others_away_or_is_refused(make_shop):
    shop = make_shop(3 * NATIVE)
    small, large = compiled_route(None, 1), replace(compiled_route(None, 2), artifact_digest="b" * 64)
    await shop.pool.get(TENANT, small)
    shop.opener.memory_bytes = 3 * NATIVE - loaded_bytes(0)
    await shop.pool.get(TENANT, large)
    assert (shop.opener.estimators[0].closed, shop.pool.held_bytes) == (True, 3 * NATIVE)
    shop.opener.memory_bytes += 1
    with pytest.raises(NoRoom):
        await shop.pool.get(TENANT, replace(large, artifact_digest="c" * 64, number=3))
    assert [each.closed for each in shop.opener.estimators] == [True, True, True]
    opened = len(shop.opener.estimators)
    with pytest.raises(NoRoom):
        await shop.pool.get(TENANT, replace(large, artifact_digest="c" * 64, number=3))
    assert (len(shop.opener.estimators), shop.pool.held_bytes) == (opened, 0), "known by now to be too large: not loaded again"


async def test_a_graph_that_is_refused_is_replaced_by_its_estimator(make_shop):
    """Bytes whose seal does not fit are not read; the version's answers are scikit-learn's either way."""
    shop = make_shop(10 * NATIVE)
    del shop.graphs.of[shop.digest]
    runtime = await shop.pool.get(TENANT, shop.route(1))
    assert (runtime.kind, shop.pool.held_bytes) == ("sklearn", NATIVE)


async def test_a_store_that_is_away_is_asked_again(make_shop):
    shop = make_shop(10 * NATIVE)
    real, away = shop.graphs.bytes, [Unavailable("away"), Unavailable("away")]

    async def bytes_of(tenant_id, digest):
        if away:
            raise away.pop()
        return await real(tenant_id, digest)

    shop.opener._flats._graphs = type("Away", (), {"bytes": staticmethod(bytes_of)})
    await shop.pool.warm(TENANT, [shop.route(1)])
    assert shop.pool.opened(TENANT, shop.route(1)).kind == "onnx"


async def test_an_estimator_beside_a_graph_is_closed_when_nothing_asked_for_a_minute(make_shop):
    shop = make_shop(10 * NATIVE)
    route = shop.route(1)
    await shop.pool.get(TENANT, route)
    await shop.pool.estimator(TENANT, route)
    shop.clock.advance(50)
    await shop.pool.estimator(TENANT, route)
    shop.clock.advance(50)
    await shop.pool.close_idle()
    assert shop.opener.estimators[0].closed is False
    shop.clock.advance(11)
    await shop.pool.close_idle()
    assert (shop.opener.estimators[0].closed, shop.pool.held_bytes) == (True, ONE)


async def test_an_estimator_that_an_alias_needs_by_now_is_not_closed(make_shop):
    shop = make_shop(10 * NATIVE)
    route = shop.route(1)
    await shop.pool.estimator(TENANT, route)
    shop.pool.keep(frozenset({key_of(TENANT, compiled_route(None, 1))}))
    shop.clock.advance(100)
    await shop.pool.close_idle()
    assert shop.opener.estimators[0].closed is False


async def test_what_one_tenant_needs_changes_nothing_for_another(make_shop):
    shop = make_shop()
    mine, theirs = (TENANT, UUID(int=5), 1, False), (UUID(int=77), UUID(int=6), 1, False)
    shop.pool.keep([mine, theirs])
    shop.pool.keep([(*mine[:2], 2, False)], [TENANT])
    needed = shop.pool._needed
    assert (mine in needed, (*mine[:2], 2, False) in needed, theirs in needed) == (False, True, True)
    shop.pool.keep([theirs])
    assert (*mine[:2], 2, False) not in needed


async def test_a_tenant_that_is_gone_keeps_nothing_open_and_another_keeps_what_it_has(make_shop):
    shop = make_shop(10 * NATIVE)
    other, route = UUID(int=77), shop.route(1)
    runtime = await shop.pool.get(TENANT, route)
    await shop.pool.estimator(TENANT, route)
    await shop.pool.get(other, compiled_route(None, 2))
    gate = Gate(shop.opener)
    late = asyncio.create_task(shop.pool.get(TENANT, shop.route(3)))
    busy = shop.opener.estimators[0]
    busy.busy = True  # it answers somebody
    while not gate.began:  # noqa: ASYNC110  tells nobody
        await asyncio.sleep(0)
    shut = asyncio.create_task(shop.pool.shut(TENANT))
    await asyncio.sleep(0)
    assert shop.pool.opened(TENANT, route) is runtime  # not before what is being opened is open, too
    gate.open.set()
    await late
    while shop.pool.opened(TENANT, route) is not None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert busy.closed is False
    busy.busy = False
    await shut
    assert busy.closed is True
    assert (shop.pool.size, shop.pool.held_bytes) == (1, NATIVE)
    assert shop.pool.opened(other, compiled_route(None, 2)).closed is False
