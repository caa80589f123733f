"""How long a call waits for company: one that went as soon as the child is free would take the first of many requests alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_S = 0.0005
_SHARE = 0.25  # of what a call takes: a fast model's callers would wait for nothing


class Gathering:
    """Waits only where several requests went together of late, and no longer than until as many are there again. In one event loop.

    `ready()` is called when a wait is over.
    """

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        self._crowd = 1  # requests that went together of late
        self._call_s = self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def goes_on(self, waiting: int) -> bool:
        """Whether the next call should wait for more than these requests."""
        if self._over or waiting >= self._crowd:
            self.end()
            return False
        if self._timer is None:
            wait_s = min(LONGEST_S, self._call_s * _SHARE)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._is_over)
        return True

    def sent(self, requests: int) -> None:
        """So many go together now. Half of what went before is forgotten: who asks alone soon waits for nobody."""
        self._crowd = max(requests, self._crowd // 2)
        self._over = False
        self._sent_at = asyncio.get_running_loop().time()

    def answered(self) -> None:
        """They have their answers."""
        self._call_s = asyncio.get_running_loop().time() - self._sent_at

    def end(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_over(self) -> None:
        self._timer, self._over = None, True
        self._ready()
