"""What a request costs, where it is asked, and what the caller is told."""

import pytest

from tests.support.asgi import call, post
from tests.support.toy_schema import Toy, ToyThrottle

pytestmark = pytest.mark.unit

TWO = "{a:add b:add}"


async def test_each_alias_costs_a_token_and_the_document_more_where_it_is_new():
    toy = Toy(throttle=ToyThrottle(budget=100))
    costs = [(await post(toy.endpoint, text)).cost for text in (TWO, TWO, "{add}", "{add}")]
    assert costs == [
        {"requested": 6, "remaining": 94},
        {"requested": 2, "remaining": 92},
        {"requested": 5, "remaining": 87},
        {"requested": 1, "remaining": 86},
    ]
    assert toy.throttle.spent == {"clinic": 14}


async def test_of_several_operations_the_one_that_runs_is_paid():
    toy = Toy()
    text = "query One {add} query Two {a:add b:add}"
    await post(toy.endpoint, text, operationName="One")
    assert [(await post(toy.endpoint, text, operationName=name)).cost["requested"] for name in ("One", "Two")] == [1, 2]


async def test_what_cannot_be_paid_whole_does_not_run():
    toy = Toy(throttle=ToyThrottle(budget=7))
    await post(toy.endpoint, TWO)  # 6
    answer = await post(toy.endpoint, TWO)
    assert (answer.status, answer.codes, answer.headers["retry-after"]) == (429, ["RATE_LIMITED"], "2")
    assert "data" not in answer.json
    assert answer.cost == {"requested": 1, "remaining": 0}


async def test_a_refusal_tells_what_it_cost_and_one_at_the_door_costs_nothing():
    toy = Toy(throttle=ToyThrottle(budget=100))
    assert (await call(toy.endpoint, body=b"{")).cost == {"requested": 1, "remaining": 99}
    stranger = await post(toy.endpoint, "{add}", headers={"authorization": None})
    assert b'extensions":{"cost' not in stranger.body


async def test_all_machines_are_asked_for_the_same_sum():
    toy = Toy(throttle=ToyThrottle(budget=100, elsewhere=1_000))
    for _ in range(2):
        await post(toy.endpoint, TWO)
    assert toy.throttle.spent == {"clinic": 8, "all of clinic": 8}
    assert toy.throttle.asked == [1, 5, 1, 1]  # the first token while the body is read, the rest before anything runs


async def test_a_request_that_another_machine_has_used_up_is_refused_before_it_runs():
    toy = Toy(throttle=ToyThrottle(budget=100, elsewhere=5))
    assert (await post(toy.endpoint, "{add}")).cost == {"requested": 5, "remaining": 0}
    answer = await post(toy.endpoint, "{add}")
    assert (answer.status, answer.codes, answer.headers["ratelimit"]) == (429, ["RATE_LIMITED"], '"requests";r=0;t=2')
    assert "data" not in answer.json
