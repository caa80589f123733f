"""One request and its answer: headers in, headers out, and the body as bytes."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from app.graphql.errors import OURS, ErrorCode, Problem, unforeseen
from app.graphql.http.negotiation import HttpRefusal, MediaType, status_of
from app.kernel.clock import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Receive, Scope, Send

    from app.errors import AppError
    from app.graphql.http.admission import Place
    from app.graphql.http.cors import Headers
    from app.graphql.http.ports import Decision

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:+/=-]{8,80}")
_ONCE = frozenset({b"authorization", b"content-type", b"content-length", b"content-encoding"})
_DRAINED_BYTES = 64 * 1024  # an unread body up to this the server reads to its end; beyond, the connection is closed
_RETRY_AFTER_S = 1  # where nobody knows better
_EVERY_ANSWER = ((b"cache-control", b"private, no-store"), (b"x-content-type-options", b"nosniff"))
_CONTENT_TYPES = {media_type: f"{media_type.value}; charset=utf-8".encode() for media_type in MediaType}
_new_ids: list[str] = []  # not given yet


class Exchange:
    """The state of one request on its way through the handler."""

    __slots__ = (
        "body_read", "code", "context", "deadline", "decision", "failed", "headers", "kind", "media_type", "method", "place", "quiet",
        "reading", "receive", "repeated", "request_id", "scope", "started", "tokens",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, timeout_s: float) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        sent = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(sent)
        self.repeated = len(self.headers) != len(sent) and _repeats(sent)  # a header that may stand once stood twice
        self.request_id = request_id_of(self.headers.get(b"x-request-id"))
        self.media_type = MediaType.JSON
        self.started = now = time.monotonic()
        self.deadline = Deadline(now + timeout_s)
        self.decision: Decision | None = None
        self.tokens = 0  # that this request cost
        self.reading = False  # waiting for the body
        self.body_read = False
        self.kind = "none"
        self.code = "OK"
        self.quiet = False  # counted, and in no log
        self.place: Place | None = None  # among what is under way
        self.context: Any = None  # what resolvers had, once there were any
        self.failed = False  # by our doing

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def client_address(self) -> str:
        """The peer, which the server has already replaced by the forwarded address where a trusted proxy told it."""
        client = self.scope.get("client")
        return client[0] if client else "unknown"

    def respond(self, data: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of an operation that ran, `data` null or partial or whole."""
        try:
            return 200, orjson.dumps(self._with_cost(data), option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError as error:  # orjson's JSONEncodeError: a resolver gave what JSON cannot say
            return self.refuse([unforeseen(error, self.request_id, "encoding")])

    def refuse(self, problems: list[Problem], status: int | None = None) -> tuple[int, bytes]:
        """Status and body of a request that brought no `data`."""
        self.note(problems)
        answer = self._with_cost({"errors": [problem.wire(self.request_id) for problem in problems]})
        body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=lambda _: None)
        return status or status_of(problems[0].code, self.media_type), body

    def note(self, problems: list[Problem]) -> None:
        """Keeps what logs, metrics and the service level say of the answer's errors."""
        self.code = problems[0].code.value
        self.failed = any(problem.code in OURS for problem in problems)

    async def send(self, send: Send, status: int, body: bytes, more: Headers) -> None:
        """Writes the answer."""
        headers = [(b"x-request-id", self.request_id.encode()), *_EVERY_ANSWER]
        if self.decision is not None:
            headers += _rate_headers(self.decision)
        if more:
            headers += more
        if status != 204:
            headers += ((b"content-type", _CONTENT_TYPES[self.media_type]), (b"content-length", b"%d" % len(body)))
        if not self.body_read and self._body_is_long():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _with_cost(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer, with what it cost and what that left where a budget was asked."""
        if self.decision is not None:
            answer["extensions"] = {"cost": {"requested": self.tokens, "remaining": max(0, self.decision.remaining)}}
        return answer

    def _body_is_long(self) -> bool:
        length = self.headers.get(b"content-length")
        if length is None:
            return b"transfer-encoding" in self.headers
        return not length.isdigit() or len(length) > 18 or int(length) > _DRAINED_BYTES


def _rate_headers(decision: Decision) -> Headers:
    """Source: IETF draft "RateLimit header fields for HTTP", quota policy and service limit as structured fields."""
    state = b'"requests";r=%d;t=%d' % (max(0, decision.remaining), math.ceil(max(0.0, decision.reset_s)))
    return [(b"ratelimit-policy", b'"requests";q=%d' % decision.limit), (b"ratelimit", state)]


def headers_of(error: AppError, status: int) -> Headers:
    """What an answer that refuses a whole request says beside its body."""
    headers: Headers = []
    if isinstance(error, HttpRefusal):
        headers.extend(error.headers)
    if error.code == ErrorCode.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer error="invalid_token"'))
    if status in {429, 503}:
        wait_ms = error.details.get("retry_after_ms")
        wait_s = math.ceil(wait_ms / 1000) if isinstance(wait_ms, (int, float)) else _RETRY_AFTER_S
        headers.append((b"retry-after", b"%d" % max(1, wait_s)))
    return headers


def request_id_of(sent: bytes | None) -> str:
    """The caller's own id where it is fit to stand in a log line, else a new one."""
    if sent is None or len(sent) > 80:
        return _new_id()
    text = sent.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else _new_id()


def _new_id() -> str:
    """128 random bits, of which the system is asked for many at once."""
    try:
        return _new_ids.pop()
    except IndexError:
        many = os.urandom(256 * 16).hex()
        _new_ids.extend([many[at : at + 32] for at in range(0, len(many), 32)])
        return _new_ids.pop()


def _repeats(sent: Iterable[tuple[bytes, bytes]]) -> bool:
    counted = Counter(name for name, _ in sent)
    return any(counted[name] > 1 for name in _ONCE)
