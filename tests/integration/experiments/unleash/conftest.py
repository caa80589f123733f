"""Sources of flags over a real database, beside a flag server that says what a test wants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.db.session import Database
from app.db.sync import SyncDatabase
from app.experiments.unleash.source import UnleashFlagSource
from app.experiments.unleash.types import UnleashOptions
from app.kernel.clock import SystemClock
from tests.support.flag_server import FlagServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from app.kernel.clock import Clock
    from app.tenancy.sealed_files import SealedFile
    from tests.support.database import DatabaseUrls

WITHIN_S = 60.0


class Counts:
    def __init__(self) -> None:
        self.heard: list[float] = []
        self.refused = 0

    def unleash_heard(self, unix_seconds: float) -> None:
        self.heard.append(unix_seconds)

    def unleash_refused(self) -> None:
        self.refused += 1


class World:
    """Databases, and sources that are stopped with the test."""

    def __init__(self, urls: DatabaseUrls) -> None:
        self.urls = urls
        self.database, self.sync_database = Database(urls.runtime), SyncDatabase(urls.sync)
        self.counts = Counts()
        self._sources: list[UnleashFlagSource] = []

    async def source(
        self,
        url: str,
        *,
        token: str = "default:development.x",
        shared: bool = False,
        kept: SealedFile | None = None,
        clock: Clock | None = None,
    ) -> UnleashFlagSource:
        """A started source that looks five times a second. `clock`: by which it is patient."""
        options = UnleashOptions(url, token, shared, refresh_s=0.2)
        source = UnleashFlagSource(options, self.database, self.sync_database, self.counts, clock or SystemClock(), kept)
        source.changes = 0

        def changed() -> None:
            source.changes += 1

        self._sources.append(source)
        await source.start(changed)
        return source

    async def close(self) -> None:
        for source in self._sources:
            await source.stop()
        await self.database.close()
        await self.sync_database.close()


async def until(holds: Callable[[], object]) -> None:
    """Returns when it holds; a thread elsewhere brings it about."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def flags_world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    world = World(database_urls)
    yield world
    await world.close()


@pytest.fixture
def flag_server() -> Iterator[FlagServer]:
    server = FlagServer()
    yield server
    server.stop()
