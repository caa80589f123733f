"""Requests for one model's child that wait for company."""

from __future__ import annotations

import asyncio

import pytest

from app.prediction.runtimes.gathering import Gathering

pytestmark = pytest.mark.unit


class Asked:
    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.gathering = Gathering(self.ready.set)

    def call(self, requests: int) -> None:
        self.gathering.sent(requests)
        self.gathering.answered()


async def test_who_asks_alone_waits_for_nobody() -> None:
    asked = Asked()
    assert not asked.gathering.goes_on(1)
    asked.call(1)
    assert not asked.gathering.goes_on(1)


async def test_after_a_call_of_several_the_next_one_waits_until_as_many_are_there() -> None:
    asked = Asked()
    asked.call(3)
    assert asked.gathering.goes_on(1)
    assert asked.gathering.goes_on(2)
    assert not asked.gathering.goes_on(3)
    assert asked.gathering._timer is None  # that wait ended when they were there


async def test_a_wait_ends_though_nobody_comes() -> None:
    asked = Asked()
    asked.call(3)
    assert asked.gathering.goes_on(1)
    async with asyncio.timeout(5):
        await asked.ready.wait()
    assert not asked.gathering.goes_on(1)


async def test_a_crowd_that_is_gone_is_soon_waited_for_no_more() -> None:
    asked = Asked()
    asked.call(32)
    waits = 0
    while asked.gathering.goes_on(1):
        waits += 1
        asked.gathering.end()
        asked.call(1)
    assert waits == 5


async def test_who_unloads_the_model_is_called_no_more() -> None:
    asked = Asked()
    asked.call(2)
    assert asked.gathering.goes_on(1)
    asked.gathering.end()
    assert asked.gathering._timer is None
