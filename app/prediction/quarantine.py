"""Inputs on which a model's worker died. Each is tried again once, alone; where the worker dies again, the input is refused for a while.

One for each tenant's artifact in a serving process. An answer to an input takes back what is held against it: what died beside another
request's input, or by somebody's hand, is soon cleared. Bounded: the oldest is forgotten.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.kernel.tensors import Batch

MOST_DEATHS = 2
CRASHED_S, LATE_S = 600.0, 60.0  # a worker that took too long may have been held up by others: that is forgotten sooner
_SWEEP_S = 5.0
_MOST_INPUTS = 1_000  # some hundred bytes each
_MOST_ARTIFACTS = 1_000
_SHAPE, _TEXT = struct.Struct("<QQQ"), struct.Struct("<q")


@dataclass(slots=True)
class _Held:
    deaths: int
    until: float
    why: str  # what became of the last worker


class Quarantine:
    """Names of inputs with the deaths of workers held against them. `now`: monotonic seconds. `refused()`: one more is, from now on."""

    def __init__(self, now: Callable[[], float], refused: Callable[[], None] = lambda: None) -> None:
        self._now, self._refused = now, refused
        self._held: OrderedDict[bytes, _Held] = OrderedDict()  # who died longest ago first
        self._swept_at = 0.0

    def __bool__(self) -> bool:
        """Whether anything is held against any input: without that no input need be named."""
        if self._held and self._now() - self._swept_at >= _SWEEP_S:
            self._sweep()
        return bool(self._held)

    def died(self, name: bytes, why: str, kept_s: float = CRASHED_S) -> int:
        """How many workers died on this input by now. `why`: what became of the last one, for people; `kept_s`: how long that counts."""
        held = self._kept(name)
        deaths = 1 if held is None else held.deaths + 1
        until = self._now() + kept_s
        self._held[name] = _Held(deaths, until if held is None else max(until, held.until), why)
        self._held.move_to_end(name)
        if len(self._held) > _MOST_INPUTS:
            self._held.popitem(last=False)
        if deaths == MOST_DEATHS:
            self._refused()
        return deaths

    def answered(self, name: bytes) -> None:
        """A worker answered it: nothing is held against it any more."""
        self._held.pop(name, None)

    def deaths(self, name: bytes) -> int:
        """How many workers died on it, of late."""
        held = self._kept(name)
        return 0 if held is None else held.deaths

    def refusal(self, name: bytes) -> str | None:
        """Why the input is not tried; None: it may be."""
        held = self._kept(name)
        return None if held is None or held.deaths < MOST_DEATHS else held.why

    def _kept(self, name: bytes) -> _Held | None:
        held = self._held.get(name)
        if held is not None and self._now() >= held.until:
            del self._held[name]
            return None
        return held

    def _sweep(self) -> None:
        self._swept_at = self._now()
        for name in [name for name, held in self._held.items() if held.until <= self._swept_at]:
            del self._held[name]


class Quarantines:
    """Of all artifacts that a serving process asks, by their key, which names the tenant; those with nothing in them go first."""

    def __init__(self, now: Callable[[], float], refused: Callable[[], None]) -> None:
        self._now, self._refused = now, refused
        self._of: OrderedDict[str, Quarantine] = OrderedDict()

    def of(self, key: str) -> Quarantine:
        """The artifact's; it outlives the runtimes that are opened and closed for it."""
        found = self._of.get(key)
        if found is None:
            if len(self._of) >= _MOST_ARTIFACTS:
                del self._of[next((each for each, held in self._of.items() if not held), next(iter(self._of)))]
            found = self._of[key] = Quarantine(self._now, self._refused)
        self._of.move_to_end(key)
        return found


def name_of(batch: Batch) -> bytes:
    """The input's name: the same for the same checked values, however they were written, and for no others."""
    digest = hashlib.sha256(_SHAPE.pack(batch.rows, batch.numbers.shape[1], len(batch.texts)))
    digest.update(batch.numbers.tobytes())
    for column in batch.texts:
        for text in column:
            data = b"" if text is None else text.encode("utf-8", "surrogatepass")
            digest.update(_TEXT.pack(-1 if text is None else len(data)) + data)
    return digest.digest()
