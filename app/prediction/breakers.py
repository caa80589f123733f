"""Whether a version is asked, or left alone for a while because it fails: one breaker for each tenant's version in a serving process.

CLOSED: asked. OPEN: nobody asks, and callers hear so at once or are answered by a fallback. HALF_OPEN: one request tries; it closes the
breaker, or opens it again; where that one comes to nothing that says anything of the version, the next one tries. Time is handed in, so
that all of this can be reckoned without waiting.

Being late counts where the version had `_FAIR_S` during which our own loop was there to send and to listen, and the loop was there when
the time was up (`loop_watch`): what an overloaded process does not send or read in time is not the version's doing.

Source of the figures: Hystrix opens at 50 % of at least 20 calls in ten seconds and tries again after five; five failures in a row are
Envoy's (outlier detection, consecutive_5xx), for a version that is asked too seldom to come to twenty calls.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from app.errors import DeadlineExceeded, ModelFailed, ModelUnavailable
from app.prediction.runtimes.base import NotAsked, NotNow

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from app.prediction.loop_watch import LoopWatch
    from app.prediction.ports import BreakerTelemetry
    from app.registry.types import VersionRoute

_MOST_BREAKERS = 10_000
_MOST_INPUTS = 256
_FAIR_S = 0.1  # who had less time than this may be late without being slow
_THE_INPUTS_DOING = frozenset({"ENCODING", "QUARANTINED"})
log = structlog.get_logger()


class LeftAlone(ModelUnavailable):
    """The version's breaker is open."""


class BreakerState(StrEnum):
    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long. Seconds."""

    window_s: float = 10.0
    least_calls: int = 20  # in the window, below which a share says nothing
    failing_share: float = 0.5
    in_a_row: int = 5
    open_s: float = 5.0
    jitter: float = 0.2  # of `open_s`, to either side: processes that opened together do not try again together


_TENTHS = 10  # of a window
RULES = BreakerRules()


class Breaker:
    """One version's. A call takes `enter`'s number, and hands it back with what came of it: only calls of the present state count.

    `changed(state, why)` is called at each change. `chance`: 0 to 1, for the jitter.
    """

    __slots__ = (
        "_buckets", "_calls", "_chance", "_changed", "_ends", "_failures", "_inputs", "_row", "_rules", "_trying", "_until", "closed",
        "epoch", "state",
    )  # fmt: skip

    def __init__(
        self,
        changed: Callable[[BreakerState, str], None] = lambda _state, _why: None,
        rules: BreakerRules = RULES,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._changed, self._rules, self._chance = changed, rules, chance
        self.state, self.closed = BreakerState.CLOSED, True
        self.epoch = 0
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_TENTHS - 1)  # (calls, failures) of the tenths before this one
        self._calls = self._failures = self._row = 0
        self._ends = 0.0  # of this tenth
        self._until = 0.0  # OPEN
        self._trying = False  # HALF_OPEN, and somebody does
        self._inputs: OrderedDict[bytes, float] = OrderedDict()  # that failed: when first, in this window

    def enter(self, now: float) -> int | None:
        """The number of a call that may be made; None: leave the version alone."""
        if self.closed:
            return self.epoch
        if self.state is BreakerState.OPEN and now >= self._until:
            self._become(BreakerState.HALF_OPEN, "its time is over: one request tries")
        if self.state is BreakerState.OPEN or self._trying:
            return None
        self._trying = True
        self.epoch += 1
        return self.epoch

    def succeeded(self, epoch: int, now: float) -> None:
        """The call was answered."""
        if epoch != self.epoch:
            return
        if not self.closed:
            self._become(BreakerState.CLOSED, "it answers again")
        if now >= self._ends:
            self._roll(now)
        self._calls += 1
        self._row = 0

    def failed(self, epoch: int, now: float, given: bytes | None = None) -> None:
        """The call failed by the version's doing. `given`: the input's name, where it may have a part in it: each counts once a window.

        So one bad input, however often it is sent again, takes the version from nobody else.
        """
        if epoch != self.epoch:
            return
        if given is not None and self._is_known(given, now):
            self.abandoned(epoch)
        elif not self.closed:
            self._open(now, "it still fails")
        else:
            if now >= self._ends:
                self._roll(now)
            self._calls += 1
            self._failures += 1
            self._row += 1
            self._judge(now)

    def abandoned(self, epoch: int) -> None:
        """The call came to nothing that says anything of the version: it was given up, or was the caller's mistake."""
        if epoch == self.epoch:
            self._trying = False

    def wait_s(self, now: float) -> float:
        """Seconds until it may be worth asking again; 0 where it is CLOSED."""
        return 0.0 if self.closed else max(0.1, self._until - now)

    def _judge(self, now: float) -> None:
        rules = self._rules
        calls = self._calls + sum(calls for calls, _ in self._buckets)
        failures = self._failures + sum(failures for _, failures in self._buckets)
        if self._row >= rules.in_a_row:
            self._open(now, f"{self._row} calls failed in a row")
        elif calls >= rules.least_calls and failures >= rules.failing_share * calls:
            self._open(now, f"{failures} of {calls} calls failed within {rules.window_s:g} s")

    def _roll(self, now: float) -> None:
        """Begins the tenth of the window that `now` is in."""
        tenth = self._rules.window_s / _TENTHS
        behind = int((now - self._ends) // tenth)  # whole tenths in which nobody called
        if behind >= _TENTHS:
            self._buckets.clear()
        else:
            self._buckets.append((self._calls, self._failures))
            self._buckets.extend([(0, 0)] * behind)
        self._calls = self._failures = 0
        self._ends = now + tenth if behind >= _TENTHS else self._ends + (behind + 1) * tenth

    def _is_known(self, given: bytes, now: float) -> bool:
        """Whether this input failed already within the window; it is known from now on."""
        while self._inputs and now - next(iter(self._inputs.values())) >= self._rules.window_s:
            self._inputs.popitem(last=False)
        if given in self._inputs:
            return True
        if len(self._inputs) >= _MOST_INPUTS:
            self._inputs.popitem(last=False)
        self._inputs[given] = now
        return False

    def _open(self, now: float, why: str) -> None:
        rules = self._rules
        self._until = now + rules.open_s * (1 + rules.jitter * (2 * self._chance() - 1))
        self._become(BreakerState.OPEN, why)

    def _become(self, state: BreakerState, why: str) -> None:
        self.state, self.closed = state, state is BreakerState.CLOSED
        self.epoch += 1
        self._trying = False
        self._buckets.clear()
        self._calls = self._failures = self._row = 0
        self._ends = 0.0
        if self.closed:
            self._inputs.clear()
        self._changed(state, why)


class Breakers:
    """Those of all versions that this process asked; made when first asked for, and kept as long as there is room.

    `loop`: when this process's loop was there, without which no version can be told to be late.
    """

    def __init__(self, telemetry: BreakerTelemetry, loop: LoopWatch, rules: BreakerRules = RULES) -> None:
        self._telemetry, self.loop, self._rules = telemetry, loop, rules
        self._made: OrderedDict[tuple[UUID, UUID, int], Breaker] = OrderedDict()
        self._open: set[tuple[UUID, UUID, int]] = set()  # and HALF_OPEN

    def of(self, tenant_id: UUID, route: VersionRoute) -> Breaker:
        """The version's, however it is served."""
        key = (tenant_id, route.model_id, route.number)
        breaker = self._made.get(key)
        if breaker is None:
            while len(self._made) >= _MOST_BREAKERS:
                self._open.discard(self._made.popitem(last=False)[0])
            breaker = self._made[key] = Breaker(lambda state, why: self._changed(key, state, why), self._rules)
        return breaker

    def state(self, tenant_id: UUID, route: VersionRoute) -> BreakerState:
        """Of the version, asked or not."""
        breaker = self._made.get((tenant_id, route.model_id, route.number))
        return BreakerState.CLOSED if breaker is None else breaker.state

    def _changed(self, key: tuple[UUID, UUID, int], state: BreakerState, why: str) -> None:
        tenant_id, model_id, number = key
        say = log.info if state is BreakerState.CLOSED else log.warning
        say("breaker_changed", tenant_id=str(tenant_id), model_id=str(model_id), version=number, state=state.value, why=why)
        (self._open.discard if state is BreakerState.CLOSED else self._open.add)(key)
        self._telemetry.breaker(state.value, len(self._open))


def is_versions_doing(error: BaseException, had_s: float) -> bool:
    """Whether a call's failure speaks against the version. `had_s`: the seconds that it was given and our loop was there.

    Not its doing: what the input alone brought about, being opened or closed just now, a model host or a database that is away, a time
    too short to answer in, or taken up by our own loop or by other versions' calls, being cancelled, and mistakes of ours.
    """
    if isinstance(error, DeadlineExceeded):
        return had_s >= _FAIR_S and not isinstance(error, NotAsked)
    if isinstance(error, ModelFailed):
        return problem_of(error) not in _THE_INPUTS_DOING
    return isinstance(error, ModelUnavailable) and not isinstance(error, NotNow | LeftAlone)


def problem_of(error: ModelFailed) -> str | None:
    """The word by which `problems` names what happened."""
    problems = error.details.get("problems")
    return problems[0]["problem"] if problems else None
