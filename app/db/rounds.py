"""Work that is done again and again in the background, whatever became of it the last time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Never

from app.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

_SPREAD = 0.2


async def rounds(
    work: Callable[[], Awaitable[object]],
    every_s: float,
    log: FilteringBoundLogger,
    *,
    waits: str,
    failed: str,
    first_s: float | None = None,
) -> Never:
    """Does `work` about every `every_s` seconds, the first time after about `first_s` (as long), until cancelled.

    A failure costs one round and is told: an expected one, the database away most of all, as the event `waits`, another one as `failed`.
    A fifth more or less, so that processes do not move in step.
    """
    pause_s = every_s if first_s is None else first_s
    while True:
        await asyncio.sleep(pause_s * random.uniform(1 - _SPREAD, 1 + _SPREAD))  # noqa: S311  jitter, no secret
        pause_s = every_s
        try:
            await work()
        except AppError as error:
            log.info(waits, reason=error.message)
        except Exception:  # the next round is another try
            log.exception(failed)
