"""Inputs on which a model's worker died. Each is tried again once, alone; where the worker dies again, the input is refused for a while.

All serving processes of a machine know the same of each tenant's artifact, for they share its worker. An answer to an input takes back
what is held against it: what died beside another request's input, or by somebody's hand, is soon cleared. A suspect is tried while no
other is, and who dies beside it is held innocent. Bounded: what would have been forgotten soonest goes first.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from app.tenancy.limits.shared_memory import KEY_BYTES, SharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.kernel.clock import Clock
    from app.kernel.tensors import Batch

MOST_DEATHS = 2
CRASHED_S, LATE_S = 600.0, 60.0  # a worker that took too long may have been held up by others: that is forgotten sooner
LATE = 10_000  # in the place of an exit status
_TRIAL_S = 15.0  # after which the process that tried is held to be gone
_MOST_LOCAL, _SLOTS = 1_000, 16_384
_CODES = 1 << 16
_SHAPE, _TEXT = struct.Struct("<QQQ"), struct.Struct("<q")


class Marks(Protocol):
    """Whole numbers above 0 by key (16 bytes), for a time."""

    def read(self, key: bytes) -> int:
        """0 where there is none."""

    def change(self, key: bytes, to: Callable[[int], int], keep_s: float) -> int:
        """The number now, made of what it was; 0 forgets it. It is kept `keep_s` seconds from now, or for as long as it was to be."""


class LocalMarks:
    """Of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # (number, until)

    def read(self, key: bytes) -> int:
        value, until = self._held.get(key, (0, 0.0))
        return value if until > self._clock.monotonic() else 0

    def change(self, key: bytes, to: Callable[[int], int], keep_s: float) -> int:
        value, now = to(self.read(key)), self._clock.monotonic()
        _, until = self._held.pop(key, (0, 0.0))
        if value:
            self._held[key] = (value, max(until, now + keep_s))
            if len(self._held) > _MOST_LOCAL:
                self._held.popitem(last=False)
        return value


class SharedMarks:
    """Of all processes of this machine, in the file at `path`; by the wall's time, for the file outlives the machine's start."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._memory, self._clock = SharedMemory(path, {"inputs": _SLOTS}), clock
        self._table = self._memory.table("inputs")

    def read(self, key: bytes) -> int:
        """Without the lock: who reads a number that is being written hears of the change a moment later."""
        return self._table.find(key, self._clock.time_ms())[1]

    def change(self, key: bytes, to: Callable[[int], int], keep_s: float) -> int:
        now = self._clock.time_ms()
        with self._memory:
            place, before, until = self._table.find(key, now)
            value = to(before)
            self._table.write(place, key, value, max(until, now + int(keep_s * 1000)) if value else 0)
        return value


class Quarantine:
    """Of one artifact of a tenant. `refused()`: one more input is, from now on."""

    def __init__(self, key: str, marks: Marks, refused: Callable[[], None] = lambda: None) -> None:
        self._key, self._marks, self._refused = key.encode(), marks, refused
        self._any, self._trial = self._mark(b""), self._mark(b"trial")
        self._own = secrets.randbits(62) | 1

    def __bool__(self) -> bool:
        """Whether anything was held against any input of late: without that no input need be named."""
        return self._marks.read(self._any) != 0

    def died(self, name: bytes, status: int, kept_s: float = CRASHED_S) -> int:
        """How many workers died on this input by now. `status`: how the last one ended, or LATE; `kept_s`: how long that counts."""
        mark = self._marks.change(self._mark(name), lambda mark: (mark // _CODES + 1) * _CODES + status % _CODES, kept_s)
        self._marks.change(self._any, lambda _: 1, kept_s)
        if mark // _CODES == MOST_DEATHS:
            self._refused()
        return mark // _CODES

    def answered(self, name: bytes) -> None:
        """A worker answered it: nothing is held against it any more."""
        mark = self._mark(name)
        if self._marks.read(mark):
            self._marks.change(mark, lambda _: 0, 0.0)

    def deaths(self, name: bytes) -> int:
        """How many workers died on it, of late."""
        return self._marks.read(self._mark(name)) // _CODES

    def refusal(self, name: bytes) -> int | None:
        """How the last worker ended on it (or LATE) where it is not tried any more; None: it may be."""
        deaths, status = divmod(self._marks.read(self._mark(name)), _CODES)
        return None if deaths < MOST_DEATHS else status - _CODES if status >= _CODES // 2 else status

    def begin_trial(self) -> bool:
        """Whether a suspect may be tried now: no other process tries one."""
        return self._marks.change(self._trial, lambda owner: owner or self._own, _TRIAL_S) == self._own

    def end_trial(self) -> None:
        """What `begin_trial` began is over."""
        self._marks.change(self._trial, lambda owner: 0 if owner == self._own else owner, 0.0)

    def is_trial_of_another(self) -> bool:
        """Whether another process tries a suspect just now."""
        return self._marks.read(self._trial) not in {0, self._own}

    def _mark(self, name: bytes) -> bytes:
        return hashlib.blake2b(self._key + b"/" + name, digest_size=KEY_BYTES).digest()


def name_of(batch: Batch) -> bytes:
    """The input's name: the same for the same checked values, however they were written, and for no others."""
    digest = hashlib.sha256(_SHAPE.pack(batch.rows, batch.numbers.shape[1], len(batch.texts)))
    digest.update(batch.numbers.tobytes())
    for column in batch.texts:
        for text in column:
            data = b"" if text is None else text.encode("utf-8", "surrogatepass")
            digest.update(_TEXT.pack(-1 if text is None else len(data)) + data)
    return digest.digest()
