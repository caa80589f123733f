"""HTTP/1.1 as uvicorn speaks it, with what it lacks: deadlines for slow clients, and bounds on heads, on what frames bodies, and on
connections. No other protocol is switched to: who asks for one is answered in this one.

Source: RFC 9110 and RFC 9112 (timeouts of a server, 408 and 431); uvicorn's interface between protocol and server.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

import httptools
import orjson
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import Unauthenticated
from app.graphql.errors import problem_of
from app.graphql.http.exchange import headers_of, request_id_of
from app.graphql.http.negotiation import HttpRefusal, MediaType, status_of
from app.web.outgoing import Answer, Outbox, Outgoing
from app.web.polling import Polling
from app.web.upgrades import framing, parser_behind

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from app.errors import AppError
    from app.web.connections import Connections

log = structlog.get_logger(__name__)

_SILENT = logging.getLogger("app.web.silent")
_SILENT.disabled = True
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
_STOPPED = "The service is stopping, and could not wait for the answer. A mutation may have been carried out: look before you repeat it."
_BUSY = "Too many connections are open. Wait, then try again."
_FRAMING_BYTES = 64 * 1024  # beside the data of a chunked body, and
_FRAMING_SHARE = 7  # so many for each byte of data: chunks of one byte have five
_MUCH_FRAMING = "The chunks of the body are more framing than data: send larger chunks, without extensions."
_NO_TUNNEL = HttpRefusal(405, "This is no proxy: send a POST, or a GET for a query.", ((b"allow", b"GET, POST"),))


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Made by `guarded`, which gives it the process's book.

    What runs for each request names the base class: `super()` costs as much again as what is called.
    """

    transport: Outgoing  # type: ignore[assignment]  # all of a transport that is asked for
    book: Connections
    outbox: Outbox
    polling: Polling
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
        self._answered: RequestResponseCycle | None = None  # the request that is being answered; `cycle` is the last that came
        self._upgrades = False  # the request asks for another protocol: its body is for another parser
        self._body_bytes = 0  # data of the body that comes
        self._came_bytes = 0  # with what frames it, but for the piece in which it began

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn says Transport
        self.transport = Outgoing(transport, self.outbox, self.tasks)  # type: ignore[arg-type]  # as above
        self._watched = True
        if not self.book.opened(self, self.client[0] if self.client else ""):
            self._refuse(503, "UNAVAILABLE", _BUSY, _again())

    def connection_lost(self, exc: Exception | None) -> None:
        self.book.closed(self)
        self.transport.forget()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends no more, and the loop closes behind this: what was answered goes before."""
        self.transport.flush()

    def data_received(self, data: bytes) -> None:
        if self._swallows:
            self._swallow(data)
            return
        self.book.idle.pop(self, None)
        self.polling.asked()
        if self._in_head:
            self._head_bytes += len(data)
        elif self._unfinished:
            self._came_bytes += len(data)
        self._long = len(data) + self._head_bytes > self.most_head_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on(data, upgrade)
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
        self._head_bytes = self._body_bytes = self._came_bytes = 0

    def on_headers_complete(self) -> None:
        if self._long and self._head_size() > self.most_head_bytes:
            raise self._too_large()
        self._in_head = False
        gate = self.book.gate
        refusal = gate.known(self._token()) if gate is not None and gate.shedding and self.url.startswith(_PATH) else None
        self._upgrades = upgrades = self.parser.should_upgrade()
        if upgrades and self.parser.get_method() == b"CONNECT":
            self.url, refusal = b"/", _NO_TUNNEL  # what it names is no path
        if refusal is None:
            HttpToolsProtocol.on_headers_complete(self)
        else:
            app, self.app = self.app, _Refusing(refusal)
            HttpToolsProtocol.on_headers_complete(self)
            self.app = app
        if self.scope["method"] != "HEAD" and not self.expect_100_continue:
            self.cycle.transport = Answer(self.transport)  # type: ignore[assignment]  # all of one that a cycle asks for
        if self.book.leaving or refusal is _NO_TUNNEL:
            self.cycle.keep_alive = False
        self.headers = []  # of the trailer section from now on, which must not become part of the head that the application has

    def on_body(self, body: bytes) -> None:
        """As the base class, which asks each time whether the body is another protocol's."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._upgrades:  # of a request whose body the parser leaves out
            return
        self._unfinished = False
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

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
            if len(self.tasks) == 1:  # this one, whose answer is complete
                self.polling.answered()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.book.idle.pop(self, None)
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
            self._close()

    def _close(self) -> None:
        """In order. Who does not take what is still to be sent is waited for no longer than anybody."""
        self.transport.close()
        if self.unsent():
            self.book.sends(self)

    def _go_on(self, data: bytes, upgrade: httptools.HttpParserUpgrade | None) -> None:
        """Reads what is behind the head of a request that asks for another protocol, and may be more of them."""
        while upgrade is not None:
            data, upgrade = data[upgrade.args[0] :], None
            self._upgrades = False
            if self.scope["method"] == "CONNECT":  # whose bytes are nobody's here
                self._unfinished = False
                self._swallows = _SWALLOWED
                return
            self.parser = parser_behind(self)
            try:
                self.parser.feed_data(framing(self.scope["headers"]))
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self.send_400_response("")
            except httptools.HttpParserUpgrade as another:
                upgrade = another

    def cut_short(self) -> bool:
        """Ends the connection, the request that is under way with 503. Whether there was one; its task is for the caller to cancel."""
        cycle = self._answered
        under_way = cycle is not None and not cycle.response_complete
        if cycle is not None and under_way:
            cycle.logger = _SILENT  # nothing went wrong in it
            self._lose_client()
        if self._swallows or self.transport.is_closing():
            return under_way
        self.flow.resume_reading()
        if under_way and cycle is not None and not cycle.response_started and not self.unsent():
            sent_id = dict(cycle.scope["headers"]).get(b"x-request-id")
            self._refuse(503, "UNAVAILABLE", _STOPPED, _again(), swallow=True, sent_id=sent_id)
        else:
            self.hang_up()
        return under_way

    def _lose_client(self) -> None:
        """What the request that is being answered says from now on goes nowhere, and it hears so."""
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """As the base class, and notes which request it is."""
        self._answered = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

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
        if self._came_bytes > self._body_bytes * (1 + _FRAMING_SHARE) + _FRAMING_BYTES:
            self._give_up(400, "BAD_REQUEST", _MUCH_FRAMING)
            return
        if self.cycle is not None and self.cycle.response_complete and self._came_bytes > _SWALLOWED:
            self.hang_up()  # who was answered has been listened to for long enough
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
            self._close()

    def _too_large(self) -> ValueError:
        self._refusal = _HEAD_TOO_LARGE.format(most=self.most_head_bytes)
        return ValueError(self._refusal)

    def _give_up(self, status: int, code: str, message: str, more: bytes = b"") -> None:
        """Ends the request that is being read. Where an answer is on its way, of this one or of one before it, there is no other."""
        if self.pipeline or self.cycle.response_started:
            self.hang_up()
            return
        self.flow.resume_reading()
        self._refuse(status, code, message, more, swallow=True)

    def _refuse(
        self, status: int, code: str, message: str, more: bytes = b"", *, swallow: bool = False, sent_id: bytes | None = None
    ) -> None:
        """A GraphQL error body from outside the application, and the end of the connection: nothing comes behind it."""
        request_id = request_id_of(sent_id)
        extensions = {"code": code, "retryable": status == 503, "requestId": request_id}
        body = orjson.dumps({"errors": [{"message": message, "extensions": extensions}]})
        head = b"content-type: application/json; charset=utf-8\r\ncontent-length: %d\r\nx-request-id: %s\r\n" % (
            len(body),
            request_id.encode(),
        )
        self.transport.write(b"".join((STATUS_LINE[status], head, more, b"cache-control: no-store\r\nconnection: close\r\n\r\n", body)))
        self._lose_client()
        if swallow and self.transport.can_write_eof():
            self._swallows = _SWALLOWED
            self._watched = True
            self.book.awaits(self)
            self.transport.write_eof()
        else:
            self._close()


def _again() -> bytes:
    return b"retry-after: %d\r\n" % (1 + secrets.randbelow(5))


class _Refusing:
    """An ASGI application that gives one answer: the same as the endpoint would give, and no more work than that."""

    def __init__(self, error: AppError) -> None:
        self._error = error

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        problem = problem_of(self._error)
        status = self._error.status if isinstance(self._error, HttpRefusal) else status_of(problem.code, MediaType.JSON)
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
    its = {"book": connections, "outbox": Outbox(), "polling": Polling(), "most_head_bytes": connections.limits.head_bytes}
    return type("GuardedProtocol", (GuardedProtocol,), its)
