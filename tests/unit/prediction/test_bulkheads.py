from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from app.kernel.ranks import LONG_WORK
from app.prediction.bulkheads import Gate, Gates, TenantThreads

pytestmark = pytest.mark.unit


async def test_a_tenant_that_fills_its_threads_leaves_the_others_theirs() -> None:
    threads, gate = TenantThreads(threads=2, each=1), threading.Event()
    loop = asyncio.get_running_loop()
    hog = [loop.run_in_executor(threads.of("hog"), gate.wait, 30) for _ in range(50)]
    assert await asyncio.wait_for(loop.run_in_executor(threads.of("other"), str.upper, "answered"), 10) == "ANSWERED"
    gate.set()
    assert all(await asyncio.gather(*hog))
    threads.close()


async def test_who_waits_is_served_in_turn_tenant_by_tenant() -> None:
    threads, gate, order = TenantThreads(threads=1, each=1), threading.Event(), []
    loop = asyncio.get_running_loop()
    first = loop.run_in_executor(threads.of("a"), gate.wait, 30)
    waiting = [loop.run_in_executor(threads.of(name), order.append, name) for name in "aaabbc"]
    gate.set()
    await asyncio.gather(first, *waiting)
    assert "".join(order) == "abcaba"
    threads.close()


async def test_what_nobody_waits_for_any_more_does_not_run() -> None:
    threads, gate, ran = TenantThreads(threads=1, each=1), threading.Event(), []
    loop = asyncio.get_running_loop()
    first = loop.run_in_executor(threads.of("a"), gate.wait, 30)
    given_up, kept = (loop.run_in_executor(threads.of("a"), ran.append, number) for number in (1, 2))
    given_up.cancel()
    await asyncio.sleep(0)  # the loop tells the thread
    gate.set()
    await asyncio.gather(first, kept)
    assert ran == [2]
    threads.close()


async def test_what_the_work_raises_reaches_who_asked_and_the_thread_goes_on() -> None:
    threads, loop = TenantThreads(threads=1, each=1), asyncio.get_running_loop()
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads.of("a"), divmod, 1, 0)
    assert await loop.run_in_executor(threads.of("a"), divmod, 7, 2) == (3, 1)
    threads.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a rank of their own on Linux alone")
async def test_work_in_lanes_ranks_behind_the_event_loop() -> None:
    threads, loop = TenantThreads(threads=1, each=1), asyncio.get_running_loop()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert await loop.run_in_executor(threads.of("a"), os.getpriority, os.PRIO_PROCESS, 0) == min(19, before + LONG_WORK)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    threads.close()


class Caller:
    def __init__(self, gate: Gate, name: str, seen: list[str], *, busy: bool = True) -> None:
        self.gate, self.name, self.seen, self.busy = gate, name, seen, busy

    def go(self) -> None:
        if not self.gate.enter(self.go):
            return
        self.seen.append(self.name)
        if not self.busy:
            self.gate.leave()


def test_a_gate_lets_so_many_pass_and_calls_the_others_in_the_order_in_which_they_came() -> None:
    seen: list[str] = []
    gate = Gate(2)
    for name in "abcd":
        Caller(gate, name, seen).go()
    assert seen == ["a", "b"]
    gate.leave()
    assert seen == ["a", "b", "c"]
    gate.leave()
    gate.leave()
    assert seen == ["a", "b", "c", "d"]


def test_who_has_just_left_does_not_pass_before_those_that_wait() -> None:
    seen: list[str] = []
    gate = Gate(1)
    again, other = Caller(gate, "again", seen), Caller(gate, "other", seen)
    again.go()
    other.go()
    gate.leave()
    again.go()
    assert seen == ["again", "other"]
    gate.leave()
    assert seen == ["again", "other", "again"]


def test_a_place_that_is_not_wanted_any_more_goes_on() -> None:
    seen: list[str] = []
    gate = Gate(1)
    callers = [Caller(gate, name, seen, busy=name != "idle") for name in ("a", "gone", "idle", "b")]
    for caller in callers:
        caller.go()
    gate.forget(callers[1].go)
    gate.leave()
    assert seen == ["a", "idle", "b"]
    gate.leave()
    callers[0].go()
    assert seen[-1] == "a"


def test_each_tenant_has_a_gate_of_its_own() -> None:
    gates = Gates(1)
    assert gates.of("a") is gates.of("a")
    assert gates.of("a").enter(print)
    assert gates.of("b").enter(print)
    assert not gates.of("a").enter(print)
