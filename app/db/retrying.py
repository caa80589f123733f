"""Once more, for what may be asked twice: with backoff and jitter, each try in the log, and never more than the budget allows.

Only what changes nothing, or the same thing once, is tried again. A retry is paid for by calls that were made: so that where everything
fails, a fifth more is asked of whoever is in trouble, and not three times as much.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import stamina
import structlog
from stamina.instrumentation import set_on_retry_hooks

from app.db.breaker import DatabaseAway
from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stamina.instrumentation import RetryDetails

T = TypeVar("T")
SHARE = 0.2  # retries a call
_MOST = 10.0  # retries at once, after a quiet time
_FIRST_WAIT_S, _LONGEST_WAIT_S, _JITTER_S = 0.02, 0.5, 0.05
log = structlog.get_logger()


class RetryBudget:
    """Of one process; from any thread. Source: the retry budgets of Finagle and Envoy."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._left = _MOST

    def called(self) -> None:
        """A call was made, which is no retry."""
        with self._guard:
            self._left = min(_MOST, self._left + SHARE)

    def take(self) -> bool:
        """Whether one more retry may be made."""
        with self._guard:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


_BUDGET = RetryBudget()


async def retried(
    what: str,
    call: Callable[[], Awaitable[T]],
    *,
    when: Callable[[Exception], bool],
    attempts: int = 2,
    budget: RetryBudget = _BUDGET,
) -> T:
    """What `call` gives, which may be called again whatever became of it; raises what the last try raised.

    `when`: whether a failure is one after which the same may succeed in a moment. `what`: its name in the log.
    """
    budget.called()
    try:
        return await call()
    except Exception as error:  # noqa: BLE001  `when` says which
        failed = error
    return await _again(what, call, failed, when, attempts, budget)


async def _again(
    what: str,
    call: Callable[[], Awaitable[T]],
    failed: Exception,
    when: Callable[[Exception], bool],
    attempts: int,
    budget: RetryBudget,
) -> T:
    """As `retried`, of a call whose first try has failed so."""
    made = 0

    def again(error: Exception) -> bool:
        if made >= attempts or isinstance(error, DatabaseAway) or not when(error):
            return False
        if budget.take():
            return True
        log.warning("retry_refused", what=what, why="the budget for retries is spent")
        return False

    tries = stamina.retry_context(
        on=again, attempts=attempts, timeout=None, wait_initial=_FIRST_WAIT_S, wait_max=_LONGEST_WAIT_S, wait_jitter=_JITTER_S
    )
    async for attempt in tries.with_name(what, (), {}):
        made += 1
        with attempt:
            if made == 1:
                raise failed
            return await call()
    raise AssertionError("unreachable")


def is_unavailable(error: Exception) -> bool:
    """For `when`: the database was away, full or too slow."""
    return type(error) is Unavailable


def _tell(details: RetryDetails) -> None:
    cause = type(details.caused_by).__name__
    log.warning("retry_scheduled", what=details.name, retry=details.retry_num, wait_s=round(details.wait_for, 3), why=cause)


set_on_retry_hooks([_tell])  # for this process: what the library would say by itself names arguments
