"""A connection of its own that comes back, and says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.db.line import Line
from app.db.outbox import CHANNEL
from app.errors import Unavailable
from tests.support.database import DatabaseUrls, execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.integration

BROKEN = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'turnout test' and datname = current_database()"


class Heard:
    """What a line says, in order."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()

    def payload(self, text: str) -> None:
        self.said.put_nowait(text)

    def up(self) -> None:
        self.said.put_nowait("up")


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.fixture
async def line(database_urls: DatabaseUrls, heard: Heard) -> AsyncIterator[Line]:
    line = Line(database_urls.sync, "test", default_transaction_read_only="on")
    line.listen(CHANNEL, heard.payload, heard.up)
    task = asyncio.create_task(line.run())
    yield line
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not line.is_up


async def test_it_hears_what_is_said_after_it_is_up(line: Line, heard: Heard, database_urls: DatabaseUrls) -> None:
    assert not line.is_up
    assert await heard.said.get() == "up"
    assert line.is_up
    execute(database_urls.runtime, f"select pg_notify('{CHANNEL}', '7')")
    assert await heard.said.get() == "7"


async def test_a_lost_line_comes_back_says_so_and_hears_again(line: Line, heard: Heard, database_urls: DatabaseUrls) -> None:
    assert await heard.said.get() == "up"
    execute(database_urls.superuser, BROKEN)
    assert await heard.said.get() == "up"
    execute(database_urls.runtime, f"select pg_notify('{CHANNEL}', '8')")
    assert await heard.said.get() == "8"


async def test_a_line_that_is_down_is_unavailable_at_once(database_urls: DatabaseUrls) -> None:
    line = Line(database_urls.sync, "test")
    with pytest.raises(Unavailable):
        async with line.use():
            pass


async def test_an_answer_that_comes_too_late_ends_the_connection_and_not_the_line(line: Line, heard: Heard) -> None:
    assert await heard.said.get() == "up"
    with pytest.raises(Unavailable):
        async with line.use() as connection:
            await connection.execute("select pg_sleep(10)", timeout=0.01)
    assert await heard.said.get() == "up"
    async with line.use() as connection:
        assert await connection.fetchval("select 1") == 1


async def test_callers_queue_for_the_one_connection(line: Line, heard: Heard) -> None:
    assert await heard.said.get() == "up"

    async def ask(number: int) -> int:
        async with line.use() as connection:
            return int(await connection.fetchval("select $1::int", number))

    assert await asyncio.gather(*(ask(n) for n in range(8))) == list(range(8))
