"""An answer's head leaves with its body."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.web.connections import ConnectionLimits, Connections
from app.web.protocol import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit

BODY = {"type": "http.response.body", "body": b"body"}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Written(asyncio.Transport):
    """Keeps what each call of the system would have been given."""

    def __init__(self) -> None:
        super().__init__({"socket": None, "peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.calls: list[bytes] = []
        self.closed = self.ended = False
        self.unsent = 0
        self.full: Callable[[], object] = lambda: None  # is called behind each call

    def write(self, data: Any) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.calls.append(bytes(data))
        self.full()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Nobody:
    def connection_closed(self, reason: str) -> None:
        raise AssertionError(reason)


OURS = guarded(Connections(ConnectionLimits(), Nobody()))


async def answered(request: bytes, *messages: Any, made_by: Any = OURS, company: int = 0) -> Written:
    """What is written to whoever sends `request`, where the application sends `messages`; an exception among them is raised.

    `company`: so many other requests are under way.
    """

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await send(message)

    config = uvicorn.Config(application, lifespan="off", log_config=None, server_header=False, date_header=False, access_log=False)
    config.load()
    state = ServerState()
    protocol = made_by(config, state, {})
    transport = Written()
    protocol.connection_made(transport)
    protocol.data_received(request)
    own = list(state.tasks)
    state.tasks.update(asyncio.Future[None]() for _ in range(company))  # type: ignore[misc]  # nobody asks more of them
    await asyncio.gather(*own)
    await asyncio.sleep(0)  # the turn's end
    closed = transport.closed
    protocol.connection_lost(None)
    transport.closed = closed
    return transport


async def test_head_and_body_are_one_call() -> None:
    told = await answered(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", START, BODY)
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
    told = await answered(request, START, BODY)
    assert told.calls[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"".join(told.calls[1:]) == HEAD + b"body"


async def test_the_head_of_an_answer_that_was_given_up_is_sent_before_the_end() -> None:
    told = await answered(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", START, RuntimeError("broken"))
    assert (told.calls, told.closed) == ([HEAD], True)


async def test_after_a_whole_answer_nothing_more_may_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    told = await answered(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", START, BODY, START)
    assert told.calls == [HEAD + b"body"]
    assert "sent, after response already completed" in caplog.text


LENGTHS = [b"4", b"2", b"0"]
PLAIN = st.tuples(st.sampled_from([b"a", b"content-type", b"x-1"]), st.sampled_from([b"", b"a, b\tc", b"\xe9\xff"]))
ODD = st.one_of(
    st.tuples(st.sampled_from([b"A", b"a b", b"", b"\xe9", b"a\n"]), st.just(b"a")),
    st.tuples(st.just(b"transfer-encoding"), st.sampled_from([b"chunked", b"identity"])),
    st.tuples(st.sampled_from([b"connection", b"Connection"]), st.sampled_from([b"close", b"keep-alive", b"Close, upgrade"])),
    st.tuples(st.just(b"a"), st.sampled_from([b"a\r\nb: c", b"\x00", b"\x7f", b"\n"])),
    st.tuples(st.just(b"content-length"), st.sampled_from([*LENGTHS, b"3", b"5", b"04"])),
)
HEADERS = st.tuples(
    st.lists(PLAIN, max_size=3), st.lists(ODD, max_size=1), st.sampled_from([[], *([(b"content-length", each)] for each in LENGTHS)])
)
PARTS = st.sampled_from([[b"body"], [b"bo", b"dy"], [b""], [b"", b"body"], [b"body", b""]])
REQUESTS = st.sampled_from([b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/1.1\r\nconnection: close"])


@given(REQUESTS, st.sampled_from([200, 204, 304, 429]), HEADERS.flatmap(lambda of: st.permutations([*chain(*of)])), PARTS)
@example(b"GET / HTTP/1.1", 200, [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")], [b"body"])
@settings(max_examples=1_500)
def test_an_answer_has_the_bytes_that_uvicorn_would_have_sent(
    request: bytes, status: int, headers: list[tuple[bytes, bytes]], parts: list[bytes]
) -> None:
    start = {"type": "http.response.start", "status": status, "headers": headers}
    messages = [start, *({"type": "http.response.body", "body": part, "more_body": part is not parts[-1]} for part in parts)]
    asked = request + b"\r\nhost: a\r\n\r\n"
    uvicorns = asyncio.run(answered(asked, *messages, made_by=HttpToolsProtocol))
    for company in (0, 8):
        ours = asyncio.run(answered(asked, *messages, company=company))
        assert (b"".join(ours.calls), ours.closed) == (b"".join(uvicorns.calls), uvicorns.closed)
