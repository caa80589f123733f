"""Connections are taken as they come, however long the loop's turns are.

The loop's own listener takes one connection a turn. In an overload, where a turn is tens of milliseconds, a thousand clients that connect
wait for half a minute, behind them probes of orchestrators, and nobody of them can even be refused. This one, beside it, takes many.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_A_TURN = 32  # some two milliseconds of a turn


class Accepting:
    """Takes connections on `listener`, which stays its owner's, from now until closed; belongs to the running loop.

    `make` makes a connection's protocol. It ends as uvicorn ends a server: by `close`.
    """

    def __init__(self, listener: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        self._listener: socket.socket | None = socket.socket(fileno=os.dup(listener.fileno()))  # a loop watches a descriptor once
        self._listener.setblocking(False)
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._listener, self._take)

    def close(self) -> None:
        """Nothing is taken any more; what was taken is served. Again, and nothing happens."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _take(self) -> None:
        for _ in range(MOST_A_TURN):
            if self._listener is None:
                return
            try:
                connection, _ = self._listener.accept()
            except OSError:  # nobody is left, or whoever waited has gone; for want of descriptors the loop's own listener hangs up
                return
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has gone already
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make, connection)
            return
        connection.close()
