"""Clients of several tenants that ask for predictions at an even pace, never ask twice, and write down how each request ended.

They run in a thread of their own, so that a scenario breaks things in plain steps meanwhile. They know just enough HTTP/1.1: with a
library between, nobody could say whether a request had left before its connection broke.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from tools.chaos.crossing import Crossing, probe
from tools.chaos.history import Answer, Operation, Outcome
from tools.chaos.link import Link, post

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

CLIENT_TIMEOUT_S = 20.0
UNITS_A_CLIENT = 25
NOT_SENT = "NOT_SENT"  # the code of an operation whose connection could not even be made
BROKEN = "BROKEN"
BUSY = "BUSY"  # UNAVAILABLE, because the machine has more to do than it can
_AGAIN_AFTER_S = 0.05
_LOOK_EVERY_S = 0.2
_PREDICT = """query($row: FeatureRow!, $unit: ID) { predict(model: "%s", features: $row, unit: $unit) {
  id version experiment variant degraded reason } }"""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for what."""

    tenant: str
    token: str
    model: str
    row: Sequence[float]


@dataclass(frozen=True, slots=True)
class Tried:
    """One operation with what the history does not need: when it was due and sent, how long it took, its code and flags."""

    operation: Operation
    at: float  # monotonic seconds, when it was sent
    took_s: float
    code: str = ""  # "" where it was answered
    degraded: bool = False


@dataclass
class Load:
    """Clients for `callers` (several for each), at `per_s` requests a second together; 0: as fast as answers come.

    Use as a context; `tried` grows meanwhile and is whole afterwards.
    """

    ports: Sequence[int]  # of one or several replicas; where one takes no connection, the next one is asked, as a balancer does
    callers: Sequence[Caller]
    per_s: float
    connections: int = 16
    label: str = "u"
    tried: list[Tried] = field(default_factory=list)
    probing: bool = False  # whether the last caller asks for what is the first one's, too
    crossings: list[Crossing] = field(default_factory=list)
    _unready: set[int] = field(default_factory=set)
    _stop: bool = False
    _thread: Thread | None = None

    def __enter__(self) -> Self:
        self._thread = Thread(target=lambda: asyncio.run(self._all()), name="load", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Every operation that was begun has ended, within the clients' own timeout."""
        self._stop = True
        if self._thread:
            self._thread.join(CLIENT_TIMEOUT_S + 5)
            if self._thread.is_alive():
                raise RuntimeError("a client did not end")

    @property
    def operations(self) -> list[Operation]:
        return [tried.operation for tried in self.tried]

    def between(self, start: float, end: float) -> list[Tried]:
        """What was sent from `start` to `end`, monotonic seconds."""
        return [tried for tried in self.tried if start <= tried.at < end]

    async def _all(self) -> None:
        looking = asyncio.create_task(self._look()) if len(self.ports) > 1 else None
        clients = [self._client(index) for index in range(self.connections)]
        if self.probing:
            clients.append(probe(self.ports, self.callers[-1].token, self.crossings, lambda: self._stop))
        await asyncio.gather(*clients)
        if looking:
            looking.cancel()

    async def _look(self) -> None:
        """As a balancer does: who is not ready gets no new connections."""
        while True:
            for port in self.ports:
                (self._unready.discard if await _is_ready(port) else self._unready.add)(port)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _client(self, index: int) -> None:
        caller = self.callers[index % len(self.callers)]
        pause_s = self.connections / self.per_s if self.per_s else 0.0
        units = [f"{caller.tenant}-{self.label}{index}-{each}" for each in range(UNITS_A_CLIENT)]
        link = Link([*self.ports[index % len(self.ports) :], *self.ports[: index % len(self.ports)]], self._unready)
        due = time.monotonic() + pause_s * index / self.connections
        for unit in itertools.cycle(units):
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)  # well below a second at any pace that a row asks for
            if self._stop:
                break
            tried = await ask(link, caller, unit)
            self.tried.append(tried)
            if tried.code in {NOT_SENT, BROKEN} and not self._stop:
                await asyncio.sleep(_AGAIN_AFTER_S)
            due = max(due + pause_s, time.monotonic() - 1.0)  # who was held up for long does not catch up with a burst
        link.close()


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).split(b" ")[1] == b"200"
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, IndexError):
        return False


async def ask(link: Link, caller: Caller, unit: str, timeout_s: float = CLIENT_TIMEOUT_S) -> Tried:
    """One prediction, once, and how it ended."""
    number, began = next(_numbers), time.monotonic()
    try:
        await link.open()
    except (OSError, TimeoutError):
        return _tried(number, caller, unit, began, Outcome.FAIL, NOT_SENT)
    began = time.monotonic()
    try:
        status, body = await asyncio.wait_for(link.exchange(request_of(caller, unit)), timeout_s)
        answer = json.loads(body)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError):
        link.close()
        return _tried(number, caller, unit, began, Outcome.UNKNOWN, BROKEN)
    if errors := answer.get("errors"):
        return _tried(number, caller, unit, began, Outcome.FAIL, code_of(errors[0]))
    if status != 200:
        return _tried(number, caller, unit, began, Outcome.FAIL, str(status))
    said = answer["data"]["predict"]
    told = Answer(said["id"], said["version"], said["experiment"], said["variant"])
    return _tried(number, caller, unit, began, Outcome.OK, "", told, degraded=said["degraded"])


def code_of(error: dict[str, Any]) -> str:
    """The error's code; BUSY where it says that of the service, which is no word about what was broken."""
    return BUSY if str(error["message"]).startswith("The service is busy.") else str(error["extensions"]["code"])


def request_of(caller: Caller, unit: str | None) -> bytes:
    """The bytes of one request."""
    variables: dict[str, Any] = {"row": list(caller.row), "unit": unit}
    return post("/graphql", json.dumps({"query": _PREDICT % caller.model, "variables": variables}).encode(), caller.token)


def _tried(
    number: int,
    caller: Caller,
    unit: str,
    began: float,
    outcome: Outcome,
    code: str,
    answer: Answer | None = None,
    *,
    degraded: bool = False,
) -> Tried:
    operation = Operation(number, caller.tenant, unit, caller.model, outcome, answer)
    return Tried(operation, began, time.monotonic() - began, code, degraded)
