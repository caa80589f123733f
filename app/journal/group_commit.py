"""Many waiting for the disk, one fdatasync: those who come while one runs share the next."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from app.errors import LogUnavailable

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Lock

    from app.journal.segment import SegmentWriter
    from app.kernel.clock import Clock

_AGAIN_MS = 1000
_log = structlog.get_logger(__name__)


class GroupCommit:
    """Futures that are done when all that was written before `join` is on the disk. Belongs to one event loop."""

    def __init__(self, segment: SegmentWriter, clock: Clock) -> None:
        self._segment, self._clock = segment, clock
        self._failed_until = float("-inf")
        self._waiting: list[asyncio.Future[None]] = []
        self._round: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def failing(self) -> bool:
        """Whether the disk refused a moment ago; the next second somebody may try."""
        return self._clock.monotonic() < self._failed_until

    def join(self) -> asyncio.Future[None]:
        """A place in the next round; the caller holds the lock under which it wrote, so no segment slips away between."""
        self._segment.keep_retired()
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def begin(self, lock: Lock) -> None:
        """Sees to it that rounds run until nobody waits."""
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_task(self._rounds(lock))

    def close(self) -> None:
        """Ends the thread once its fdatasync is done."""
        if self._thread:
            self._thread.shutdown()

    async def _rounds(self, lock: Lock) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool-sync")
        while self._waiting:
            waiting: list[asyncio.Future[None]] = []
            try:
                with lock:
                    waiting, self._waiting = self._waiting, []
                    descriptors, folders = self._segment.to_sync()
                await asyncio.get_running_loop().run_in_executor(self._thread, _sync, descriptors, folders)
            except (OSError, RuntimeError) as error:  # RuntimeError: the thread has ended, we are closing
                self._give_up(waiting, lock, error)
            else:
                for future in waiting:
                    if not future.done():  # cancelled by a caller who went away
                        future.set_result(None)

    def _give_up(self, waiting: list[asyncio.Future[None]], lock: Lock, error: Exception) -> None:
        """A failed fdatasync may forget pages, and the next one say nothing of them: that file is never synced again and believed.

        Those who wrote to it meanwhile and wait for the next round learn the same.
        """
        _log.error("journal.sync_failed", error=str(error))
        self._failed_until = self._clock.monotonic() + _AGAIN_MS / 1000
        with lock:
            waiting, self._waiting = [*waiting, *self._waiting], []
            self._segment.forget_retired()
            self._segment.abandon()
        for future in waiting:
            if not future.done():
                future.set_exception(unsyncable())


def unsyncable() -> LogUnavailable:
    return LogUnavailable("The prediction log could not be brought to the disk.", retry_after_ms=_AGAIN_MS)


def _sync(descriptors: list[int], folders: list[Path]) -> None:
    """Files, and where they are new the folders that name them. The descriptors are closed."""
    try:
        for descriptor in descriptors:
            os.fdatasync(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
