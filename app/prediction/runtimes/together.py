"""Rows of several requests that the loop has ready at the same time: one call of the graph, and not one each.

A call costs its overhead, and its trees are out of the processor's near caches by the next request; behind each other in one call rows
cost a tenth. Who asks alone waits for nobody: a row waits where several came in the turn of the loop before, and no longer than to the
end of its own turn. Only for graphs whose answer to a row is the same to the last bit in company and alone, which is tried.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from app.kernel.tensors import Batch
    from app.prediction.compiled.outputs import Answer

MOST_ROWS = 64  # in one call


class Together:
    """The requests of one row to one graph. Belongs to one event loop.

    `several` answers rows in one call; `alone` one of them, where that call failed: others have no part in what is wrong with a row.
    `indifferent` says whether company changes no answer; it takes milliseconds, so it is asked once, in a thread.
    `most` is how many rows may go in one call now.
    """

    def __init__(
        self,
        several: Callable[[Sequence[Batch]], list[Answer]],
        alone: Callable[[Batch], Answer],
        indifferent: Callable[[], bool],
        most: Callable[[], int],
        threads: Executor,
    ) -> None:
        self._several, self._alone, self._indifferent, self._most = several, alone, indifferent, most
        self._threads = threads
        self._tried: asyncio.Future[bool] | None = None
        self._gathers = False  # it was found that company changes no answer
        self._asked = 0  # in this turn of the loop
        self._crowded = False  # several were, in the last one in which anybody was
        self._waiting: list[tuple[Batch, asyncio.Future[Answer]]] = []

    def is_for(self, batch: Batch) -> bool:
        """Whether this request, which comes now, is to `join`."""
        if batch.rows > 1:
            return False
        self._asked += 1
        if self._asked == 1:
            asyncio.get_running_loop().call_soon(self._turn_ends)
        if self._crowded and self._tried is None:
            self._tried = asyncio.get_running_loop().run_in_executor(self._threads, self._indifferent)
            self._tried.add_done_callback(self._was_tried)
        return self._crowded and self._gathers

    def join(self, batch: Batch) -> asyncio.Future[Answer]:
        """The row's answer, at the end of this turn; raises what `alone` raises."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, answer))
        return answer

    def _was_tried(self, tried: asyncio.Future[bool]) -> None:
        self._gathers = not tried.cancelled() and tried.exception() is None and tried.result()

    def _turn_ends(self) -> None:
        self._crowded, self._asked = self._asked > 1, 0
        if self._waiting:
            self._answer()

    def _answer(self) -> None:
        """As many as may go in one call; the others after what else the loop has to do."""
        most = max(1, min(self._most(), MOST_ROWS))
        now, self._waiting = self._waiting[:most], self._waiting[most:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer)
        now = [(batch, answer) for batch, answer in now if not answer.done()]  # whose caller went away
        try:
            answers = self._several([batch for batch, _ in now]) if len(now) > 1 else None
        except Exception:  # noqa: BLE001  whatever it was, each row learns its own
            answers = None
        if answers is None:
            for batch, answer in now:
                self._settle(batch, answer)
            return
        for (_, answer), found in zip(now, answers, strict=True):
            answer.set_result(found)

    def _settle(self, batch: Batch, answer: asyncio.Future[Answer]) -> None:
        try:
            answer.set_result(self._alone(batch))
        except Exception as error:  # noqa: BLE001  it is the caller's
            answer.set_exception(error)
