"""One end of a channel to a model's child, on the event loop. What comes out of it is hostile: sizes are bounded before they are read."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, cast

from app.errors import ModelUnavailable
from app.prediction.worker import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

_CHUNK_BYTES = 1 << 20
LARGEST_REPORT = 16 * 1024 * 1024


class Channel(asyncio.Protocol):
    """Questions and answers by turns: `ask` may be called again once `answered` was. `lost` is called once, at the end."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answered: Callable[[dict[str, Any], memoryview], None] | None = None
        self._largest_header = self._largest_body = 0
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def connect(cls, sock: socket.socket, lost: Callable[[], None]) -> Channel:
        """Takes over the socket."""
        _, channel = await asyncio.get_running_loop().create_unix_connection(lambda: cls(lost), sock=sock)
        return channel

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(
        self,
        header: dict[str, Any],
        parts: list[bytes],
        answered: Callable[[dict[str, Any], memoryview], None],
        *,
        largest_body: int = 0,
        largest_header: int = 1 << 16,
    ) -> None:
        """Sends a frame and calls `answered(header, body)` with the next one; an answer beyond the given sizes ends the channel."""
        self._answered = answered
        self._largest_header, self._largest_body = largest_header, largest_body
        self.write(wire.frame(header, sum(map(len, parts))), *parts)

    async def question(self, header: dict[str, Any], parts: list[bytes] | None = None, artifact: Path | None = None) -> dict[str, Any]:
        """The header of the answer; `artifact`'s bytes follow the frame. Raises ConnectionError where the child is gone."""
        return (await self.exchange(header, parts or [], artifact))[0]

    async def exchange(
        self, header: dict[str, Any], parts: list[bytes], artifact: Path | None = None, largest_body: int = 0
    ) -> tuple[dict[str, Any], memoryview]:
        """As `question`, with the body of the answer."""
        answer: asyncio.Future[tuple[dict[str, Any], memoryview]] = asyncio.get_running_loop().create_future()
        self._waiting = answer
        self.ask(
            header,
            parts,
            lambda found, body: None if answer.done() else answer.set_result((found, body)),
            largest_header=LARGEST_REPORT,
            largest_body=largest_body,
        )
        if artifact is not None:
            sending = asyncio.ensure_future(self._send_file(artifact))
            try:
                await asyncio.wait((sending, answer), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                sending.cancel()
        return await answer

    def write(self, *parts: bytes) -> None:
        if self._transport is not None:
            self._transport.writelines(parts)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _send_file(self, path: Path) -> None:
        """Reads in a thread, and no faster than the child takes it."""
        with await asyncio.to_thread(path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await self._writable.wait()
                self.write(chunk)

    # --- asyncio.Protocol

    _waiting: asyncio.Future[tuple[dict[str, Any], memoryview]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # a stream's; uvloop's own class is no asyncio.Transport

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            self._take_frame()
        except wire.Hangup:
            self.close()

    def _take_frame(self) -> None:
        if self._answered is None:
            raise wire.Hangup("an answer that nobody asked for")
        if len(self._received) < wire.PREFIX.size:
            return
        header_size, body_size = wire.PREFIX.unpack_from(self._received)
        if header_size > self._largest_header or body_size > self._largest_body:
            raise wire.Hangup("an answer beyond the largest size")
        start = wire.PREFIX.size + header_size
        if len(self._received) < start + body_size:
            return
        if len(self._received) > start + body_size:
            raise wire.Hangup("more than was asked for")
        received, self._received = self._received, bytearray()
        answered, self._answered = self._answered, None
        answered(wire.parse_header(received[wire.PREFIX.size : start]), memoryview(received)[start:])

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  asyncio.Protocol names it
        self._writable.set()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("the worker died"))
        self._lost()


def check_digest(path: Path, digest: str) -> int:
    """The file's size in bytes; raises ModelUnavailable where its bytes are not those of `digest`. Blocks."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError:
        raise ModelUnavailable("The artifact is not at hand on this machine.") from None
    if found != digest:
        raise ModelUnavailable("The artifact's bytes do not match its digest.")
    return size


def is_skops(path: Path) -> bool:
    """Whether the file is a zip archive, by its first bytes: a child for it needs what reads skops files. Blocks."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False  # whoever reads it whole says what is wrong
