"""The longest that a request may take, for all requests with one timer: as all may take as long, whoever began first is due first.

What `asyncio.timeout` gives each of them costs a timer of the loop's, made and cancelled on every request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class TimeLimit:
    """Of one event loop's requests. `with limit.begun() as this:` ends the task's work `seconds` later with a TimeoutError."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun: dict[Limited, None] = {}  # in the order in which they are due
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begun(self) -> Limited:
        """For the running task, from now on; to be entered at once."""
        loop = asyncio.get_running_loop()
        limited = Limited(self._begun, asyncio.current_task(loop), loop.time() + self._seconds)
        self._begun[limited] = None
        if self._timer is None or self._loop is not loop:
            self._loop, self._timer = loop, loop.call_at(limited.due, self._look, loop)
        return limited

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """The timer stays as it was when who began first has ended, so it rings once in `seconds` and not for each request."""
        self._timer = None
        for limited in list(self._begun):
            if limited.due > loop.time():
                self._timer = loop.call_at(limited.due, self._look, loop)
                return
            del self._begun[limited]
            limited.expire()


class Limited:
    """One task's work, as a context manager, which leaves `begun` when it ends. `expired`: whether it was too late."""

    __slots__ = ("_begun", "_cancelling", "_task", "due", "expired")

    def __init__(self, begun: dict[Limited, None], task: asyncio.Task[object] | None, due: float) -> None:
        if task is None:
            raise RuntimeError("only a task can be limited")
        self._begun = begun
        self._task = task
        self._cancelling = task.cancelling()
        self.due = due
        self.expired = False

    def expire(self) -> None:
        """Cancels what the task does."""
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._begun.pop(self, None)
        # Somebody else may have cancelled the task, too: then it stays cancelled.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
