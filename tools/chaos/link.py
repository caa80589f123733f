"""One connection of a client's: just enough HTTP/1.1, so that it is known whether a request had left before its connection broke."""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class Link:
    """One connection, made anew where it broke."""

    def __init__(self, ports: Sequence[int], unready: Collection[int] = ()) -> None:
        self._ports, self._unready = list(ports), unready
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connected, to the first replica that takes connections; raises OSError, TimeoutError."""
        if self._writer is not None and not self._writer.is_closing() and not _ended(self._writer):
            return
        self.close()
        ports = sorted(self._ports, key=lambda port: port in self._unready)
        for port in ports:
            try:
                self._reader, self._writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5)
                return
            except OSError:
                if port == ports[-1]:
                    raise

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; whatever it raises came after something was sent."""
        assert self._reader is not None
        assert self._writer is not None
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        length = int(lowered.split(b"content-length:")[1].split(b"\r\n", 1)[0])
        body = await self._reader.readexactly(length)
        if b"\r\nconnection: close" in lowered:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        if self._writer is not None:
            with suppress(RuntimeError):  # the loop is closing
                self._writer.transport.abort()
        self._reader = self._writer = None


def _ended(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has hung up, as the kernel knows it now: the loop may not have looked yet. Nothing is expected to be read."""
    look = select.poll()
    look.register(writer.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(look.poll(0))


def post(path: str, body: bytes, token: str) -> bytes:
    """A whole POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: chaos\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
