"""Serving processes replaced one by one, while the others and the old one serve: no request is lost, and at most one more runs.

All listen on the same socket, which the parent holds. A successor is started and opens its models; once it says that it is ready, its
predecessor takes nothing new, ends each connection with an answer, and goes. Each has a slot of its own in what all of them count together.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from app.kernel.exits import NOT_TAKEN, UNWRITTEN
from app.supervisor.process import Child, describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable

READY_WITHIN_S = 120.0
GONE_WITHIN_S = 20.0  # longer than a serving process that leaves waits for its clients


class Rolling:
    """One round. Never blocks: call `step` often, until it is `done`. `serving` is changed in place."""

    def __init__(self, serving: list[Child], now: Callable[[], float] = time.monotonic) -> None:
        self._serving = serving
        self._now = now
        self._next = 0
        self._successor: Child | None = None
        self._leaving: Child | None = None
        self._given_up: Child | None = None  # a successor that was killed, until it is gone
        self._until = 0.0

    @property
    def done(self) -> bool:
        return self._next >= len(self._serving) and not self.children

    @property
    def children(self) -> list[Child]:
        """Those that run and are not, or not any more, among the serving ones."""
        return [child for child in (self._successor, self._leaving, self._given_up) if child is not None]

    def step(self) -> str | None:
        """What happened, for people; None while nothing did."""
        if self._given_up is not None:
            self._bury(self._given_up)
            return None
        if self._leaving is not None:
            return self._see_off(self._leaving)
        if self._successor is not None:
            return self._try(self._successor)
        if self._next < len(self._serving):
            old = self._serving[self._next]
            self._successor = Child(replace(old.spec, slot=self._free_slot()))
            self._successor.start()
            if old.words is not None:
                self._successor.tell(old.words)
            self._until = self._now() + READY_WITHIN_S
        return None

    def _free_slot(self) -> int:
        """That of none that runs: there is one more than there are serving processes, and whoever leaves is gone before the next begins."""
        taken = {child.spec.slot for child in self._serving}
        return next(slot for slot in range(len(self._serving) + 1) if slot not in taken)

    def _try(self, successor: Child) -> str | None:
        status = successor.exit_status()
        if status is None and not successor.ready and self._now() < self._until:
            return None
        self._successor = None
        if status is None and successor.ready:
            self._leaving = self._serving[self._next]
            self._serving[self._next] = successor
            self._leaving.leave()
            self._until = self._now() + GONE_WITHIN_S
            self._next += 1
            return f"{successor.spec.name} has a successor that is ready (process {successor.pid})"
        successor.kill()
        self._given_up = successor
        self._bury(successor)
        self._next = len(self._serving)
        why = f"was not ready within {READY_WITHIN_S:.0f} s" if status is None else describe_exit(status)
        return f"the new {successor.spec.name} {why}: those that run go on serving"

    def _see_off(self, leaving: Child) -> str | None:
        status = leaving.exit_status()
        if status is None:
            if self._now() < self._until:
                return None
            leaving.kill()
            self._until = float("inf")  # once is enough: it is gone in a moment
            return f"the old {leaving.spec.name} did not end in time and was killed"
        self._leaving = None
        _forget(leaving)
        if status == UNWRITTEN:
            return f"error: the old {leaving.spec.name} {NOT_TAKEN}"
        return "all serving processes are new" if self.done else None

    def _bury(self, given_up: Child) -> None:
        """Once it is gone: what it had counted is not shown for ever as if it ran."""
        if given_up.exit_status() is not None:
            self._given_up = None
            _forget(given_up)


def _forget(child: Child) -> None:
    if child.spec.ended and child.pid is not None:
        child.spec.ended(child.pid)
