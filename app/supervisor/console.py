"""What the parent tells the person who started it: one line a step, and nothing breaks where nobody reads."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORTH_TELLING_S = 1.0


def say(text: str) -> None:
    """One line on standard output. A closed terminal (SIGHUP) or pipe must not stop an orderly stop."""
    try:
        sys.stdout.write(f"turnout: {text}\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        pass


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says `text` before a step, and how long it took where that was a second or more."""
    say(text)
    began = time.monotonic()
    yield
    if (took := time.monotonic() - began) >= _WORTH_TELLING_S:
        say(f"  done in {took:.1f} s")
