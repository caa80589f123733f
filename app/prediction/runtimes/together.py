"""Rows of several requests that the loop has ready at the same time: one call of the graph, and not one each.

A call costs its overhead, and its trees are out of the processor's near caches by the next request; behind each other in one call rows
cost a tenth. So does all else that is done to requests: many that go one step together cost less than each of them by itself. Who asks
alone waits for nobody: a row waits where several came before it, while each turn of the loop brings others, for three turns or five
milliseconds, and then for those of its model that are ahead of it.
In one call go only rows of graphs whose answer to a row is the same to the last bit in company and alone, which is tried; rows of others
wait for each other as well, and are then asked one behind the other.
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
_MORE_TURNS = 2  # of the loop, beside the one in which it came, that a row waits for others,
_MOST_S = 0.005  # unless they have been longer than this: then there is company enough, and it is late


class Together:
    """The requests of one row to one graph. Belongs to one event loop.

    `several` answers rows in one call, but for those that must go alone (None). `indifferent` says whether company changes no answer; it
    takes milliseconds, so it is asked once, in a thread. `most` is how many rows may go in one call now.
    """

    def __init__(
        self,
        several: Callable[[Sequence[Batch]], Sequence[Answer | None]],
        indifferent: Callable[[], bool],
        most: Callable[[], int],
        threads: Executor,
    ) -> None:
        self._several, self._indifferent, self._most = several, indifferent, most
        self._threads = threads
        self._tried: asyncio.Future[bool] | None = None
        self._indifferently = False  # it was found that company changes no answer
        self._asked = 0  # in this gathering
        self._crowded = False  # several were, in the one before
        self._waiting: list[tuple[Batch, asyncio.Future[Answer | None]]] = []
        self._goes_on = False  # `_answer` will be called for those that wait

    def is_for(self, batch: Batch) -> bool:
        """Whether this request, which comes now, is to `join`."""
        if batch.rows > 1:
            return False
        self._asked += 1
        if self._asked == 1:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._turn_ends, 0, 0, loop.time())
            if self._crowded and self._tried is None:
                self._try()
        return self._crowded

    def join(self, batch: Batch) -> asyncio.Future[Answer | None]:
        """The row's answer, a few turns from now; None where it is to be asked alone, by its own caller: it must not go with others,
        or the call failed, and others have no part in what is wrong with a row.
        """
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, answer))
        return answer

    def _try(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._tried = loop.run_in_executor(self._threads, self._indifferent)
        except RuntimeError:  # no threads any more: the process ends
            self._tried = loop.create_future()
            return
        self._tried.add_done_callback(self._was_tried)

    def _was_tried(self, tried: asyncio.Future[bool]) -> None:
        self._indifferently = not tried.cancelled() and tried.exception() is None and tried.result()

    def _turn_ends(self, before: int, asked: int, began: float) -> None:
        """`before`: turns of the gathering that `began` then, which brought `asked` rows."""
        if self._crowded and before < _MORE_TURNS and asked < self._asked and len(self._waiting) < self._room():
            loop = asyncio.get_running_loop()
            if loop.time() < began + _MOST_S:
                loop.call_soon(self._turn_ends, before + 1, self._asked, began)
                return
        self._crowded, self._asked = self._asked > 1, 0
        if self._waiting and not self._goes_on:
            self._answer()

    def _answer(self) -> None:
        """As many as may go in one call; the others after what else the loop has to do."""
        waiting = [each for each in self._waiting if not each[1].done()]  # without those whose caller went away
        room = self._room()
        now, self._waiting = waiting[:room], waiting[room:]
        self._goes_on = bool(self._waiting)
        if self._goes_on:
            asyncio.get_running_loop().call_soon(self._answer)
        found: Sequence[Answer | None]
        try:
            found = self._several([batch for batch, _ in now]) if now and self._indifferently else (None,) * len(now)
        except Exception:  # noqa: BLE001  whatever it was, each row learns its own
            found = (None,) * len(now)
        for (_, answer), one in zip(now, found, strict=True):
            answer.set_result(one)

    def _room(self) -> int:
        """How many rows may go in the next call, or be asked in the next turn each by itself."""
        return max(1, min(self._most(), MOST_ROWS)) if self._indifferently else MOST_ROWS
