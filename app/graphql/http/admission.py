"""Whether a request is begun at once, waits its turn, or is refused: what cannot be answered soon must not keep the rest from being fast.

Two bounds. The first is on what waits for the event loop: where each turn of the loop has taken longer than `TARGET_S` for `STANDING_S`,
there is a queue that does not go away by itself. From then on it is ours: each turn begins what fits the target, in equal parts for the
tenants that wait, and what could not be begun within `MOST_WAIT_S` is refused in the turn in which it came. The second is on what is under
way and waits for something else (a model's process, the database): a tenant may have at most so many times as much under way as there are
free places, so that there is always room for another one.

Source: Nichols and Jacobson, "Controlling queue delay" (CoDel, 2012: delay that stands, not a queue's length, is the signal); Choudhury and
Hahne, "Dynamic queue length thresholds for shared-memory packet switches" (1998: the second bound); max-min fairness by filling water.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

import structlog

from app.errors import RateLimited, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from app.errors import AppError

log = structlog.get_logger(__name__)

TARGET_S = 0.03
STANDING_S = 0.1
MOST_WAIT_S = 0.5
LOOK_S = 0.05
LEAST_A_TURN = 8  # so few are begun, however long they take
LEAST_WAITING = 128  # so many may wait, however long they take: it is for their own deadlines to end that
_LATE_TURNS = 2  # one alone may be a pause
_AGAIN_S = 1.0  # an overload that comes back within this is the same one: nobody waits for it to stand
_LONGEST_WAIT_S = 10.0
_MOST_KNOWN = 4096
_COST_S = 0.0004  # of one request, until some were measured
_WEIGHT = 0.2  # of the newest turn in the mean


class TurnedAway(Protocol):
    """Counts what was refused, by reason."""

    def turned_away(self, reason: str) -> None: ...


class Place(Protocol):
    """Something that is under way; to be ended once."""

    def end(self) -> None: ...


class Crowded(RateLimited):
    """The tenant has its share; told in numbers, not line by line."""


class Busy(Unavailable):
    """The process has too much to do; told in numbers, not line by line."""


class _Process:
    """Of one process: places that are free, and requests that ended in this turn."""

    __slots__ = ("ended", "free")

    def __init__(self, free: int) -> None:
        self.free, self.ended = free, 0


class Share:
    """What one tenant has under way, waiting, and asked for in this turn and the one before. As a place it is one of its requests."""

    __slots__ = ("_process", "asked", "before", "key", "under_way", "waiting")

    def __init__(self, process: _Process, key: int) -> None:
        self._process = process
        self.key = key
        self.asked = self.before = self.under_way = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def end(self) -> None:
        process = self._process
        self.under_way -= 1
        process.free += 1
        process.ended += 1


class Places:
    """So many at once, of which one tenant may have `room` times as many as are free: of 32, with `room` 1, 16 and never all."""

    def __init__(self, most: int, room: int, reason: str, telemetry: TurnedAway) -> None:
        self._free, self._room, self._reason, self._telemetry = most, room, reason, telemetry
        self._taken: dict[UUID, int] = {}

    def begin(self, tenant_id: UUID, within: Place | None = None) -> Place:
        """A place; its end is also that of the one that it is `within`. Raises Unavailable."""
        taken = self._taken.get(tenant_id, 0)
        if taken >= self._room * self._free:
            self._telemetry.turned_away(self._reason)
            raise Busy("Too many calls of this kind are under way. Wait, then try again.", retry_after_ms=wait_ms(1.0))
        self._taken[tenant_id] = taken + 1
        self._free -= 1
        return _Taken(self, tenant_id, within)

    def ended(self, tenant_id: UUID) -> None:
        """For the place itself."""
        self._free += 1
        taken = self._taken[tenant_id] - 1
        if taken:
            self._taken[tenant_id] = taken
        else:
            del self._taken[tenant_id]


class _Taken:
    __slots__ = ("_of", "_tenant_id", "_within")

    def __init__(self, of: Places, tenant_id: UUID, within: Place | None) -> None:
        self._of, self._tenant_id, self._within = of, tenant_id, within

    def end(self) -> None:
        self._of.ended(self._tenant_id)
        if self._within is not None:
            self._within.end()


class Admission:
    """Of one serving process, its loop's alone. `most`: requests under way. `run` watches the loop for as long as the process serves."""

    def __init__(self, most: int, telemetry: TurnedAway, clock: Callable[[], float] = time.monotonic) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._most, self._process = most, _Process(most)
        self._changes = Places(max(4, most // 8), 1, "admin", telemetry)
        self._shares: dict[int, Share] = {}
        self.shedding = False  # whether turns are so long that requests wait for theirs
        self._waiting = 0
        self._crowd = 1.0  # how many times what fits was asked for
        self._late_turns = 0
        self._turn_s = 0.0
        self._late_since = 0.0
        self._over_at = float("-inf")  # when the last overload was
        self._cost_s = _COST_S
        self._known: dict[bytes, int] = {}
        self._few, self._few_s = 0, 0.0  # requests that ended in the last turns, and how long these took

    @property
    def turn_s(self) -> float:
        """How long the loop's last measured turn took."""
        return self._turn_s

    @property
    def under_way(self) -> int:
        """How many requests have a place, or wait for one."""
        return self._most - self._process.free + self._waiting

    def begin(self, tenant_id: UUID, deadline_at: float, token: bytes = b"") -> Place | None:
        """A place, or None where the request has to wait for one by `turn`, at once.

        Raises RateLimited or Unavailable with a time to wait that spreads those who come back. `deadline_at`: monotonic seconds. `token`:
        what a next request of the same caller begins with, so that it can be refused by `known`.
        """
        share = self._shares.get(tenant_id.int)  # a UUID's own hash is computed in Python
        if share is None:
            share = self._shares[tenant_id.int] = Share(self._process, tenant_id.int)
        share.asked += 1
        process = self._process
        if share.under_way >= process.free << 2:  # four times: a tenant that is alone has up to four fifths
            raise self._refused(share, "full")
        if self._late_turns and self._must_wait(share, deadline_at, token):
            return None
        share.under_way += 1
        process.free -= 1
        return share

    async def turn(self, tenant_id: UUID) -> Place:
        """The place of a request that was told to wait, when its turn has come."""
        share = self._shares[tenant_id.int]
        mine = asyncio.get_running_loop().create_future()
        share.waiting.append(mine)
        self._waiting += 1
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # its turn had come in the very moment in which it was given up
                share.end()
            raise
        return share

    def change(self, tenant_id: UUID, place: Place) -> Place:
        """The place of a request that changes something: of those a process has fewer. Raises Unavailable; then `place` is still held."""
        return self._changes.begin(tenant_id, place)

    async def run(self) -> None:
        """Watches the loop until cancelled: a turn now and then, each of them while they take too long."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.sleep(0)  # to the beginning of a turn
            self._process.ended = 0
            began = self._clock()
            while True:
                await asyncio.sleep(0)  # behind all that was ready, and what the sockets brought meanwhile is ready next
                now = self._clock()
                if not self.turned(now, now - began):
                    break
                began = now

    def turned(self, now: float, took_s: float) -> bool:
        """One turn of the loop took so long and ended `now`. Whether the next one is to be told, too."""
        self._turn_s = took_s
        self._measure(took_s)
        if took_s >= TARGET_S:
            self._late(now, took_s)
        elif not self._waiting:
            if self.shedding:
                self.shedding, self._over_at = False, now
            self._late_turns = 0
        begun = self._release() if self.shedding else 0
        for key, share in list(self._shares.items()):
            if not (share.asked or share.under_way or share.waiting):
                del self._shares[key]
            share.before, share.asked = share.asked, 0
        # Who waits for a place, and not for a turn, is not helped by turns that do nothing but look.
        return self._late_turns > 0 and (begun > 0 or not self._waiting or took_s >= TARGET_S)

    def known(self, token: bytes) -> AppError | None:
        """The refusal of a caller who was refused before in this overload and as many of whose tenant wait now, too.

        It costs a tenth of what it takes to look at a token: many who come again at once must not keep the loop from its work.
        """
        share = self._shares.get(self._known[token]) if token in self._known else None
        if share is None or not self._is_full(share):
            return None
        share.asked += 1
        return self._refused(share, "busy")

    def _late(self, now: float, took_s: float) -> None:
        if not self._late_turns:
            self._late_since = now - took_s
        self._late_turns += 1
        stands_s = 0.0 if now - self._over_at < _AGAIN_S else STANDING_S
        if self._late_turns >= _LATE_TURNS and now - self._late_since >= stands_s:
            if not self.shedding and now - self._over_at >= _AGAIN_S:
                self._known.clear()
                log.warning("overload", turn_s=round(took_s, 3), tenants=len(self._shares))
            self.shedding = True

    def _measure(self, took_s: float) -> None:
        """What one request costs, with all that the loop does beside: the more it has to refuse, the fewer it begins in the same time.

        Of several requests, and of turns in each of which some ended: who ended alone may have waited for something else.
        """
        ended, self._process.ended = self._process.ended, 0
        if not ended or not self.shedding:
            self._few, self._few_s = 0, 0.0
            return
        self._few, self._few_s = self._few + ended, self._few_s + took_s
        if self._few >= LEAST_A_TURN:
            self._cost_s += _WEIGHT * (self._few_s / self._few - self._cost_s)
            self._few, self._few_s = 0, 0.0

    def _release(self) -> int:
        """Begins what fits into a turn, in equal parts for those who wait; whoever wants less leaves the rest to the others. How many."""
        fits = max(LEAST_A_TURN, int(TARGET_S / self._cost_s))
        self._crowd = max(1.0, sum(share.asked for share in self._shares.values()) / fits)
        waiting = [share for share in self._shares.values() if share.waiting]
        level = water_level([len(share.waiting) for share in waiting], min(fits, self._process.free))
        return sum(self._begin_waiting(share, level) for share in waiting)

    def _begin_waiting(self, share: Share, most: int) -> int:
        """How many were begun of those that wait, within the bound of `begin`; who is gone by now is forgotten."""
        begun = 0
        while share.waiting and begun < most:
            mine = share.waiting[0]
            if not mine.done():
                if share.under_way >= self._process.free << 2:
                    break
                mine.set_result(None)
                share.under_way += 1
                self._process.free -= 1
                begun += 1
            share.waiting.popleft()
            self._waiting -= 1
        return begun

    def _is_full(self, share: Share) -> bool:
        """Whether as many of the tenant wait as may: four times as many as there is room for, so that there is room for another tenant."""
        most = max(LEAST_WAITING, int(MOST_WAIT_S / self._cost_s))
        return len(share.waiting) >= (most - self._waiting) << 2

    def _must_wait(self, share: Share, deadline_at: float, token: bytes) -> bool:
        now = self._clock()
        if deadline_at - now < self._turn_s:
            raise self._refused(share, "late")
        if self.shedding and self._is_full(share):
            if token and len(self._known) < _MOST_KNOWN:
                self._known[token] = share.key
            raise self._refused(share, "busy")
        return self.shedding

    def _refused(self, share: Share, reason: str) -> AppError:
        """RateLimited for who has its share while others are there."""
        shared = reason != "late" and any(
            other.under_way or other.waiting or other.asked or other.before for other in self._shares.values() if other is not share
        )
        self._telemetry.turned_away("share" if shared else reason)
        again_ms = wait_ms(self._crowd)
        if shared:
            return Crowded("The service is busy, and your tenant has its share. Wait, then try again.", retry_after_ms=again_ms)
        return Busy("The service is busy. Wait, then try again.", retry_after_ms=again_ms)


def wait_ms(crowd: float) -> int:
    """When to come back: at a random moment, of a span as many seconds long as what was asked for is too much."""
    return round(1000 * min(_LONGEST_WAIT_S, random.uniform(0.5, 0.5 + crowd)))  # noqa: S311  jitter, no secret


def water_level(wanted: Iterable[int], fits: int) -> int:
    """The most that each may have so that all have `fits` together, and who wants less has all of it; one at the least."""
    left = fits
    ordered = sorted(wanted)
    for index, want in enumerate(ordered):
        level = left // (len(ordered) - index)
        if want > level:
            return max(1, level)
        left -= want
    return fits
