"""Files that are written beside the place that they take, and what is left of them where their writer was killed before."""

from __future__ import annotations

import contextlib
import re
import secrets
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DRAFT = re.compile(r"\..+\.[0-9a-f]{12}")


def draft_of(path: Path) -> Path:
    """A name beside `path` that nobody else takes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def sweep_drafts(folder: Path, older_than_s: float = 0.0) -> int:
    """How many drafts were removed from the folder; those are left that were written to within `older_than_s`.

    Call it where nobody writes there, or leave who does enough time. What cannot be removed stays, and does no harm but take room.
    """
    swept = 0
    with contextlib.suppress(OSError):  # no such folder: nobody has written yet
        for path in folder.iterdir():
            if _DRAFT.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime >= older_than_s:
                        path.unlink()
                        swept += 1
    return swept
