"""The local spool of one process: an answer is written here before it is given.

A `Spool` belongs to the process that made it. It must not be carried over a fork: the child would hold the writer's lock,
and the drain would take the writer for alive.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections import deque
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import structlog

from app.errors import ConfigurationError, LogUnavailable
from app.journal.codec import encode
from app.journal.group_commit import GroupCommit, unsyncable
from app.journal.layout import LOCK, UNBORN, pending_bytes, take_lock
from app.journal.segment import SegmentWriter
from app.journal.types import Durability

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from app.journal.types import Record
    from app.kernel.clock import Clock

_LOOK_EVERY_S = 1.0  # how often the whole spool is measured; between, only our own bytes are added
_FLUSH_EVERY_S = 0.25
_FLUSH_BYTES = 64 * 1024
_BUFFER_BYTES = 1024 * 1024  # buffered records that a full disk may keep waiting; beyond, the oldest are dropped and counted
_SEGMENT_BYTES = 16 * 1024 * 1024
_SEGMENT_AGE_S = 30.0
_RETRY_MS = 1000
_log = structlog.get_logger(__name__)


class Spool:
    """Takes records and gives back only when they are as safe as was asked for; safe to call from any thread.

    `folder`: the machine's spool, shared by all its processes, 0700. `max_bytes`: of the whole machine, not yet drained.
    Raises ConfigurationError where the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        clock: Clock,
        *,
        segment_bytes: int = _SEGMENT_BYTES,
        segment_age_s: float = _SEGMENT_AGE_S,
        flush_every_s: float = _FLUSH_EVERY_S,
    ) -> None:
        self._spool, self._max_bytes, self._clock = folder, max_bytes, clock
        self._flush_every_s = flush_every_s
        self._lock = Lock()
        try:
            self._folder, self._lock_file = _be_born(folder, clock)
            self._segment = SegmentWriter(self._folder, clock, segment_bytes, segment_age_s)
        except OSError as error:
            raise ConfigurationError(f"The spool folder {folder} cannot be written ({error.strerror}): set TURNOUT_HOME.") from None
        self._commits = GroupCommit(self._segment, clock)
        self._buffer: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._dropped = 0
        self._awake, self._closed = Event(), Event()
        self._flusher: Thread | None = None
        self._pending_bytes = 0
        self._look_at = clock.monotonic()
        self._refused_until: float | None = None  # set while the disk takes nothing

    @property
    def dropped(self) -> int:
        """BUFFERED records lost since the start, because the disk took nothing and the buffer was full."""
        return self._dropped

    @property
    def unwritten(self) -> int:
        """Buffered records that are in no file yet; after `close`, those that are lost."""
        return len(self._buffer)

    def check_room(self, durability: Durability = Durability.DURABLE) -> None:
        """Returns where a record may still be written; call it BEFORE predicting. Raises LogUnavailable (retry_after_ms)."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look(now)
        if self._pending_bytes >= self._max_bytes:
            raise LogUnavailable("The prediction log is full; nothing is predicted that cannot be logged.", retry_after_ms=_RETRY_MS)
        if self._refused_until is not None and durability != Durability.BUFFERED:
            self._try_disk(now)
        if durability == Durability.DURABLE_FSYNC and self._commits.failing:
            raise unsyncable()

    def append_now(self, record: Record, durability: Durability = Durability.DURABLE) -> None:
        """Returns when `record` is in the operating system's hands (DURABLE), or in the buffer (BUFFERED: there within half a second).

        Raises LogUnavailable where it could not be written; then nothing of it is in the log. DURABLE_FSYNC: use `append`.
        """
        frame = encode(record)
        with self._lock:
            if durability == Durability.BUFFERED:
                self._keep(frame)
            else:
                self._write(frame)

    async def append(self, record: Record, durability: Durability) -> None:
        """As `append_now`; with DURABLE_FSYNC returns when `record` is on the disk. Many callers share one fdatasync.

        Raises LogUnavailable. After a failed fdatasync it is unknown whether the record will be in the log.
        """
        if durability != Durability.DURABLE_FSYNC:
            self.append_now(record, durability)
            return
        frame = encode(record)
        with self._lock:
            self._write(frame)
            on_disk: Awaitable[None] = self._commits.join()
        self._commits.begin(self._lock)
        await on_disk

    def flush(self) -> None:
        """Writes what is buffered; where the disk takes nothing it stays buffered."""
        with self._lock:
            self._flush()

    async def run(self) -> None:
        """Until cancelled: a segment that is old is sealed also where nobody predicts, so that nothing stays once it is in the database."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.seal_old()

    def seal_old(self) -> None:
        """Seals the segment where it is old; where the disk takes no new one, it stays in use."""
        with self._lock, suppress(OSError):
            if not self._closed.is_set():
                self._segment.renew_old()

    def close(self) -> None:
        """Flushes, seals the last segment and lets go: the drain takes over at once. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._awake.set()
        if self._flusher:
            self._flusher.join()
        self._commits.close()
        with self._lock:
            self._flush()
            if self._buffer:
                _log.error("journal.buffer_lost", records=len(self._buffer))
            self._segment.close()
            os.close(self._lock_file)

    def _write(self, frame: bytes = b"") -> None:
        """What is buffered goes first, in the same call: records stay in their order. What of it is in the file leaves the buffer."""
        data = b"".join((*self._buffer, frame)) if self._buffer else frame
        try:
            landed = self._segment.write(data)
        except OSError as error:
            self._refuse(error)
            raise _unwritable() from None
        self._pending_bytes += landed
        if self._buffer:
            self._let_go(landed)
        if landed < len(data):
            self._refuse(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            raise _unwritable()
        if self._refused_until is not None:
            self._writable()

    def _let_go(self, landed: int) -> None:
        """Of the buffer what is in its first `landed` bytes."""
        while self._buffer and landed >= len(self._buffer[0]):
            landed -= len(self._buffer[0])
            self._buffered_bytes -= len(self._buffer.popleft())

    def _keep(self, frame: bytes) -> None:
        self._buffer.append(frame)
        self._buffered_bytes += len(frame)
        if self._buffered_bytes >= _FLUSH_BYTES:
            self._flush()
        while self._buffered_bytes > _BUFFER_BYTES:
            self._buffered_bytes -= len(self._buffer.popleft())
            self._dropped += 1
        if not self._awake.is_set():
            self._awake.set()
        if self._flusher is None:
            self._flusher = Thread(target=self._flush_for_ever, name="spool-flush", daemon=True)
            self._flusher.start()

    def _flush(self) -> None:
        if self._buffer:
            with suppress(LogUnavailable):
                self._write()

    def _writable(self) -> None:
        if self._refused_until is not None:
            self._refused_until = None
            _log.info("journal.spool_writable", dropped=self._dropped)

    def _refuse(self, error: OSError) -> None:
        if self._refused_until is None:
            _log.error("journal.spool_unwritable", error=error.strerror)
            self._segment.seal()  # the drain deletes no segment that is open: on a full disk that is the room we wait for
        self._refused_until = self._clock.monotonic() + _RETRY_MS / 1000

    def _try_disk(self, now: float) -> None:
        """After a failed write nothing is predicted until bytes were seen to go in: tried once a second, by one caller."""
        with self._lock:
            if self._refused_until is None:
                return
            if now < self._refused_until:
                raise _unwritable()
            try:
                self._segment.probe()
            except OSError as error:
                self._refuse(error)
                raise _unwritable() from None
            self._writable()

    def _look(self, now: float) -> None:
        self._look_at = now + _LOOK_EVERY_S
        self._pending_bytes = pending_bytes(self._spool)
        with self._lock:
            if self._segment.vanished():
                _log.error("journal.segment_vanished", writer=self._folder.name)
                self._start_anew()

    def _start_anew(self) -> None:
        """Somebody deleted our files: what is written there goes nowhere. The old lock is let go, so the drain clears the rest."""
        try:
            folder, lock_file = _be_born(self._spool, self._clock)
            self._segment.move(folder)
        except OSError as error:
            self._refuse(error)
            raise _unwritable() from None
        os.close(self._lock_file)
        self._folder, self._lock_file = folder, lock_file

    def _flush_for_ever(self) -> None:
        while not self._closed.is_set():
            self._awake.wait()
            self._closed.wait(self._flush_every_s)
            self._awake.clear()
            self.flush()
            if self._buffer:
                self._awake.set()


def _unwritable() -> LogUnavailable:
    return LogUnavailable("The prediction log cannot be written.", retry_after_ms=_RETRY_MS)


def _be_born(spool: Path, clock: Clock) -> tuple[Path, int]:
    """A folder of our own whose lock we hold before anybody can see it under its name."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{os.getpid()}-{clock.time_ms()}-{secrets.token_hex(4)}"
    unborn = spool / (UNBORN + name)
    unborn.mkdir(mode=0o700)
    lock = take_lock(unborn / LOCK)
    if lock is None:  # nobody else knows the name
        raise BlockingIOError(11, "its lock is held by another process")
    unborn.rename(spool / name)
    return spool / name, lock
