"""Serves a version by its own scikit-learn estimator, in the machine's locked child for that artifact.

Requests that come while the child is busy gather and go as one call, so a slow estimator is called as rarely as can be. A child
that dies or outlives its deadline is replaced behind the scenes. What it was working on is tried once more, each request alone, so that
only the one on which workers die is told so, and what was waiting goes on. An input on which two workers died is refused for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any

import structlog

from app.errors import AppError, DeadlineExceeded, ModelFailed, ModelUnavailable, Unavailable
from app.prediction.quarantine import CRASHED_S, LATE, LATE_S, MOST_DEATHS, Quarantine, name_of
from app.prediction.runtimes.answers import Nonsense, answer_bytes, error_text, part, read_scores
from app.prediction.runtimes.base import NotAsked, NotNow, time_left
from app.prediction.runtimes.calls import Request, Version, describe_fate, encoded, fail, model_failed, quarantined
from app.prediction.runtimes.channel import Channel, check_digest, is_skops
from app.prediction.runtimes.gathering import Gathering
from app.prediction.runtimes.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from app.kernel.clock import Deadline
    from app.kernel.tensors import Batch, Scores
    from app.prediction.bulkheads import Gate
    from app.prediction.runtimes.zygote import ZygoteClient

_CELLS_IN_A_THREAD = 20_000  # below this, taking a batch apart costs less than going to a thread
_MOST_WAITING_ROWS = 200_000
_LOAD_TIMEOUT_S = 120.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.05, 2.0
_LAST_LOOK_S = 0.005
_AWAY_S = 2.0  # so long requests wait for a model host that is being started anew
_STALE_CHANNELS = 3  # a child that ends for want of clients may be handed out once more
log = structlog.get_logger()


class SklearnRuntime:
    """One version in one serving process. Made by `start`."""

    kind = "sklearn"

    def __init__(
        self,
        zygote: ZygoteClient,
        version: Version,
        worker_died: Callable[[str], None],
        gate: Gate,
        quarantine: Quarantine,
        threads: Executor | None = None,
    ) -> None:
        """`gate`: how many calls the tenant may have under way; `quarantine`: of the artifact; `threads`: where large batches are written
        out.
        """
        self._zygote = zygote
        self._version = version
        self._worker_died = worker_died
        self._gate, self._quarantine, self._threads = gate, quarantine, threads
        self._waiting = Waiting(quarantine, version.rows_a_call, self._pump)
        self._call: list[Request] = []
        self._gathering = Gathering(self._pump)
        self._fallen: list[Request] = []  # of calls under which a child died, until it is known what became of it
        self._call_number = 0
        self._kill_timer: asyncio.TimerHandle | None = None
        self._channel: Channel | None = None
        self._pid = 0
        self._memory_bytes: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering = False
        self._closed = False
        self._innocent = False  # another process's suspect ended the child

    @property
    def pid(self) -> int:
        """The child's process id, 0 where there is none now."""
        return self._pid

    @property
    def memory_bytes(self) -> int | None:
        """Bytes that are the child's alone, as they were when it had loaded; None where this machine does not tell."""
        return self._memory_bytes

    async def measure(self) -> int | None:
        """The same, now. Raises Unavailable where the model host is away."""
        return await self._zygote.memory(self._version.key, self._pid)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer of it."""
        return bool(self._call or self._waiting or self._fallen)

    async def start(self) -> None:
        """Returns when the child has loaded the artifact; raises ModelFailed with its reason, ModelUnavailable or Unavailable."""
        await self._connect()
        with contextlib.suppress(AppError):  # it serves, whatever it takes
            self._memory_bytes = await self.measure()

    async def infer(self, batch: Batch, deadline: Deadline) -> Scores:
        """As `Runtime.infer`. Rows of one batch are never split over calls."""
        if self._closed:
            raise NotNow("The model is being unloaded.")
        if self._waiting.rows + batch.rows > _MOST_WAITING_ROWS:
            raise ModelUnavailable("Too many rows wait for this model already.")
        loop = asyncio.get_running_loop()
        remaining = time_left(deadline)
        if self._quarantine and (status := self._quarantine.refusal(name_of(batch))) is not None:
            raise quarantined(status)
        request = Request(batch, deadline, loop.create_future())
        timer = loop.call_later(remaining, self._expire, request)
        self._waiting.add(request)
        self._pump()
        try:
            return await request.answer
        finally:
            timer.cancel()

    def _expire(self, request: Request) -> None:
        """Its time is over. That it waits while the child is free, or for another suspect, is none of the version's doing."""
        free = self._channel is not None and not self._call
        held = request not in self._call and (request.held or free)
        fail((request,), NotAsked("The model was not asked in time.") if held else DeadlineExceeded("The model did not answer in time."))

    async def close(self) -> None:
        self._closed = True
        self._gathering.end()
        self._waiting.end()
        self._gate.forget(self._pump)
        fail(self._fallen, NotNow("The model is being unloaded."))
        self._waiting.fail(NotNow("The model is being unloaded."))
        for task in self._tasks:
            task.cancel()
        if self._channel is not None:
            self._channel.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- calls

    def _pump(self) -> None:
        """Sends what waits, where the child is free and the tenant has not too many calls under way."""
        if self._call or self._closed or self._channel is None or not self._waiting:
            self._gate.forget(self._pump)
            if self._channel is None:
                self._recover()
            return
        if self._gathering.goes_on(len(self._waiting)) or not self._gate.enter(self._pump):
            return
        call = self._waiting.take()
        if not call:
            self._gate.leave()
            return
        self._call = call
        self._gathering.sent(len(call))
        self._call_number += 1
        self._watch(call)
        batches = [request.batch for request in call]
        if sum(batch.numbers.size + batch.rows * len(batch.texts) for batch in batches) > _CELLS_IN_A_THREAD:
            self._spawn(self._send_large(self._call_number, batches))
        else:
            self._send(self._call_number, encoded(batches))

    async def _send_large(self, number: int, batches: list[Batch]) -> None:
        ready = await asyncio.get_running_loop().run_in_executor(self._threads, encoded, batches)
        if number == self._call_number and self._call:
            self._send(number, ready)

    def _send(self, number: int, ready: tuple[dict[str, Any], list[bytes]] | ModelFailed) -> None:
        if self._channel is None:
            return  # it died meanwhile, and the call with it
        if isinstance(ready, ModelFailed):
            self._call_failed(ready)
            return
        header, parts = ready
        self._channel.ask(
            {"op": "infer", "id": number, **header},
            parts,
            functools.partial(self._answered, header["rows"]),
            largest_body=answer_bytes(self._version.task, header["rows"], len(self._version.classes)),
        )

    def _answered(self, rows: int, header: dict[str, Any], body: memoryview) -> None:
        if header.get("ok") is not True:
            self._call_failed(model_failed("BAD_OUTPUT" if header.get("output") is True else "ESTIMATOR", error_text(header)))
            return
        try:
            if header.get("id") != self._call_number:
                raise Nonsense("an answer to another call")
            scores = read_scores(self._version.task, rows, len(self._version.classes), header, body)
        except Nonsense as error:
            log.warning("model_answered_nonsense", key=self._version.key, why=str(error))
            self._kill()
            return
        call = self._call_over()
        self._gathering.answered()
        self._waiting.end_trial()
        if self._quarantine:
            for request in call:
                self._quarantine.answered(request.name)
        start = 0
        for request in call:
            stop = start + request.batch.rows
            if not request.answer.done():
                request.answer.set_result(scores if len(call) == 1 else part(scores, start, stop))
            start = stop
        self._pump()

    def _call_failed(self, error: ModelFailed) -> None:
        """One request alone hears why; of several each is tried alone, so that a bad row fails only its own request."""
        call = self._call_over()
        self._waiting.end_trial()
        if len(call) == 1:
            fail(call, error)
        else:
            self._waiting.try_alone(call)
        self._pump()

    def _call_over(self) -> list[Request]:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None
        call, self._call = self._call, []
        if call:
            self._gate.leave()
        return call

    # --- the child's life

    def _watch(self, call: list[Request]) -> None:
        """Kills the child when the first deadline of the call has passed and the call has had its patience."""
        first = min(request.deadline.remaining_s() for request in call)
        loop = asyncio.get_running_loop()
        self._kill_timer = loop.call_later(max(first, self._version.patience_s), self._too_long)

    def _too_long(self) -> None:
        """Looks at the socket once more: where our own loop was held up, it comes to its timers first, and the answer may lie there."""
        self._kill_timer = asyncio.get_running_loop().call_later(_LAST_LOOK_S, self._give_up)

    def _give_up(self) -> None:
        log.warning("model_call_too_long", key=self._version.key, pid=self._pid)
        self._kill()

    def _kill(self) -> None:
        """Gives the child up; the model host ends it before it hands out another."""
        if self._channel is not None:
            self._channel.close()  # `_died` follows

    def _died(self, channel: Channel) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._fallen += self._call_over()
        self._innocent = not self._waiting.on_trial and self._quarantine.is_trial_of_another()
        if self._closed:
            fail(self._fallen, NotNow("The model is being unloaded."))
        self._recover()

    def _judge(self, fate: dict[str, Any]) -> None:
        """What the dead child was working on is tried again alone, but for inputs on which it was not the first to die."""
        fallen, self._fallen = self._fallen, []
        late = bool(fate.get("killed"))
        status = LATE if late else int(fate.get("exit", 0))
        # Without a fate the host is gone, and with it every child.
        held = "exit" in fate and not self._innocent
        for name in {request.name for request in fallen} if held else ():
            if self._quarantine.died(name, status, LATE_S if late else CRASHED_S) >= MOST_DEATHS:
                log.warning("input_quarantined", key=self._version.key, input=name.hex()[:16], exit=fate["exit"], late=late)
                fail((request for request in fallen if request.name == name), quarantined(status, now=True))
        self._waiting.end_trial()
        self._waiting.try_alone([request for request in fallen if not request.answer.done()])

    def _recover(self) -> None:
        if not self._recovering and not self._closed:
            self._recovering = True
            self._spawn(self._replace())

    async def _replace(self) -> None:
        """Ends what is left of the old child and connects to a new one, again and again until it answers or the runtime is closed."""
        backoff, began = _FIRST_BACKOFF_S, asyncio.get_running_loop().time()
        fate: dict[str, Any] = {}
        try:
            if self._pid:
                fate = await self._zygote.kill(self._version.key, self._pid)
                log.warning("model_worker_ended", key=self._version.key, pid=self._pid, exit=fate.get("exit"), killed=fate.get("killed"))
                self._count(fate)
                self._pid = 0
            self._judge(fate)
            while not self._closed:
                try:
                    await self._connect()
                    break
                except AppError as error:
                    # A model host is soon there again; and another process's request may have ended the child that was being loaded.
                    host_away = error.code == Unavailable.code
                    patient = asyncio.get_running_loop().time() - began < _AWAY_S if host_away else backoff == _FIRST_BACKOFF_S
                    if not patient:
                        told = NotNow if host_away else ModelUnavailable
                        self._waiting.fail(told(f"The model could not be loaded again: {error.message}"))
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
        finally:
            self._recovering = False
        self._pump()

    def _count(self, fate: dict[str, Any]) -> None:
        """Of the serving processes that shared the child the first to hear of its end counts it; not where it ended for want of work."""
        if fate.get("first", True) and fate.get("exit") != 0:
            self._worker_died("killed" if fate.get("killed") else "died")

    async def _connect(self) -> None:
        size = await asyncio.to_thread(check_digest, self._version.artifact, self._version.digest)
        for attempt in range(_STALE_CHANNELS):
            try:
                async with asyncio.timeout(_LOAD_TIMEOUT_S):
                    await self._open_channel(size)
                return
            except TimeoutError:
                await self._zygote.kill(self._version.key, self._pid)
                raise ModelFailed(f"The model did not load within {_LOAD_TIMEOUT_S:g} seconds.") from None
            except ConnectionError:
                fate = await self._zygote.kill(self._version.key, self._pid)
                if "exit" not in fate:
                    raise Unavailable("The model host of this machine went away while the model loaded.") from None
                self._count(fate)
                ended_idle = fate.get("exit") == 0 or (fate.get("killed") and fate.get("exit") == -9)
                if attempt == _STALE_CHANNELS - 1 or not ended_idle:
                    raise ModelFailed(f"The model's worker died while it loaded: {describe_fate(fate)}.") from None

    async def _open_channel(self, size: int) -> None:
        version = self._version
        skops = await asyncio.to_thread(is_skops, version.artifact)
        sock, _, self._pid = await self._zygote.channel({"op": "acquire", "key": version.key, "skops": skops})
        opened: list[Channel] = []
        channel = await Channel.connect(sock, lambda: self._died(opened[0]) if opened else None)
        try:
            terms = {"signature": version.signature.to_json(), "task": version.task.value, "classes": list(version.classes)}
            answer = await channel.question({"op": "hello", **terms})
            if answer.get("ok") is True and answer.get("loaded") is False:
                answer = await channel.question({"op": "load", "size": size}, artifact=version.artifact)
            if answer.get("ok") is not True:
                raise ModelFailed(error_text(answer))
        except BaseException:
            channel.close()
            raise
        opened.append(channel)
        if not channel.open:
            raise ConnectionResetError
        self._channel = channel

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
