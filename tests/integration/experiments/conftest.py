"""One world a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.experiments.world import World, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.database import DatabaseUrls


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    opened = await open_world(database_urls)
    yield opened
    await opened.close()
