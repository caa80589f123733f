"""Asks the model host of this machine: one connection a question, so a host that was started anew is simply the next answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from app.errors import ModelUnavailable, Unavailable
from app.prediction.worker import wire

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S = 10.0
_LARGEST_ANSWER = 1 << 20


class ZygoteClient:
    """`path`: the model host's socket. Raises Unavailable where the host is away or does not answer in ten seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def channel(self, question: dict[str, Any]) -> tuple[socket.socket, str, int]:
        """(a non-blocking channel to a child, its key, its pid); the caller closes the channel."""
        answer, descriptors = await self._ask(question)
        if len(descriptors) != 1 or "pid" not in answer:
            for fd in descriptors:
                os.close(fd)
            raise ModelUnavailable(str(answer.get("error", "The model host gave no worker.")))
        channel = socket.socket(fileno=descriptors[0])
        channel.setblocking(False)
        return channel, str(answer["key"]), int(answer["pid"])

    async def kill(self, key: str, pid: int) -> dict[str, Any]:
        """What became of the child, dead by now: `exit` (negative: a signal), `killed` (by this), `cpu_s`; empty where nobody knows."""
        try:
            answer, _ = await self._ask({"op": "kill", "key": key, "pid": pid})
        except Unavailable:
            return {}  # the host is gone, and its children with it
        return answer

    async def memory(self, key: str, pid: int) -> int | None:
        """Bytes of the machine's memory that are this child's alone; None where nobody can tell."""
        told = (await self._ask({"op": "memory", "key": key, "pid": pid}))[0].get("bytes")
        return told if type(told) is int and told >= 0 else None

    async def stats(self) -> dict[str, Any]:
        """`pid`, `children` (key, pid, rss_bytes), `confinement`."""
        return (await self._ask({"op": "stats"}))[0]

    async def _ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            descriptors: list[int] = []
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await loop.sock_connect(connection, str(self._path))
                    await loop.sock_sendall(connection, wire.frame(question))
                    return await _receive(connection, descriptors), descriptors
            except BaseException as error:
                for fd in descriptors:
                    os.close(fd)
                if isinstance(error, OSError | TimeoutError | wire.Hangup):
                    raise Unavailable("The model host of this machine does not answer.") from None
                raise


async def _receive(connection: socket.socket, descriptors: list[int]) -> dict[str, Any]:
    received = bytearray()
    while len(received) <= _LARGEST_ANSWER:
        await _readable(connection)
        with contextlib.suppress(BlockingIOError):
            data, taken, _, _ = socket.recv_fds(connection, 1 << 16, 4)
            descriptors += taken
            if not data:
                raise wire.Hangup("closed")
            received += data
        if len(received) >= wire.PREFIX.size:
            size, _ = wire.PREFIX.unpack_from(received)
            if len(received) >= wire.PREFIX.size + size:
                return wire.parse_header(received[wire.PREFIX.size : wire.PREFIX.size + size])
    raise wire.Hangup("too large")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())
