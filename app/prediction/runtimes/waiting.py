"""Requests that wait for a model's child, and which of them go next.

What is suspect (a worker died on its input) goes alone, and while no other process tries a suspect on the same child. Until then it lets
the others pass: it may be another process's that is gone, which takes its time to be noticed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from app.prediction.runtimes.calls import fail, quarantined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.errors import AppError
    from app.prediction.quarantine import Quarantine
    from app.prediction.runtimes.calls import Request

_LOOK_S = 0.005  # whether another process's trial is over


class Waiting:
    """Oldest first, in one event loop. `again()` is called when it may be worth calling `take` again."""

    def __init__(self, quarantine: Quarantine, rows_a_call: int, again: Callable[[], None]) -> None:
        self._quarantine, self._rows_a_call, self._again = quarantine, rows_a_call, again
        self._requests: deque[Request] = deque()
        self._look: asyncio.TimerHandle | None = None
        self.rows = 0
        self.on_trial = False  # a suspect was taken, and its trial is not over

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        self._requests.append(request)
        self.rows += request.batch.rows

    def try_alone(self, requests: Iterable[Request]) -> None:
        """Each before whatever waits; in their order."""
        for request in reversed(list(requests)):
            request.alone = True
            self._requests.appendleft(request)
            self.rows += request.batch.rows

    def take(self) -> list[Request]:
        """The oldest requests that may go and fit one call; expired and abandoned ones are dropped."""
        call: list[Request] = []
        held: list[Request] = []  # suspects whose time has not come
        rows = 0
        while self._requests:
            request = self._requests[0]
            if self._quarantine:
                self._hold_back(request)
            if not request.answer.done():
                if call and (request.alone or call[0].alone or rows + request.batch.rows > self._rows_a_call):
                    break
                request.held = request.suspect and (bool(held) or not self._begin_trial())
                (held if request.held else call).append(request)
                rows += 0 if request.held else request.batch.rows
            self._requests.popleft()
            self.rows -= request.batch.rows
        self._requests.extendleft(reversed(held))
        self.rows += sum(request.batch.rows for request in held)
        return call

    def end_trial(self) -> None:
        """What became of the suspect that was taken is known."""
        if self.on_trial:
            self.on_trial = False
            self._quarantine.end_trial()

    def fail(self, error: AppError) -> None:
        """Tells everybody; nobody waits any more."""
        fail(self._requests, error)
        self._requests.clear()
        self.rows = 0

    def end(self) -> None:
        """`again` is not called any more."""
        self.end_trial()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _hold_back(self, request: Request) -> None:
        """Refuses it where two workers died on its input, also since it came; after one death it goes alone."""
        if (status := self._quarantine.refusal(request.name)) is not None:
            fail((request,), quarantined(status))
        else:
            request.suspect = self._quarantine.deaths(request.name) > 0
            request.alone = request.alone or request.suspect

    def _begin_trial(self) -> bool:
        """Whether the suspect that is next may go. Else it is looked at again when another process's trial may be over."""
        self.on_trial = self._quarantine.begin_trial()
        if not self.on_trial and self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._looked)
        return self.on_trial

    def _looked(self) -> None:
        self._look = None
        self._again()
