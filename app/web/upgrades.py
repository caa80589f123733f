"""A request that asks for another protocol, read as if it did not ask.

llhttp takes what stands behind the head of such a request for the other protocol: it leaves the body out, and whoever goes on feeding it
has the body read as the next request. So behind such a head another parser goes on, which is first told how long the body is.

Source: RFC 9110, section 7.8: a server may ignore Upgrade; then the request is like any other. RFC 9112, section 11.2 on request smuggling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import httptools

if TYPE_CHECKING:
    from collections.abc import Iterable

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Reading(Protocol):
    """A protocol as httptools calls it."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class Behind:
    """Calls `protocol` for what comes behind a head that it knows already: the body, and further requests."""

    def __init__(self, protocol: Reading) -> None:
        self._protocol = protocol
        self._known = True  # what is read is the head that the protocol has
        self.on_body, self.on_message_complete = protocol.on_body, protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._known:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._known:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._known:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._known:
            self._known = False
        else:
            self._protocol.on_headers_complete()


def parser_behind(protocol: Reading) -> httptools.HttpRequestParser:
    """A parser for what follows a head; it must be fed `framing` first."""
    parser = httptools.HttpRequestParser(Behind(protocol))
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn: a request behind one that ends its connection is no error
    return parser


def framing(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head that says of its body what `headers` say of theirs, and nothing else."""
    lines = [b"%s: %s\r\n" % (name, value) for name, value in headers if name in _FRAMING]
    return b"".join((b"POST / HTTP/1.1\r\n", *lines, b"\r\n"))
