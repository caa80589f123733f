"""The server of one serving process: uvicorn, with a way to stop that clients and load balancers do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog
import uvicorn

from app.web.accepting import Accepting
from app.web.connections import SWEEP_S
from app.web.protocol import guarded

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from starlette.types import ASGIApp

    from app.web.connections import Connections
    from app.web.protocol import GuardedProtocol

READY = b"ready"
_LOOK_S = 0.05
_SWITCH_S = 0.0005
_YOUNG = 5_000  # objects after which garbage is looked for; the interpreter's own 700 are made by few requests, which are under way still
_ANSWER_S = 4.0  # for what is under way when the service stops
_LEAVE_ANSWER_S = 12.0  # when this process alone is replaced: nobody is in a hurry
_CUT_S = 0.5  # for what was cut short: its answer to be taken, its work to be put away
_ENOUGH_S = 0.02
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leaving:
    """How long a process that leaves goes on answering."""

    grace_s: float  # the whole service stops: accepting goes on, /readyz says no
    linger_s: float = 5.0  # this process is replaced: for requests on connections that are open


class Serving:
    """Why this process should not get requests: it leaves, or what `ready` says. None where it should."""

    def __init__(self, ready: Callable[[], str | None], connections: Connections) -> None:
        self._ready, self._connections = ready, connections

    def __call__(self) -> str | None:
        return "this process is stopping" if self._connections.leaving else self._ready()

    async def tell_parent(self) -> None:
        """Says so once it is ready, where the parent's end of standard input listens."""
        while self._ready() is not None:  # noqa: ASYNC110  it is told by nobody, and asked for by others
            await asyncio.sleep(_LOOK_S)
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(0).st_mode):
                os.write(0, READY)


class ServingProcess(uvicorn.Server):
    """SIGTERM or SIGINT: not ready, each answer ends its connection, after the grace nothing is accepted, then the end.

    What is still under way some seconds later is cut short: 503, for the client to repeat elsewhere.

    SIGHUP: another process takes over. Nothing is accepted any more, each answer ends its connection, and who is silent has `linger_s`
    to ask once more: closing an idle connection at once would meet requests that are on their way.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections, leaving: Leaving) -> None:
        super().__init__(config)
        self._connections = connections
        self._leaving = leaving
        self._until: float | None = None
        self._replaced = False
        self._timer: asyncio.TimerHandle | None = None
        self._answer_s = _ANSWER_S

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        before = signal.signal(signal.SIGHUP, self._replace)
        try:
            await super().serve(sockets)
        finally:
            signal.signal(signal.SIGHUP, before)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super()._serve(sockets)
        self._captured_signals.clear()  # uvicorn would raise them again: the exit status would say nothing but that

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        keep_what_is_there()
        self.servers += [cast("asyncio.Server", Accepting(listener, self._protocol)) for listener in sockets or []]
        self._sweep()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._timer is not None:
            self._timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the grace, the next one ends it."""
        if self._until is None or self._replaced:
            self._replaced = False
            self._leave(self._leaving.grace_s)
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        if self._replaced:
            for server in self.servers:
                server.close()
            if not self.server_state.connections:
                return True
        return self._until is not None and time.monotonic() >= self._until

    async def _wait_tasks_to_complete(self) -> None:
        """For uvicorn, which would wait without a bound, or answer what it cuts short as if something had gone wrong."""
        if await self._ended(self._answer_s):
            return
        cut = sum(cast("GuardedProtocol", connection).cut_short() for connection in list(self.server_state.connections))
        for task in list(self.server_state.tasks):
            task.cancel()
        if cut:
            log.warning("requests_cut_short", requests=cut)
        await self._ended(_CUT_S, hurry=False)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _ended(self, within_s: float, *, hurry: bool = True) -> bool:
        """Whether all requests have, within that time. `hurry`: a second signal ends the wait."""
        until = time.monotonic() + within_s
        while self.server_state.connections or self.server_state.tasks:
            if time.monotonic() >= until or (hurry and self.force_exit):
                return False
            await asyncio.sleep(_ENOUGH_S)
        return True

    def _protocol(self) -> asyncio.Protocol:
        make = cast("type[GuardedProtocol]", self.config.http_protocol_class)
        return make(self.config, self.server_state, self.lifespan.state)

    def _replace(self, _number: int, _frame: FrameType | None) -> None:
        if self._until is None:
            self._replaced = True
            self._answer_s = _LEAVE_ANSWER_S
            self._leave(self._leaving.linger_s)

    def _leave(self, wait_s: float) -> None:
        self._connections.leaving = True
        self._until = time.monotonic() + wait_s

    def _sweep(self) -> None:
        self._connections.sweep()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


def keep_what_is_there() -> None:
    """What was made until now stays as long as the process: to look through it for garbage, now and then, would be a pause for all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


def share_the_interpreter() -> None:
    """Threads that check large batches give the interpreter back sooner than they are used to: each time the loop may have to wait."""
    sys.setswitchinterval(_SWITCH_S)


def serve(app: ASGIApp, listener: socket.socket, connections: Connections, leaving: Leaving, **options: Any) -> None:
    """Serves `app` on `listener` until a signal; `options` are uvicorn's."""
    share_the_interpreter()
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http=guarded(connections),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=2048,
        **options,
    )
    ServingProcess(config, connections, leaving).run(sockets=[listener])
