"""HTTP/1.1 as uvicorn speaks it, with what it lacks: deadlines for slow clients, and bounds on heads and connections.

Source: RFC 9110 and RFC 9112 (timeouts of a server, 408 and 431); uvicorn's interface between protocol and server.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import Unauthenticated
from app.graphql.errors import problem_of
from app.graphql.http.exchange import headers_of, request_id_of
from app.graphql.http.negotiation import MediaType, status_of

if TYPE_CHECKING:
    import asyncio

    from app.errors import AppError
    from app.web.connections import Connections

log = structlog.get_logger(__name__)

_PATH = b"/graphql"
_HEAD = (
    b"content-type: application/json; charset=utf-8\r\ncontent-length: %d\r\nx-request-id: %s\r\n"
    b"cache-control: no-store\r\nconnection: close\r\n"
)
_HEAD_TOO_LARGE = "The request's head is larger than {most:,} bytes."
_NO_HTTP = "This is no HTTP request that can be read."
_AUTHORIZATION = b"authorization:"
_CHALLENGE = b'www-authenticate: Bearer error="invalid_token"\r\n'
_SWALLOWED = 4 * 1024 * 1024  # of what still comes from who sent too long a head: a connection closed before that loses the answer
_BUSY = "Too many connections are open. Wait, then try again."


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Made by `guarded`, which gives it the process's book.

    What runs for each request names the base class: `super()` costs as much again as what is called.
    """

    book: Connections
    most_head_bytes: int

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = False
        self._unfinished = False  # a request is being read, its head or its body
        self._watched = False  # may be among those that are due
        self._head_bytes = 0  # of a head that comes in more pieces than one, but the first
        self._long = False  # the head may be over its bound, and is to be measured
        self._refusal = ""
        self._line = b""  # how the line of the head begins that has not come whole yet
        self._swallows = 0  # bytes that are still taken, and not looked at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn says Transport
        self._watched = True
        if not self.book.opened(self, self.client[0] if self.client else ""):
            self._refuse(503, "UNAVAILABLE", _BUSY, b"retry-after: %d\r\n" % (1 + secrets.randbelow(5)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.book.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._swallows:
            self._swallow(data)
            return
        self.book.idle.pop(self, None)
        if self._in_head:
            self._head_bytes += len(data)
        self._long = len(data) + self._head_bytes > self.most_head_bytes
        HttpToolsProtocol.data_received(self, data)
        if self._unfinished:
            if self._in_head:
                _, ended, begun = data.rpartition(b"\r\n")
                self._line = begun[:32] if ended else (self._line + begun[:32])[:32]
            self._see_unfinished()
        elif self._watched:
            self._watched = False
            self.book.due.pop(self, None)

    def on_message_begin(self) -> None:
        HttpToolsProtocol.on_message_begin(self)
        self._in_head = self._unfinished = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        if self._long and self._head_size() > self.most_head_bytes:
            raise self._too_large()
        self._in_head = False
        gate = self.book.gate
        refusal = gate.known(self._token()) if gate is not None and gate.shedding and self.url.startswith(_PATH) else None
        if refusal is None:
            HttpToolsProtocol.on_headers_complete(self)
        else:
            app, self.app = self.app, _Refusing(refusal)
            HttpToolsProtocol.on_headers_complete(self)
            self.app = app
        if self.scope["method"] != "HEAD" and not self.expect_100_continue:
            self.cycle.transport = _WithItsHead(self.transport)  # type: ignore[assignment]  # all of one that a cycle asks for
        if self.book.leaving:
            self.cycle.keep_alive = False
        self.headers = []  # of the trailer section from now on, which must not become part of the head that the application has

    def on_message_complete(self) -> None:
        self._unfinished = False
        HttpToolsProtocol.on_message_complete(self)

    def on_response_complete(self) -> None:
        """The next pipelined request, or nothing for a while: without a timer, which the base class would make for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self.book.sends(self)
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._unfinished:  # a body that nobody reads any more
            self._watched = True
            self.book.awaits(self)
        elif not self.flow.write_paused:  # who still takes an answer is not idle
            self.book.idle[self] = self.book.now

    def pause_writing(self) -> None:
        super().pause_writing()
        self.book.sends(self)

    def resume_writing(self) -> None:
        self.book.stuck.pop(self, None)
        super().resume_writing()
        if self.cycle.response_complete and not self._unfinished and not self.transport.is_closing():
            self.book.idle[self] = self.book.now

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's text names uvicorn's view
        if self._refusal and self._is_token_too_long():
            error = Unauthenticated("too_long")
            log.info("token_refused", reason=error.reason)
            self._refuse(401, error.code, error.message, _CHALLENGE, swallow=True)
        elif self._refusal:
            self._refuse(431, "BAD_REQUEST", self._refusal, swallow=True)
        else:
            self._refuse(400, "BAD_REQUEST", _NO_HTTP)

    def unsent(self) -> int:
        return self.transport.get_write_buffer_size()

    def hang_up(self) -> None:
        if self.unsent():
            self.transport.abort()
        else:
            self.transport.close()

    def _see_unfinished(self) -> None:
        if self._swallows or self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > self.most_head_bytes:
            self._too_large()
            self.send_400_response("")
            return
        if not self._in_head and self._head_size() > self.most_head_bytes:  # trailers; an answer may be on its way, so there is no other
            self.hang_up()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # Its body, for which its handler has a deadline; or another request behind it, which we do not read meanwhile.
            if self._watched:
                self._watched = False
                self.book.due.pop(self, None)
            return
        self._watched = True
        self.book.awaits(self)

    def _token(self) -> bytes:
        """None of a browser's: what it may read of an answer is for the endpoint to say."""
        headers = dict(self.headers)
        return b"" if b"origin" in headers else headers.get(b"authorization", b"")

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _is_token_too_long(self) -> bool:
        """A token that alone makes the head too long is a bad token like any other."""
        most = self.most_head_bytes // 2
        return self._line.lower().startswith(_AUTHORIZATION) or any(
            name == b"authorization" and len(value) > most for name, value in self.headers
        )

    def _swallow(self, data: bytes) -> None:
        self._swallows -= len(data)
        if self._swallows <= 0:
            self._swallows = 1
            self.transport.close()

    def _too_large(self) -> ValueError:
        self._refusal = _HEAD_TOO_LARGE.format(most=self.most_head_bytes)
        return ValueError(self._refusal)

    def _refuse(self, status: int, code: str, message: str, more: bytes = b"", *, swallow: bool = False) -> None:
        """A GraphQL error body from outside the application, and the end of the connection."""
        request_id = secrets.token_hex(16)
        extensions = {"code": code, "retryable": status == 503, "requestId": request_id}
        body = orjson.dumps({"errors": [{"message": message, "extensions": extensions}]})
        head = b"content-type: application/json; charset=utf-8\r\ncontent-length: %d\r\nx-request-id: %s\r\n" % (
            len(body),
            request_id.encode(),
        )
        self.transport.write(b"".join((STATUS_LINE[status], head, more, b"cache-control: no-store\r\nconnection: close\r\n\r\n", body)))
        if swallow and self.transport.can_write_eof():
            self._swallows = _SWALLOWED
            self._watched = True
            self.book.awaits(self)
            self.transport.write_eof()
        else:
            self.transport.close()


class _WithItsHead:
    """Where one request's answer is written: its head goes with what comes behind it, in one call of the system and not in two.

    Source: ASGI, which has a server send the head of an answer no sooner than the first part of its body.
    """

    __slots__ = ("_head", "_is_sent", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.is_closing = transport.is_closing
        self._head = b""
        self._is_sent = False

    def write(self, data: bytes) -> None:
        if self._is_sent:
            self._transport.write(data)
        elif self._head:
            self._is_sent = True
            self._transport.writelines((self._head, data))
        else:
            self._head = data

    def close(self) -> None:
        """Whoever answers has given up behind the head."""
        if not self._is_sent and self._head:
            self._transport.write(self._head)
        self._transport.close()


class _Refusing:
    """An ASGI application that gives one answer: the same as the endpoint would give, and no more work than that."""

    def __init__(self, error: AppError) -> None:
        self._error = error

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        problem = problem_of(self._error)
        status = status_of(problem.code, MediaType.JSON)
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = request_id_of(sent)
        body = orjson.dumps({"errors": [problem.wire(request_id)]})
        headers = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"private, no-store"),
            (b"x-request-id", request_id.encode()),
            *headers_of(self._error, status),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def guarded(connections: Connections) -> type[GuardedProtocol]:
    """The protocol's class for one process, which writes its connections into `connections`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"book": connections, "most_head_bytes": connections.limits.head_bytes})
