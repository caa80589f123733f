"""One parent a data folder: a lock that the kernel drops when its holder is gone, however it went."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class HomeLock:
    """Held from `acquire` to `release` or the end of this process. Children do not inherit it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, home: Path) -> Self:
        """The lock; raises ConfigurationError that names the holder's process id."""
        path = home / "run" / "supervisor.lock"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConfigurationError(
                f"{home} is already served by process {holder}. Stop that one first, or give this one a data folder of its own: "
                "TURNOUT_HOME=another-folder."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


def holder(home: Path) -> int | None:
    """The process id that serves `home` on this machine now, or None."""
    try:
        descriptor = os.open(home / "run" / "supervisor.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)
