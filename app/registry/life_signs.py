"""Which replicas of this machine are dead, as its kernel knows it: each holds a lock on a file of its own, which ends with its process.

A process id may be somebody else's by now, and a name another machine's too; a lock is nobody's but the holder's, whoever asks.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = structlog.get_logger()


class LifeSigns:
    """One a replica. `folder`: the same for all replicas of one TURNOUT_HOME. Nothing here raises: without a sign, silence tells."""

    def __init__(self, folder: Path, replica_id: UUID) -> None:
        self._folder, self._id = folder, replica_id
        self._held: int | None = None

    def show(self) -> None:
        """From now on the other replicas of this machine see when this process is no more."""
        if self._held is not None:
            return
        draft = self._folder / f".{self._id}"  # under its name it is held from the first moment
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._held, _said(self._held), 0)
            draft.rename(self._folder / str(self._id))
        except OSError as error:
            log.warning("replica_shows_no_sign_of_life", error=str(error))
            self.end()

    def dead(self) -> frozenset[UUID]:
        """The replicas of this machine whose process has ended since its kernel was booted, and that nobody has forgotten yet."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return frozenset()
        return frozenset(each for name in names if (each := _id_of(name)) is not None and each != self._id and self._is_dead(each))

    def forget(self, replicas: Iterable[UUID]) -> None:
        """They need not be told of any more."""
        for each in replicas:
            with suppress(OSError):
                (self._folder / str(each)).unlink()

    def end(self) -> None:
        """The replica has said goodbye, or shows nothing: nobody needs to look whether it lives."""
        self.forget([self._id])
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _is_dead(self, replica: UUID) -> bool:
        try:
            handle = os.open(self._folder / str(replica), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.pread(handle, 200, 0) == _said(handle):
                return True
        except OSError:  # it is held: the process lives
            return False
        finally:
            os.close(handle)
        # A copy of a folder in use, or of a machine that was: what holds the original is not for this kernel to say.
        self.forget([replica])
        return False


def _said(handle: int) -> bytes:
    """What tells a file from its copies, here and on another machine."""
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = "unknown"
    return f"{boot} {os.fstat(handle).st_ino}".encode()


def _id_of(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None
