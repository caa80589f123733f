"""Nobody waits for a database that is not there while the last good state could be read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from app.errors import Unavailable
from app.prediction.last_good.instead import instead
from app.prediction.last_good.reading import Kept

pytestmark = pytest.mark.unit
KEPT = Kept(cast("Any", object()), 0.0)


class Database:
    """Answers, fails or is silent, as a test says."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_there = False
        self.look = asyncio.create_task(self._look())
        self.reads = 0

    async def _look(self) -> None:
        await self.answer

    def read(self) -> Kept:
        self.reads += 1
        return KEPT

    async def instead(self, read: Any = None) -> Kept | None:
        return await instead(self.look, lambda: self.is_there, read or self.read, silent_s=0.0, patience_s=0.0)


async def test_a_database_that_says_nothing_is_not_waited_for() -> None:
    database = Database()
    assert await database.instead() is KEPT
    assert database.look.cancelled()


async def test_a_database_that_refuses_is_taken_at_its_word() -> None:
    database = Database()
    database.answer.set_exception(Unavailable("gone"))
    await asyncio.wait([database.look])
    assert await database.instead() is KEPT
    assert database.reads == 1


async def test_a_database_that_is_there_may_take_its_time_and_the_disk_is_not_read() -> None:
    database = Database()
    database.is_there = True
    asking = asyncio.create_task(database.instead())
    for _ in range(20):  # turns of the loop, in which all patience has ended
        await asyncio.sleep(0)
    assert not asking.done()
    database.answer.set_result(None)
    assert await asking is None
    assert database.reads == 0


async def test_where_nothing_may_be_served_by_the_database_is_waited_for() -> None:
    database, loop = Database(), asyncio.get_running_loop()

    def read_nothing() -> None:
        loop.call_soon_threadsafe(database.answer.set_result, None)

    assert await database.instead(read_nothing) is None
    assert not database.look.cancelled()


async def test_a_connection_that_came_up_while_the_disk_was_read_is_waited_for() -> None:
    database, loop = Database(), asyncio.get_running_loop()

    def read() -> Kept:
        database.is_there = True
        loop.call_soon_threadsafe(loop.call_soon, database.answer.set_result, None)
        return KEPT

    assert await database.instead(read) is None


async def test_what_is_no_matter_of_the_database_is_raised() -> None:
    database = Database()
    database.answer.set_exception(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        await database.instead()
