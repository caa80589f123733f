"""A connection of its own, kept up: for what must not wait for a place in the pool, and for hearing NOTIFY."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import structlog

from app.db.breaker import DatabaseAway, NoBreaker
from app.db.driver import connect, translated, unavailable
from app.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from app.db.breaker import DatabaseBreaker

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0
_ANSWER_WITHIN_S = 2.0
_CHECK_S = 1.0
log = structlog.get_logger()


class Line:
    """One connection, made anew whenever it is lost. `run` keeps it up; `use` is for one caller at a time, others queue.

    With a channel, `heard` is called with the payload of each NOTIFY, in the event loop. `up` is called each time the line is up:
    what was said meanwhile is lost, so who listens must look.
    """

    def __init__(self, url: str, name: str, *, breaker: DatabaseBreaker | None = None, probe: bool = False, **server_settings: str) -> None:
        """`breaker`: of this process. `probe`: this line finds out whether a database that was away is back."""
        self._url = url
        self._breaker, self._probe = breaker or NoBreaker(), probe
        self._settings = {
            "application_name": f"turnout {name}",
            "timezone": "UTC",
            "search_path": "public",
            "statement_timeout": "1500",
            "lock_timeout": "500",
            **server_settings,
        }
        self._name = name
        self._channel: str | None = None
        self._heard: Callable[[str], None] = lambda _: None
        self._up: Callable[[], None] = lambda: None
        self._connection: Any = None
        self._taken = asyncio.Lock()

    def listen(self, channel: str, heard: Callable[[str], None], up: Callable[[], None]) -> None:
        """What to listen to, from the next connection on: said before `run`."""
        self._channel, self._heard, self._up = channel, heard, up

    @property
    def is_up(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """The driver's connection (asyncpg), outside any transaction. Raises Unavailable where it is down or does not answer in time."""
        async with self._taken:
            connection = self._connection
            if connection is None or connection.is_closed():
                raise unavailable()
            try:
                with translated():
                    yield connection
            except Unavailable as error:
                connection.terminate()  # late or lost: what it would answer next is not known
                self._breaker.failed(error)
                raise
            self._breaker.answered()

    async def run(self) -> None:
        """Keeps the line up until cancelled; waits longer and longer, never the same time as others, while the server is away."""
        wait_s = FIRST_WAIT_S
        try:
            while True:
                try:
                    lost = await self._connect()
                    wait_s = FIRST_WAIT_S
                    while not lost.done() and self.is_up:  # the driver does not tell of each end
                        await asyncio.wait([lost], timeout=_CHECK_S)
                    log.warning("database_line_lost", line=self._name)
                except DatabaseAway:
                    pass  # another of this process has just found that out
                except (Unavailable, ConfigurationError) as error:
                    log.warning("database_line_down", line=self._name, why=str(error))
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  no secret
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the connection; `run` would make another."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(Unavailable), translated():
                await connection.close(timeout=1.0)

    async def _connect(self) -> asyncio.Future[None]:
        """Makes the connection; what comes back is done when it is lost."""
        connection = await self._breaker.connect(self._connected, probe=self._probe)
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(_: Any) -> None:
            if not lost.done():
                lost.set_result(None)

        connection.add_termination_listener(ended)
        try:
            if self._channel is not None:
                with translated():
                    await connection.add_listener(self._channel, self._told)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self._breaker.answered()
        self._up()
        return lost

    async def _connected(self) -> Any:
        return await connect(self._url, timeout_s=2.0, command_timeout=_ANSWER_WITHIN_S, server_settings=self._settings)

    def _told(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._heard(str(payload))
