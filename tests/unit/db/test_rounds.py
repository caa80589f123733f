"""Work done again and again in the background."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.testing import capture_logs

from app.db import rounds as module
from app.db.rounds import rounds
from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit


async def go_round(
    outcomes: Iterator[Exception | None], pauses: list[float], monkeypatch: pytest.MonkeyPatch, first_s: float | None
) -> None:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> None:
        try:
            outcome = next(outcomes)
        except StopIteration:
            raise asyncio.CancelledError from None
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await rounds(work, 100.0, structlog.get_logger(), waits="it_waits", failed="it_failed", first_s=first_s)


async def test_a_failed_round_is_told_and_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    with capture_logs() as told:
        await go_round(iter([None, Unavailable("The database is away."), ValueError("odd"), None]), pauses, monkeypatch, None)
    assert [(line["event"], line["log_level"], line.get("reason")) for line in told] == [
        ("it_waits", "info", "The database is away."),
        ("it_failed", "error", None),
    ]
    assert len(pauses) == 5
    assert all(80 <= pause <= 120 for pause in pauses)


@pytest.mark.parametrize("first_s", [0.0, 10.0])
async def test_the_first_round_may_come_sooner(monkeypatch: pytest.MonkeyPatch, first_s: float) -> None:
    pauses: list[float] = []
    await go_round(iter([None, None]), pauses, monkeypatch, first_s)
    assert 0.8 * first_s <= pauses[0] <= 1.2 * first_s
    assert all(80 <= pause <= 120 for pause in pauses[1:])
