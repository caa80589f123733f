"""One world a test, or one lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.experiments.lab import Lab, open_lab
from tests.integration.experiments.world import World, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.database import DatabaseUrls


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    opened = await open_world(database_urls)
    yield opened
    await opened.close()


@pytest.fixture
async def lab(database_urls: DatabaseUrls, tmp_path: Path) -> AsyncIterator[Lab]:
    opened = await open_lab(database_urls, tmp_path / "artifacts")
    yield opened
    await opened.registry.close()
