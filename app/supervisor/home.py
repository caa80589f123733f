"""The data folder of one machine: made closed, kept closed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from app.errors import ConfigurationError
from app.kernel.home import ARTIFACTS, LAST_GOOD, SPOOL
from app.tenancy.drafts import sweep_drafts

if TYPE_CHECKING:
    from pathlib import Path

_FOLDERS = ("run", SPOOL, ARTIFACTS)
_COMMANDS_WRITE_S = 60.0


def prepare_home(home: Path) -> None:
    """Makes `home` and its folders with mode 0700; raises ConfigurationError where it belongs to somebody else or cannot be closed."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(home.iterdir()):
            home.chmod(0o700)  # an empty folder made for us holds nothing that somebody else may rely on reading
        if problem := home_problem(home):
            raise ConfigurationError(problem)
        for name in _FOLDERS:
            (home / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot make the data folder {home}: {error.strerror}. Set TURNOUT_HOME to a folder that this account may write."
        ) from None


def sweep_home(home: Path) -> None:
    """Removes what writers that were killed left half-written. For who holds the home's lock and has not started anybody yet.

    Keys are also made by commands, which heed no lock: they have a minute.
    """
    sweep_drafts(home / LAST_GOOD)
    sweep_drafts(home, _COMMANDS_WRITE_S)


def home_problem(home: Path) -> str | None:
    """What is unsafe about `home` as it stands, or None."""
    state = home.stat()
    if not stat.S_ISDIR(state.st_mode):
        return f"{home} is no folder. Set TURNOUT_HOME to one."
    if state.st_uid != os.geteuid():
        return f"{home} belongs to user {state.st_uid}, not to you ({os.geteuid()}). Set TURNOUT_HOME to a folder of your own."
    if state.st_mode & 0o077:
        return f"{home} holds keys and may be entered by others (mode {stat.S_IMODE(state.st_mode):04o}). Close it: chmod 700 {home}"
    return None
