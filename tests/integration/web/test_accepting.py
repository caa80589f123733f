"""Who connects is taken soon, however many connect in one moment, until the process leaves."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import pytest
import uvloop

from app.web.accepting import MOST_A_TURN, Accepting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

pytestmark = pytest.mark.integration


class Connection(asyncio.Protocol):
    """Says which of them is there."""

    def __init__(self, made: list[asyncio.Transport], all_there: asyncio.Event, most: int) -> None:
        self._made, self._all_there, self._most = made, all_there, most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(cast("asyncio.Transport", transport))
        if len(self._made) >= self._most:
            self._all_there.set()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        listening.setblocking(False)
        yield listening


def crowd(stack: ExitStack, listener: socket.socket, count: int) -> list[socket.socket]:
    """So many who have connected, as far as their kernel knows."""
    return [stack.enter_context(socket.create_connection(listener.getsockname(), 5)) for _ in range(count)]


def run(work: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work, 30))


def test_many_who_connect_in_one_moment_are_taken_in_few_turns(listener: socket.socket) -> None:
    async def work() -> None:
        made: list[asyncio.Transport] = []
        all_there, count, turns = asyncio.Event(), 3 * MOST_A_TURN, 0
        with ExitStack() as stack:
            crowd(stack, listener, count)
            accepting = Accepting(listener, lambda: Connection(made, all_there, count))
            while not all_there.is_set():
                await asyncio.sleep(0)
                turns += 1
            assert len(made) == count
            assert turns < count / 4  # the loop's own listener takes one a turn
            accepting.close()
            for transport in made:
                transport.abort()

    run(work())


def test_who_connects_after_the_end_is_left_to_another_process(listener: socket.socket) -> None:
    async def work() -> None:
        made: list[asyncio.Transport] = []
        accepting = Accepting(listener, lambda: Connection(made, asyncio.Event(), 1))
        accepting.close()
        accepting.close()
        with ExitStack() as stack:
            crowd(stack, listener, 2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert made == []
            listener.accept()[0].close()  # they wait where a successor finds them: the listener is still its owner's

    run(work())


def test_an_answer_does_not_wait_for_more_of_it(listener: socket.socket) -> None:
    async def work() -> None:
        made: list[asyncio.Transport] = []
        there = asyncio.Event()
        with ExitStack() as stack:
            (client,) = crowd(stack, listener, 1)
            accepting = Accepting(listener, lambda: Connection(made, there, 1))
            await there.wait()
            taken = made[0].get_extra_info("socket")
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            made[0].write(b"ready")
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 5) == b"ready"
            accepting.close()
            made[0].abort()

    run(work())
