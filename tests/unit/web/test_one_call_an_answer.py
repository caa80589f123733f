"""An answer's head leaves with its body."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.web.connections import ConnectionLimits, Connections
from app.web.protocol import guarded

pytestmark = pytest.mark.unit

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Written(asyncio.Transport):
    """Keeps what each call of the system would have been given."""

    def __init__(self) -> None:
        super().__init__({"socket": None, "peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.calls: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.calls.append(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Nobody:
    def connection_closed(self, reason: str) -> None:
        raise AssertionError(reason)


async def answered(request: bytes, *messages: Any) -> Written:
    """What is written to whoever sends `request`, where the application sends `messages`; an exception among them is raised."""

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await send(message)

    config = uvicorn.Config(application, lifespan="off", log_config=None, server_header=False, date_header=False)
    config.load()
    state = ServerState()
    protocol = guarded(Connections(ConnectionLimits(), Nobody()))(config, state, {})
    transport = Written()
    protocol.connection_made(transport)
    protocol.data_received(request)
    await asyncio.gather(*state.tasks)
    protocol.connection_lost(None)
    return transport


async def test_head_and_body_are_one_call() -> None:
    told = await answered(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", START, {"type": "http.response.body", "body": b"body"})
    assert told.calls == [HEAD + b"body"]


async def test_later_parts_follow_as_they_come() -> None:
    parts = [{"type": "http.response.body", "body": part, "more_body": part != b"dy"} for part in (b"b", b"o", b"dy")]
    told = await answered(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", START, *parts)
    assert told.calls == [HEAD + b"b", b"o", b"dy"]


async def test_a_head_alone_is_sent_at_once() -> None:
    told = await answered(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", START, {"type": "http.response.body", "body": b""})
    assert told.calls == [HEAD]


async def test_a_client_that_asks_may_send_its_body_before_there_is_an_answer() -> None:
    request = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx"
    told = await answered(request, START, {"type": "http.response.body", "body": b"body"})
    assert told.calls[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"".join(told.calls[1:]) == HEAD + b"body"


async def test_the_head_of_an_answer_that_was_given_up_is_sent_before_the_end() -> None:
    told = await answered(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", START, RuntimeError("broken"))
    assert (told.calls, told.closed) == ([HEAD], True)
