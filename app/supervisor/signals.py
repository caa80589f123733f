"""Ctrl-C and SIGTERM as one thing: the first asks for an orderly stop, the next for a quick one. SIGHUP asks for new serving processes.

A terminal that is closed sends SIGHUP, too, and means a stop: by then the process has no terminal any more.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(KeyboardInterrupt):
    """Raised in the main thread at the first signal. A KeyboardInterrupt, since asyncio lets only that one through."""


class StopSignals:
    """While entered: the first signal raises StopRequested wherever the main thread is, later ones only count.

    Loops call `check` besides: what the handler raises inside a finaliser is ignored by Python.
    """

    def __init__(self) -> None:
        self.count = 0
        self._asked: str | None = None  # the first signal's name
        self._stopping = False
        self._roll = False
        self._had_terminal = _has_terminal()
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | signal.Handlers | None] = {}

    def __enter__(self) -> Self:
        for number in _HEARD:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From here on signals only count: the stop itself must run to its end."""
        self._stopping = True

    def check(self) -> None:
        """Raises StopRequested where a signal came. The handler's own exception may be lost: a finaliser or a hook swallows it."""
        if self._asked is not None:
            raise StopRequested(self._asked)

    def roll_asked(self) -> bool:
        """Whether new serving processes were asked for since the last call."""
        asked, self._roll = self._roll, False
        return asked

    @property
    def impatient(self) -> bool:
        """Whether somebody asked twice."""
        return self.count > 1

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            self._roll = True
            return
        self.count += 1
        if not self._stopping:
            self._stopping = True
            self._asked = signal.Signals(number).name
            raise StopRequested(self._asked)


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal, whatever its input and output are."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
