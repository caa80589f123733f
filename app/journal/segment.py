"""The file that a spool writes: whole records or nothing, sealed by size and age so that the drain can delete it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from app.journal.codec import split_frames
from app.journal.layout import OPEN, SEALED

if TYPE_CHECKING:
    from pathlib import Path

    from app.kernel.clock import Clock

_PROBE = bytes(4096)  # never a frame: a reader that sees it waits


class SegmentWriter:
    """Appends to `<folder>/<number>.open` and renames it `.sealed` once it is full or old. Not thread-safe: its owner locks."""

    def __init__(self, folder: Path, clock: Clock, max_bytes: int, max_age_s: float) -> None:
        self._folder, self._clock = folder, clock
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._number = 0
        self._closed = False
        self._distrusted = False  # nothing more may go into this file
        self._unnamed = True  # the folder's entry for this file may not be on the disk yet
        self._retired: list[int] | None = None  # a list while a group commit waits: descriptors that it must still sync
        self._descriptor: int
        self._path: Path
        self._size: int  # of whole records
        self._open_next()

    def write(self, data: bytes) -> int:
        """How many bytes of `data`, whole frames, are in the file: fewer than all where the disk filled up in the middle.

        Whole frames stay, because a reader may have seen them already. On OSError nothing of `data` is in the file.
        """
        if self._distrusted or self._size >= self._max_bytes or (self._size and self._clock.monotonic() >= self._old_at):
            self.renew()
        landed = os.write(self._descriptor, data)
        if landed == len(data):
            self._size += landed
            return landed
        _, landed = split_frames(data[:landed])
        self._size += landed
        self._cut_back()
        return landed

    def probe(self) -> None:
        """Returns where the disk takes bytes again; leaves none behind. Raises OSError."""
        if self._distrusted:
            self.renew()
        try:
            if os.write(self._descriptor, _PROBE) != len(_PROBE):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            self._cut_back()

    def renew_old(self) -> None:
        """As `renew`, where this segment holds something and has its age."""
        if self._size and self._clock.monotonic() >= self._old_at:
            self.renew()

    def renew(self) -> None:
        """Seals this segment and opens the next; on OSError this one stays in use."""
        old, old_path, empty = self._descriptor, self._path, not self._size
        self._open_next()
        with suppress(FileNotFoundError):  # somebody deleted it under us
            _retire(old_path, empty=empty)
        if self._retired is None:
            os.close(old)
        else:
            self._retired.append(old)

    def seal(self) -> None:
        """As `renew`, where this segment holds something; where no other can be had, it stays in use."""
        if self._size:
            with suppress(OSError):
                self.renew()

    def move(self, folder: Path) -> None:
        """The next segments are made in `folder`."""
        self._folder = folder
        self.renew()

    def abandon(self) -> None:
        """Writes no more to this file; where no other can be had now, not before one can."""
        self._distrusted = True
        with suppress(OSError):
            self.renew()

    def vanished(self) -> bool:
        """Whether somebody deleted the file under us: what is written to it then goes nowhere."""
        return not self._closed and os.fstat(self._descriptor).st_nlink == 0

    def keep_retired(self) -> None:
        """From now on sealed segments are kept for the next `to_sync`."""
        if self._retired is None:
            self._retired = []

    def to_sync(self) -> tuple[list[int], list[Path]]:
        """Descriptors, now the caller's, of all that was written since `keep_retired`; and folders that must be synced after them."""
        current = os.dup(self._descriptor)
        retired, self._retired = self._retired or [], None
        folders = [self._folder, self._folder.parent] if self._unnamed else []
        self._unnamed = False
        return [*retired, current], folders

    def forget_retired(self) -> None:
        """Nobody waits any more for what was sealed since `keep_retired`."""
        for descriptor in self._retired or ():
            os.close(descriptor)
        self._retired = None

    def close(self) -> None:
        """Seals what was written; an empty segment leaves nothing. Every later write is an OSError."""
        with suppress(FileNotFoundError):
            _retire(self._path, empty=not self._size)
        self.forget_retired()
        os.close(self._descriptor)
        self._descriptor, self._closed = -1, True

    def _open_next(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        path = self._folder / f"{self._number + 1}{OPEN}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._path, self._number, self._size = path, self._number + 1, 0
        self._unnamed, self._distrusted = True, False
        self._old_at = self._clock.monotonic() + self._max_age_s

    def _cut_back(self) -> None:
        """To the last whole record. Where even that fails, the rest of this file is a tear, so the next record goes into another."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self.abandon()


def _retire(path: Path, *, empty: bool) -> None:
    if empty:
        path.unlink()
    else:
        path.rename(path.with_suffix(SEALED))
