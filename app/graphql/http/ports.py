"""What the endpoint needs from other rooms; `app/main.py` hands it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from app.kernel.clock import Deadline
    from app.kernel.context import RequestContext


class Gatekeeper(Protocol):
    """Who is calling. `authorization` is the header as it came, None where there is none; `address`: where the caller is.

    Raises Unauthenticated, RateLimited where that address failed too often, TenantSuspended, or Unavailable where it cannot tell.
    """

    async def admit(self, authorization: str | None, request_id: str, deadline: Deadline, address: str) -> RequestContext: ...


class Decision(Protocol):
    """What a limiter said. `limit` is the most that can be spent at once; `retry_after_ms` None where refused: it never fits.

    `reset_s` is when all of it is there again.
    """

    @property
    def allowed(self) -> bool: ...
    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def retry_after_ms(self) -> int | None: ...
    @property
    def reset_s(self) -> float: ...


class SharedTake(Protocol):
    """What other machines' budget is being asked; may be dropped."""

    async def decision(self) -> Decision: ...  # bounded: in 30 ms


class Ask(Protocol):
    """Begins to take what was allowed `here` from other machines' budget, too; None while nobody can be asked."""

    def __call__(self, ctx: RequestContext, cost: int, here: Decision, /) -> SharedTake | None: ...


class Throttle(Protocol):
    """`take` spends from memory, at once; a refused cost is not spent.

    `shared` asks the other machines; None, from the start and for good, where there are none.
    """

    def take(self, ctx: RequestContext, cost: int) -> Decision: ...
    @property
    def shared(self) -> Ask | None: ...


class Registered(Protocol):
    """A registered document; `sha256` is of its text."""

    @property
    def text(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class RegisteredDocuments(Protocol):
    """Looked up in memory. `sent`: an id or a sha256, as the client wrote it."""

    def find(self, tenant_id: UUID, sent: str) -> Registered | None: ...
    def alone(self, ctx: RequestContext) -> bool: ...  # whether the caller may run nothing else


class Telemetry(Protocol):
    """`operation_kind`: query, mutation, subscription or none; `code`: OK or the first error's."""

    def request(self, seconds: float, operation_kind: str, code: str) -> None: ...
    def in_flight(self, change: int) -> None: ...  # +1 when a request begins, -1 when it ends
    def turned_away(self, reason: str) -> None: ...  # a request was not begun


class ServedPredictions(Protocol):
    """Counts the requests for predictions that were answered, or should have been. `failed`: by our doing."""

    def count(self, tenant_id: UUID, seconds: float, *, failed: bool) -> None: ...


class ContextFactory(Protocol):
    """Makes what resolvers find as `info.context`: one a request. They set its `predicts` where a prediction is asked for."""

    def __call__(self, ctx: RequestContext) -> Any: ...
