"""What a model falls back on is known to each process, and open there, before it is needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.errors import ModelFailed
from app.registry.types import Fallback, FallbackKind
from tests.integration.prediction.test_refresher import Process
from tests.integration.registry.conftest import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.registry.types import ModelRoute
    from tests.integration.registry.conftest import Registry

__all__ = ["registry"]
pytestmark = pytest.mark.integration


class Falling(Process):
    async def falls_back(self, kind: FallbackKind, version: int | None = None, answer: object = None) -> None:
        await self.registry.service.update_model(self.registry.ctx, "risk", {"fallback": Fallback(kind, version, answer)})

    @property
    def risk(self) -> ModelRoute:
        return self.table.tenant(self.registry.tenant).models["risk"]

    def routed(self) -> set[int]:
        """Versions that requests can reach without naming them."""
        return {number for _, number in self.table.tenant(self.registry.tenant).aliased}

    def kept_open(self) -> set[int]:
        return {number for _, _, number, _ in self.models.needed[-1]} if self.models.needed else set()


@pytest.fixture
async def process(registry: Registry) -> AsyncIterator[Falling]:
    process = Falling(registry)
    for number in (1, 2, 3):
        assert await registry.ready(f"model {number}".encode()) == number
    for number in (1, 2, 3):
        await process.promote(number)
    await process.start()
    yield process
    for task in process.tasks:
        task.cancel()
    await asyncio.gather(*process.tasks, return_exceptions=True)


async def test_without_a_fallback_only_what_aliases_point_at_is_open(process: Falling) -> None:
    await process.until(lambda: process.kept_open() == {3})
    assert (process.routed(), process.risk.fallback, process.risk.previous) == ({3}, None, {})


async def test_the_previous_version_is_that_to_which_the_alias_would_be_rolled_back(process: Falling) -> None:
    await process.falls_back(FallbackKind.PREVIOUS)
    await process.until(lambda: process.routed() == {2, 3})
    assert process.risk.previous == {"production": 2}
    await process.until(lambda: process.kept_open() == {2, 3})

    await process.registry.service.rollback(process.registry.ctx, "risk")
    await process.until(lambda: process.routed() == {1, 2})
    assert (process.serves(), process.risk.previous) == (2, {"production": 1})  # and never what was rolled back


async def test_a_previous_version_that_cannot_serve_any_more_is_passed_over(process: Falling) -> None:
    await process.falls_back(FallbackKind.PREVIOUS)
    await process.until(lambda: process.routed() == {2, 3})
    await process.registry.service.withdraw(process.registry.ctx, "risk", 2, "bad data")
    await process.until(lambda: process.routed() == {1, 3})
    assert process.risk.previous == {"production": 1}


async def test_at_the_bottom_of_its_history_an_alias_has_no_previous_version(process: Falling) -> None:
    await process.falls_back(FallbackKind.PREVIOUS)
    await process.registry.service.withdraw(process.registry.ctx, "risk", 2, "bad data")
    await process.registry.service.withdraw(process.registry.ctx, "risk", 1, "bad data")
    await process.until(lambda: process.routed() == {3} and process.risk.fallback is not None)
    assert process.risk.previous == {}


async def test_a_named_version_is_open_and_ends_with_the_fallback(process: Falling) -> None:
    await process.falls_back(FallbackKind.VERSION, 1)
    await process.until(lambda: process.routed() == {1, 3})
    await process.until(lambda: process.kept_open() == {1, 3})
    await process.falls_back(FallbackKind.NONE)
    await process.until(lambda: process.routed() == {3})
    assert process.risk.fallback is None


async def test_a_fixed_answer_opens_nothing(process: Falling) -> None:
    await process.falls_back(FallbackKind.ANSWER, answer="no")
    await process.until(lambda: process.risk.fallback == Fallback(FallbackKind.ANSWER, None, "no"))
    assert process.routed() == {3}


async def test_a_fallback_that_cannot_be_opened_holds_no_change_back(process: Falling) -> None:
    process.models.failing[1] = ModelFailed("broken")
    await process.falls_back(FallbackKind.VERSION, 1)
    await process.until(lambda: process.risk.fallback is not None)
    await process.promote(2)
    await process.until(lambda: process.serves() == 2)
    assert process.routed() == {2}
    del process.models.failing[1]
    await process.until(lambda: process.routed() == {1, 2})
