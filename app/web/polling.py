"""Staying awake for a client that asks again as soon as it has its answer: adaptive busy polling of the event loop.

A processor that has slept, for however short a time, goes on with cold caches: behind a sleep the application takes as long again for
one request. A client on this machine or beside it asks again within microseconds, so for it alone, and not for long, the loop looks at
its sockets again in place of sleeping. Measured in docs/performance.md; docs/adr/0030.

Source: the Linux kernel's haltpoll governor, which does it for a whole virtual machine where its host allows it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WITHIN_S = 200e-6  # the longest pause that is waited through
IN_A_ROW = 4  # pauses that were as short: those of one client, and seldom of many that come at random


class Polling:
    """One a serving process, for its event loop alone. `clock` gives seconds."""

    __slots__ = ("_answered_at", "_clock", "_short")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._answered_at: float | None = None  # nobody has asked since
        self._short = 0  # pauses in a row

    def asked(self) -> None:
        """Something has come from a client."""
        if self._answered_at is not None:
            pause = self._clock() - self._answered_at
            self._short = self._short + 1 if pause <= WITHIN_S else 0
            self._answered_at = None

    def answered(self) -> None:
        """And no other request is known. Where the last pauses behind such answers were short, the loop does not sleep for WITHIN_S."""
        self._answered_at = self._clock()
        if self._short >= IN_A_ROW:
            self._look()

    def _look(self) -> None:
        """A loop with something to run in its next turn looks at its sockets without waiting for them. Who needs our core goes first."""
        if self._answered_at is not None and self._clock() - self._answered_at <= WITHIN_S:
            os.sched_yield()
            asyncio.get_running_loop().call_soon(self._look)
