"""What one request is charged: each part once, and all of it before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import RateLimited

if TYPE_CHECKING:
    from app.graphql.http.exchange import Exchange
    from app.graphql.http.ports import Decision, SharedTake, Throttle
    from app.kernel.context import RequestContext


class Charge:
    """Takes from this machine's budget at once, and meanwhile from the one that machines share, where there is one."""

    __slots__ = ("_ctx", "_exchange", "_here", "_pending", "_throttle", "_unasked")

    def __init__(self, throttle: Throttle, ctx: RequestContext, exchange: Exchange) -> None:
        """Takes the one token that every request costs, before anything of it is read; raises RateLimited."""
        self._throttle, self._ctx, self._exchange = throttle, ctx, exchange
        self._pending: tuple[SharedTake, ...] = ()
        self._unasked = 0  # of those that the other machines are to be asked for
        self.take(1)
        if self._unasked:
            self._ask()

    def take(self, cost: int) -> None:
        """Takes `cost` more tokens; raises RateLimited, and then none of these are taken."""
        exchange = self._exchange
        exchange.decision = decision = self._throttle.take(self._ctx, cost)
        if not decision.allowed:
            raise refusal(decision)
        exchange.tokens += cost
        if self._throttle.shared is not None:
            self._here = decision
            self._unasked += cost

    @property
    def waits(self) -> bool:
        """Whether `settle` has anything to do."""
        return bool(self._unasked or self._pending)

    async def settle(self) -> None:
        """Returns when all that was taken here is taken everywhere; raises RateLimited. Waits for nobody on a machine of its own."""
        if self._unasked:
            self._ask()
        for pending in self._pending:
            self._exchange.decision = decision = await pending.decision()
            if not decision.allowed:
                raise refusal(decision)

    def _ask(self) -> None:
        ask, cost, self._unasked = self._throttle.shared, self._unasked, 0
        if ask is not None and (asked := ask(self._ctx, cost, self._here)) is not None:
            self._pending += (asked,)


def refusal(decision: Decision) -> RateLimited:
    """What is raised where the limiter said no."""
    if decision.retry_after_ms is None:
        return RateLimited(f"This request costs more than the {decision.limit} that may be taken at once.", retryable=False)
    return RateLimited("Too many requests. Wait, then try again.", retry_after_ms=decision.retry_after_ms)
