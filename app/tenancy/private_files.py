"""Files that hold a secret: readable by their owner alone, made once however many processes start together."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from app.errors import ConfigurationError
from app.tenancy.drafts import draft_of

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 64 * 1024  # bytes; no key file comes near


def read_private(path: Path, what: str) -> bytes:
    """The bytes of `path`; raises ConfigurationError where it is missing, no plain file, or open to group or others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error.strerror}.") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())  # of what was opened: the name may point elsewhere a moment later
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{what} {path} is no plain file.")
        if found.st_mode & 0o077:
            mode = f"{stat.S_IMODE(found.st_mode):04o}"
            raise ConfigurationError(f"{what} {path} has mode {mode}: others can read it. Make it private: chmod 600 {path}")
        return file.read(_LARGEST)


def create_private(path: Path, content: bytes, what: str) -> None:
    """`path` holds `content`, mode 0600, whole or not at all; where another process was faster, its file stays.

    Raises ConfigurationError where the folder cannot be written.
    """
    draft = draft_of(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask says
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike rename, never replaces
        except FileExistsError:
            return
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # a key that wraps stored secrets must not vanish with the power
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be made: {error.strerror}.") from None
