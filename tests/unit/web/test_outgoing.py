"""Answers of one turn leave behind each other at its end, and nothing that is done to a connection overtakes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from app.web import outgoing
from app.web.connections import ConnectionLimits, Connections
from app.web.outgoing import Outbox, Outgoing
from app.web.protocol import guarded
from tests.unit.web.test_one_call_an_answer import BODY, HEAD, START, Nobody, Written

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit

FEW, MANY = [object()] * outgoing._FEW, [object()] * (outgoing._FEW + 1)
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["answer", "long answer", "write", "write_eof", "close", "turn"])), max_size=20
)


async def test_answers_of_one_turn_leave_at_its_end() -> None:
    box, seen = Outbox(), []
    written = [Written() for _ in range(3)]
    for each in written:
        Outgoing(each, box, MANY).answer(b"head ", b"body")
        seen.append([len(other.calls) for other in written])
    await asyncio.sleep(0)
    assert seen == [[0, 0, 0]] * 3
    assert [each.calls for each in written] == [[b"head body"]] * 3
    another = Written()
    Outgoing(another, box, MANY).answer(b"next ", b"turn")
    await asyncio.sleep(0)
    assert another.calls == [b"next turn"]


async def test_where_few_requests_are_under_way_each_is_answered_at_once() -> None:
    written = Written()
    Outgoing(written, Outbox(), FEW).answer(b"head ", b"body")
    assert written.calls == [b"head body"]


async def test_a_long_answer_waits_for_no_other() -> None:
    written, body = Written(), b"b" * (outgoing._LONG + 1)
    Outgoing(written, Outbox(), MANY).answer(b"head ", body)
    assert written.calls == [b"head " + body]


async def test_no_answer_waits_for_more_than_so_many_others() -> None:
    box, written = Outbox(), [Written() for _ in range(outgoing._MOST + 1)]
    for each in written:
        Outgoing(each, box, MANY).answer(b"head ", b"body")
    assert [len(each.calls) for each in written] == [1] * outgoing._MOST + [0]
    await asyncio.sleep(0)
    assert [len(each.calls) for each in written] == [1] * (outgoing._MOST + 1)


async def test_a_connection_that_cannot_be_written_to_keeps_nobody_else_from_an_answer() -> None:
    box, broken, there = Outbox(), Written(), Written()
    for each in (broken, there):
        Outgoing(each, box, MANY).answer(b"head ", b"body")
    broken.ended = True
    await asyncio.sleep(0)
    assert (broken.calls, broken.closed, there.calls) == ([], True, [b"head body"])


@given(STEPS)
def test_nothing_overtakes_an_answer(steps: list[tuple[int, str]]) -> None:
    """Each connection's bytes are those of one that writes everything at once."""

    async def run(under_way: list[object]) -> list[tuple[bytes, bool, bool]]:
        box, written = Outbox(), [Written() for _ in range(3)]
        connections = [Outgoing(each, box, under_way) for each in written]
        for number, (which, step) in enumerate(steps):
            connection, data = connections[which], b"%d " % number
            if connection.is_closing() or written[which].ended:
                continue
            match step:
                case "answer":
                    connection.answer(data, b"body ")
                case "long answer":
                    connection.answer(data, b"b" * (outgoing._LONG + 1))
                case "write":
                    connection.write(data)
                case "turn":
                    await asyncio.sleep(0)
                case _:
                    getattr(connection, step)()
        await asyncio.sleep(0)
        return [(b"".join(each.calls), each.ended, each.closed) for each in written]

    assert asyncio.run(run(MANY)) == asyncio.run(run(FEW))


class Process:
    """A process that answers everything alike, with `under_way` requests for ever; `most` connections are open at once."""

    def __init__(self, *, most: int = 100, under_way: int = outgoing._FEW) -> None:
        async def application(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(START)
            await send(BODY)
            self.behind()

        self.behind: Callable[[], object] = lambda: None
        self._config = uvicorn.Config(application, lifespan="off", log_config=None, server_header=False, date_header=False)
        self._config.load()
        self.state = ServerState()
        self.state.tasks.update(asyncio.Future[None]() for _ in range(under_way))  # type: ignore[misc]  # nobody asks more of them
        self.book = Connections(ConnectionLimits(most=most), Full())
        self.made_by = guarded(self.book)

    def connect(self) -> tuple[Any, Written]:
        protocol, written = self.made_by(self._config, self.state, {}), Written()  # type: ignore[arg-type]
        protocol.connection_made(written)
        return protocol, written

    async def answered(self) -> None:
        """Returns when no request is under way but those few, and the turn is over in which the last was answered."""
        while tasks := [task for task in self.state.tasks if isinstance(task, asyncio.Task) and not task.done()]:
            await asyncio.gather(*tasks)
        await asyncio.sleep(0)


class Full(Nobody):
    def connection_closed(self, reason: str) -> None:
        assert reason == "full"


async def test_requests_that_came_together_are_answered_behind_each_other() -> None:
    process, counts = Process(), []
    connected = [process.connect() for _ in range(3)]
    for protocol, _ in connected:
        protocol.data_received(GET)
    process.behind = lambda: counts.append(sum(len(written.calls) for _, written in connected))
    await process.answered()
    assert counts == [0, 0, 0]
    assert [written.calls for _, written in connected] == [[HEAD + b"body"]] * 3


async def test_an_idle_connection_that_makes_room_has_its_answer_first() -> None:
    process = Process(most=2)
    (first, told), (second, _) = process.connect(), process.connect()
    first.data_received(GET)
    second.data_received(GET)
    process.behind = lambda: None if first not in process.book.idle or told.closed else process.connect()
    await process.answered()
    assert (told.calls, told.closed) == ([HEAD + b"body"], True)


async def test_pipelined_requests_and_what_is_no_request_behind_them_are_answered_in_order() -> None:
    process = Process()
    first, told = process.connect()
    first.data_received(GET + GET)
    answers = []

    def behind() -> None:
        answers.append(len(told.calls))
        if len(answers) == 2:
            first.data_received(b"no request\r\n\r\n")

    process.behind = behind
    await process.answered()
    text = b"".join(told.calls)
    assert text.startswith((HEAD + b"body") * 2 + b"HTTP/1.1 400 Bad Request")


async def test_a_client_that_is_refused_while_it_is_answered_costs_nobody_else_an_answer() -> None:
    process = Process()
    (hostile, told), *others = (process.connect() for _ in range(3))
    hostile.data_received(GET + b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n")
    for other, _ in others:
        other.data_received(GET)
    with capture_logs() as logged:
        await process.answered()
    assert [written.calls for _, written in others] == [[HEAD + b"body"]] * 2
    assert [call[:12] for call in told.calls] == [b"HTTP/1.1 431"]
    assert not logged


async def test_who_sends_no_more_has_what_was_answered() -> None:
    process = Process()
    peer, told = process.connect()
    peer.data_received(GET)

    def half_closed() -> None:
        peer.eof_received()
        peer.connection_lost(None)  # as loops have it in their next turn

    process.behind = half_closed
    await process.answered()
    assert told.calls == [HEAD + b"body"]


async def test_what_waits_for_a_connection_is_lost_with_it() -> None:
    process = Process()
    (gone, told), (there, others) = process.connect(), process.connect()
    gone.data_received(GET)
    there.data_received(GET)
    process.behind = lambda: None if gone not in process.book.idle else gone.connection_lost(None)
    await process.answered()
    assert (told.calls, others.calls) == ([], [HEAD + b"body"])


async def test_who_does_not_take_what_waited_is_not_idle() -> None:
    process = Process()
    peer, told = process.connect()
    peer.data_received(GET)
    told.full = peer.pause_writing
    await process.answered()
    assert (peer in process.book.idle, peer in process.book.stuck) == (False, True)


async def test_who_is_refused_and_takes_nothing_is_waited_for_no_longer_than_others() -> None:
    process = Process()
    peer, told = process.connect()
    peer.data_received(GET)
    await process.answered()
    told.unsent = 10
    peer.data_received(b"no request\r\n\r\n")
    assert (peer in process.book.due, peer in process.book.stuck) == (False, True)
