"""How answers leave a serving process: those of one turn of its loop behind each other, and a head with its body.

Between two answers that leave at once the kernel's code takes the caches from ours and gives them back, and a client of this machine
that went to sleep meanwhile is woken anew, at the sender's cost. Measured in docs/performance.md; docs/adr/0029.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Collection

log = structlog.get_logger(__name__)

_FEW = 4  # requests under way: each is answered at once, so that its client goes on while the others are worked on
_MOST = 32  # answers: more save nothing, and the first of them would wait for the last
_LONG = 16_384  # bytes: an answer of more is worth a call of its own


class Outbox:
    """What has been answered in this turn. One a serving process, for its event loop alone, and not for another one after it."""

    def __init__(self) -> None:
        self._waiting: list[Outgoing] = []

    def add(self, outgoing: Outgoing) -> None:
        """Has what waits there sent when all are through that the loop was to run in this turn, and it has looked at its sockets once."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._empty)
        self._waiting.append(outgoing)
        if len(self._waiting) == _MOST:
            self._empty()

    def _empty(self) -> None:
        waiting, self._waiting = self._waiting, []
        for outgoing in waiting:
            try:
                outgoing.flush()
            except Exception:  # whatever is wrong with one connection, the others have their answers
                log.exception("answer_not_sent")
                outgoing.abort()


class Outgoing:
    """What a connection's protocol writes to, in order: whatever else it does comes behind the answers that wait.

    `under_way`: the requests of the process that are being answered.
    """

    __slots__ = ("_box", "_parts", "_transport", "_under_way", "can_write_eof", "get_write_buffer_size", "is_closing")

    def __init__(self, transport: asyncio.Transport, box: Outbox, under_way: Collection[object]) -> None:
        self._transport = transport
        self._box = box
        self._under_way = under_way
        self._parts: list[bytes] = []
        self.is_closing = transport.is_closing
        self.can_write_eof = transport.can_write_eof
        self.get_write_buffer_size = transport.get_write_buffer_size  # of what the client was sent and has not taken

    def answer(self, head: bytes, body: bytes) -> None:
        """The beginning of an answer, which is all of most."""
        if len(self._under_way) > _FEW and len(body) <= _LONG:
            self._parts += (head, body)
            self._box.add(self)
        else:
            self.flush()
            self._transport.writelines((head, body))

    def flush(self) -> None:
        """Sends what waits."""
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.writelines(parts)

    def forget(self) -> None:
        """The connection is lost, and what waits with it."""
        self._parts = []

    def write(self, data: bytes) -> None:
        self.flush()
        self._transport.write(data)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once; what was not sent is lost."""
        self.forget()
        self._transport.abort()


class Answer:
    """Where one request's answer is written: its head goes with what comes behind it.

    Source: ASGI, which has a server send the head of an answer no sooner than the first part of its body.
    """

    __slots__ = ("_head", "_is_sent", "_outgoing", "is_closing")

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.is_closing = outgoing.is_closing
        self._head = b""
        self._is_sent = False

    def write(self, data: bytes) -> None:
        if self._is_sent:
            self._outgoing.write(data)
        elif self._head:
            self._is_sent = True
            self._outgoing.answer(self._head, data)
        else:
            self._head = data

    def close(self) -> None:
        """Whoever answers has given up behind the head."""
        if not self._is_sent and self._head:
            self._outgoing.write(self._head)
        self._outgoing.close()
