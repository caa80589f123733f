"""Folders with short paths, for sockets: a Unix socket's path holds 107 bytes and no more."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from app.errors import ConfigurationError

_LONGEST = 70  # bytes of the folder; with a socket's name the path stays below 100
_TEMP = Path("/tmp")  # noqa: S108  a folder of ours below it, checked; not TMPDIR, which two shells may set differently


def runtime_dir(home: Path) -> Path:
    """The folder for sockets and locks of the installation at `home`: the same in every process, mode 0700, ours.

    `home/run` where that is short enough, else one below the system's temporary folder, named by the user and by `home`.
    Raises ConfigurationError where somebody else's folder is in its place.
    """
    return own_folder(home / "run" if is_short(home / "run") else temporary_dir(home, "run"))


def is_short(folder: Path) -> bool:
    """Whether sockets may lie in `folder`."""
    return len(os.fsencode(folder)) <= _LONGEST


def temporary_dir(home: Path, purpose: str) -> Path:
    """The path of a folder below the system's temporary folder, named by the user, by `home` and by its purpose; not made."""
    temp = _TEMP if os.access(_TEMP, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return temp / f"turnout-{purpose}-{os.geteuid()}-{fingerprint(home)}"


def own_folder(folder: Path, mode: int = 0o700) -> Path:
    """`folder`, made where it was missing, which is ours and has this mode. Raises ConfigurationError where it is not ours."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"The folder {folder} cannot be made: {error.strerror}. Set TURNOUT_HOME to a place that can be used."
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(f"{folder} belongs to another user or is no folder. Remove it, or run as the user that it belongs to.")
    if stat.S_IMODE(found.st_mode) != mode:
        folder.chmod(mode)
    return folder


def fingerprint(home: Path) -> str:
    """A short name for this path: 12 hexadecimal digits."""
    return hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
