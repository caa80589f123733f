"""What one request is charged: each part once, and all of it before anything runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from app.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.graphql.http.exchange import Exchange
    from app.graphql.http.ports import Ask, Decision, SharedTake, Throttle
    from app.kernel.context import RequestContext


def charging(throttle: Throttle) -> Callable[[RequestContext, Exchange], Charge]:
    """What makes a request's charge: whether other machines are to be asked is known from the start."""
    ask = throttle.shared
    return partial(Charge, throttle) if ask is None else partial(SharedCharge, throttle, ask)


class Charge:
    """Takes from this machine's budget, at once."""

    __slots__ = ("_ctx", "_exchange", "_throttle")
    waits: ClassVar[bool] = False  # whether `settle` has anything to do

    def __init__(self, throttle: Throttle, ctx: RequestContext, exchange: Exchange) -> None:
        """Takes the one token that every request costs, before anything of it is read; raises RateLimited."""
        self._throttle, self._ctx, self._exchange = throttle, ctx, exchange
        self.take(1)

    def take(self, cost: int) -> Decision:
        """Takes `cost` more tokens: what that left. Raises RateLimited, and then none of these are taken."""
        exchange = self._exchange
        exchange.decision = decision = self._throttle.take(self._ctx, cost)
        if not decision.allowed:
            raise refusal(decision)
        exchange.tokens += cost
        return decision

    async def settle(self) -> None:
        """Returns when all that was taken here is taken everywhere; raises RateLimited. Waits for nobody on a machine of its own."""


class SharedCharge(Charge):
    """Takes also from the budget that machines share, which answers while the request is read."""

    __slots__ = ("_ask", "_here", "_pending", "_unasked")
    waits = True

    def __init__(self, throttle: Throttle, ask: Ask, ctx: RequestContext, exchange: Exchange) -> None:
        self._ask = ask
        self._pending: tuple[SharedTake, ...] = ()
        self._unasked = 0  # of those that the other machines are to be asked for
        super().__init__(throttle, ctx, exchange)
        self._ask_others()

    def take(self, cost: int) -> Decision:
        self._here = here = super().take(cost)
        self._unasked += cost
        return here

    async def settle(self) -> None:
        self._ask_others()
        for pending in self._pending:
            self._exchange.decision = decision = await pending.decision()
            if not decision.allowed:
                raise refusal(decision)

    def _ask_others(self) -> None:
        cost, self._unasked = self._unasked, 0
        if cost and (asked := self._ask(self._ctx, cost, self._here)) is not None:
            self._pending += (asked,)


def refusal(decision: Decision) -> RateLimited:
    """What is raised where the limiter said no."""
    if decision.retry_after_ms is None:
        return RateLimited(f"This request costs more than the {decision.limit} that may be taken at once.", retryable=False)
    return RateLimited("Too many requests. Wait, then try again.", retry_after_ms=decision.retry_after_ms)
