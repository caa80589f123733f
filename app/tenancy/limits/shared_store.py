"""Budgets that several machines share, in a Redis or Valkey server: asked in batches, waited for 30 ms at most, and done without.

One connection a process. What is asked while an answer is under way goes along with the next question, so that a busy process costs
the server as little as an idle one. Nobody who asks ever hears of an error: a server that is slow or gone is no answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from app.errors import Unavailable
from app.tenancy.limits.questions import Answer, Question, StoreState

if TYPE_CHECKING:
    from app.kernel.clock import Clock

PATIENCE_S = 0.030  # nobody waits longer, and after it nobody waits at all until the server has answered in time again
FAILURES = 5  # in a row; then the server is left alone for a while
PAUSE_S = 5.0
_GRACE_S = 0.003  # of the patience: a loop that was held up reads what came meanwhile before it calls an answer late
_AGAIN_S = 0.05
_SOCKET_S = 1.0
_MOST_AT_ONCE = 256
log = structlog.get_logger()

# Each key has five arguments: the kind, two bounds, what is asked for, and what the machine knows to be used already.
# "r": microseconds a unit, microseconds of the whole burst, units, microseconds that the machine's own budget is ahead of now; a server
#      that was started anew thus learns what it forgot. Answers: whether it fits, microseconds until all of it is there again.
# "c": most, milliseconds that the counter lives, how many, how many were counted without the server. Answers: whether they fit, the sum.
# Times count from 2026 on, so that a double holds them to a fraction of a microsecond.
SCRIPT = """
local t = redis.call('TIME')
local now = (tonumber(t[1]) - 1767225600) * 1000000 + tonumber(t[2])
local said = {}
for i, key in ipairs(KEYS) do
  local a = (i - 1) * 5
  local x, y, cost, used = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])
  local before = tonumber(redis.call('GET', key) or '0')
  local fits, value = 0, 0
  if ARGV[a + 1] == 'r' then
    local start = math.min(math.max(before, now, now + used), now + y)
    local after = start + cost * x
    if after - now <= y + 0.5 then fits = 1 else after = start end
    if after > now then redis.call('SET', key, string.format('%.3f', after), 'PX', math.ceil((after - now) / 1000) + 1) end
    value = math.ceil(after - now)
  else
    value = before + used
    if value + cost <= x then
      fits = 1
      value = value + cost
    end
    if value ~= before then redis.call('SET', key, string.format('%.0f', value), 'PX', y) end
  end
  said[i * 2 - 1] = fits
  said[i * 2] = value
end
return said
"""


class SharedLimitTelemetry(Protocol):
    def shared_limit(self, outcome: str, count: int = 1) -> None:
        """So many budgets that were to be asked of the shared store: "answered", "late" or "away"."""


class _Asked:
    """A question and who waits for it."""

    __slots__ = ("future", "question", "timer")

    def __init__(self, question: Question, future: asyncio.Future[Answer | None]) -> None:
        self.question, self.future = question, future
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, answer: Answer | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.future.done():
            self.future.set_result(answer)


async def examine(url: str) -> str:
    """What answers at `url`, and how fast; raises Unavailable that says what does not."""
    server = Redis.from_url(url, socket_timeout=_SOCKET_S, socket_connect_timeout=_SOCKET_S, retry=Retry(NoBackoff(), 0))
    try:
        info = await server.info("server")
        began = time.perf_counter()
        await server.execute_command("EVAL", SCRIPT, 0)  # type: ignore[no-untyped-call]  # redis-py's
        taken_ms = (time.perf_counter() - began) * 1000
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"the server of TURNOUT_REDIS_URL does not answer ({type(error).__name__})") from None
    finally:
        await server.aclose()
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info.get("redis_version", "?"))
    return f"{name} {version} answers in {taken_ms:.1f} ms"


class SharedStore:
    """One a process, its loop's alone: `ask` any time, `run` until cancelled."""

    def __init__(self, url: str, clock: Clock, telemetry: SharedLimitTelemetry) -> None:
        """`url`: redis://, rediss:// or unix://. Raises ValueError for another."""
        self._pool = ConnectionPool.from_url(
            url, socket_timeout=_SOCKET_S, socket_connect_timeout=_SOCKET_S, retry=Retry(NoBackoff(), 0), health_check_interval=0
        )
        self._clock, self._telemetry = clock, telemetry
        self._connection: Any = None
        self._sha = b""
        self._waiting: deque[_Asked] = deque()
        self._news = asyncio.Event()
        self._ready = False
        self._times_ready = 0
        self._failures = 0
        self._answered_at: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it is worth asking: the server answered in time when it was asked last."""
        return self._ready

    @property
    def times_ready(self) -> int:
        """How often the server came; from the second time on it may have forgotten, or missed, what was taken meanwhile."""
        return self._times_ready

    def state(self) -> StoreState:
        silent_s = None if self._answered_at is None else self._clock.monotonic() - self._answered_at
        return StoreState(self._ready, self._failures, silent_s)

    def ask(self, question: Question) -> asyncio.Future[Answer | None] | None:
        """The answer, or None after 30 ms; None at once where the server is known to be slow or gone. The future never fails."""
        if not self._ready:
            self._telemetry.shared_limit("away")
            return None
        loop = asyncio.get_running_loop()
        asked = _Asked(question, loop.create_future())
        asked.timer = loop.call_later(PATIENCE_S - _GRACE_S, self._almost_late, loop, asked, loop.time() + PATIENCE_S)
        self._waiting.append(asked)
        self._news.set()
        return asked.future

    async def run(self) -> None:
        """Keeps a connection and carries questions over it, until cancelled."""
        try:
            while True:
                try:
                    await self._probe()
                    self._ready, self._times_ready = True, self._times_ready + 1
                    await self._carry()
                except (RedisError, OSError, TimeoutError) as error:
                    await self._failed(error)
                await asyncio.sleep(PAUSE_S if self._failures >= FAILURES else _AGAIN_S)
        finally:
            self._stop_asking()
            await self._disconnect()

    async def _probe(self) -> None:
        """Returns when the server has answered in time; on a new connection where there is none. Raises."""
        if self._connection is None:
            connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's
            try:
                async with asyncio.timeout(_SOCKET_S):
                    await connection.connect()
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._connection = connection
            self._sha = await self._command("SCRIPT", "LOAD", SCRIPT)
        began = self._clock.monotonic()
        await self._command("PING")
        if self._clock.monotonic() - began > PATIENCE_S:
            raise TimeoutError("slow")

    async def _carry(self) -> None:
        """Asks what waits, batch by batch; raises at the first answer that is late or none."""
        while True:
            await self._news.wait()
            self._news.clear()
            while batch := self._batch():
                try:
                    await self._in_time(batch)
                finally:
                    for asked in batch:
                        asked.settle(None)

    def _batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        while self._waiting and len(batch) < _MOST_AT_ONCE:
            asked = self._waiting.popleft()
            if not asked.future.done():
                batch.append(asked)
        return batch

    async def _in_time(self, batch: list[_Asked]) -> None:
        asking, loop = asyncio.create_task(self._question(batch)), asyncio.get_running_loop()
        due = loop.time() + PATIENCE_S
        try:
            await asyncio.wait({asking}, timeout=PATIENCE_S - _GRACE_S)
            if not asking.done():
                await asyncio.wait({asking}, timeout=_GRACE_S if loop.time() < due else PATIENCE_S)
            if not asking.done():
                self._stop_asking()
                for asked in batch:
                    asked.settle(None)
                await asking  # the connection stays of use where the answer comes after all; its socket has a second
                raise TimeoutError("late")
            await asking
            self._failures = 0
        finally:
            asking.cancel()

    async def _question(self, batch: list[_Asked]) -> None:
        arguments: list[Any] = [len(batch), *(asked.question.key for asked in batch)]
        for asked in batch:
            arguments += asked.question[1:]
        try:
            said = await self._command("EVALSHA", self._sha, *arguments)
        except NoScriptError:  # somebody flushed the scripts
            said = await self._command("EVAL", SCRIPT, *arguments)
        self._answered_at = self._clock.monotonic()
        self._telemetry.shared_limit("answered", sum(not asked.future.done() for asked in batch))
        for place, asked in enumerate(batch):
            if not asked.future.done():
                asked.settle(Answer(said[2 * place] == 1, said[2 * place + 1]))

    async def _command(self, *arguments: Any) -> Any:
        await self._connection.send_command(*arguments, check_health=False)
        return await self._connection.read_response()

    async def _failed(self, error: BaseException) -> None:
        self._stop_asking()
        self._failures += 1
        if self._failures in {1, FAILURES}:
            log.warning("shared_limits_away", failures=self._failures, error=type(error).__name__)
        if not (isinstance(error, TimeoutError) and error.args in {("late",), ("slow",)}):
            await self._disconnect()

    def _stop_asking(self) -> None:
        self._ready = False
        while self._waiting:
            self._waiting.popleft().settle(None)

    def _almost_late(self, loop: asyncio.AbstractEventLoop, asked: _Asked, due: float) -> None:
        """A loop that was itself held up has not waited for the server: the answer, or the question, is still on its way through it."""
        asked.timer = loop.call_later(_GRACE_S if loop.time() < due else PATIENCE_S, self._late, asked)

    def _late(self, asked: _Asked) -> None:
        if not asked.future.done():
            self._telemetry.shared_limit("late")
            asked.settle(None)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
