"""How many bytes of large bodies are under way in a process: a few hundred clients that send large ones must not fill its memory.

Small bodies are bounded by the number of requests under way. What a large one will take is taken at once where its length is announced, so
that of those that have begun each can come to its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.graphql.http.admission import Busy, wait_ms
from app.kernel.memory import give_back_memory

if TYPE_CHECKING:
    from uuid import UUID

    from app.graphql.http.admission import Place, TurnedAway

SMALL_BYTES = 64 * 1024  # bodies up to this are not counted
_LEFT_BYTES = 1024 * 1024  # a body from this on leaves memory behind that is worth giving back
_GIVE_BACK_S = 1.0


class BodyBytes:
    """`most` of one process; a tenant may have as much as is left free: alone, half of it. One body it may have where there is room."""

    def __init__(self, most: int, telemetry: TurnedAway) -> None:
        self._most = self._free = most
        self._telemetry = telemetry
        self._taken: dict[UUID, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def free(self) -> int:
        return self._free

    def begin(self, tenant_id: UUID, within: Place | None) -> Held:
        """A body of which nothing is known yet; its end is also that of the place that it is `within`."""
        return Held(self, tenant_id, within)

    def take(self, held: Held, more: int) -> None:
        """For the body itself; raises Unavailable."""
        taken = self._taken.get(held.tenant_id, 0)
        others = taken - held.size
        if more > self._free or (others and taken + more > self._free - more):
            self._telemetry.turned_away("bodies")
            raise Busy("Too many large bodies are under way. Wait, then try again.", retry_after_ms=wait_ms(1.0))
        self._taken[held.tenant_id] = taken + more
        self._free -= more

    def ended(self, held: Held) -> None:
        """For the body itself."""
        self._free += held.size
        taken = self._taken[held.tenant_id] - held.size
        if taken:
            self._taken[held.tenant_id] = taken
        else:
            del self._taken[held.tenant_id]
        if held.size >= _LEFT_BYTES and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GIVE_BACK_S, self._give_back)

    def _give_back(self) -> None:
        """Beside the loop, and not while large bodies are under way: the last of them asks again."""
        self._timer = None
        if self._free == self._most:
            asyncio.get_running_loop().run_in_executor(None, give_back_memory)


class Held:
    """One body as a place; to be ended once."""

    __slots__ = ("_of", "_within", "size", "tenant_id")

    def __init__(self, of: BodyBytes, tenant_id: UUID, within: Place | None) -> None:
        self._of, self.tenant_id, self._within = of, tenant_id, within
        self.size = 0  # bytes that are taken for it

    def need(self, size: int) -> None:
        """The body is, or will be, at least so long. Raises Unavailable; what was taken before is still held."""
        if size > self.size and size > SMALL_BYTES:
            self._of.take(self, size - self.size)
            self.size = size

    def end(self) -> None:
        if self.size:
            self._of.ended(self)
        if self._within is not None:
            self._within.end()
