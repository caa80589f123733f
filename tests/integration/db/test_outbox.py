"""Generations are handed out in the order of commits, so a reader that has seen one has seen all before it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.db.engine import Timeouts, connect
from app.db.outbox import CHANNEL, announce, changed_tenants, is_told, news, trim
from app.db.owner import owner_tx
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.db.together import Together
from tests.support.database import DatabaseUrls, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

pytestmark = pytest.mark.integration


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    database = Database(database_urls.runtime, Timeouts(lock_s=10.0, statement_s=10.0, command_s=12.0, pool_s=30.0))
    yield database
    await database.close()


@pytest.fixture
async def sync(database_urls: DatabaseUrls) -> AsyncIterator[SyncDatabase]:
    sync = SyncDatabase(database_urls.sync)
    yield sync
    await sync.close()


async def change(database: Database, tenant_id: UUID) -> int:
    async with database.tenant_tx(tenant_id) as session:
        return await announce(session, tenant_id)


CHANGES = Together({"news": news(), "changed": changed_tenants()})


async def since(sync: SyncDatabase, generation: int) -> tuple[int, set[UUID] | None]:
    """The newest generation, and who changed; None where the outbox does not tell all."""
    async with sync.driver_connection() as connection:
        rows = await CHANGES.read(connection, since=generation)
    ((newest, told),) = rows["news"]
    return newest, {row.tenant_id for row in rows["changed"]} if is_told(newest, told, generation) else None


async def test_a_reader_hears_who_changed_since_its_generation(database: Database, sync: SyncDatabase) -> None:
    clinic, shop = uuid4(), uuid4()
    assert await since(sync, 0) == (0, set())
    assert await change(database, clinic) == 1
    assert await change(database, shop) == 2
    assert await change(database, shop) == 3
    assert await since(sync, 0) == (3, {clinic, shop})
    assert await since(sync, 1) == (3, {shop})
    assert await since(sync, 3) == (3, set())


async def test_a_transaction_that_rolls_back_announces_nothing_and_leaves_no_gap(database: Database, sync: SyncDatabase) -> None:
    clinic = uuid4()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  the block is the promise
        async with database.tenant_tx(clinic) as session:
            await announce(session, clinic)
            _ = 1 / 0
    assert await since(sync, 0) == (0, set())
    assert await change(database, clinic) == 1


async def test_listeners_hear_the_generation_and_nothing_else_at_the_commit(database: Database, database_urls: DatabaseUrls) -> None:
    tenant_id = uuid4()
    heard: asyncio.Queue[object] = asyncio.Queue()
    listener = await connect(database_urls.sync)
    await listener.add_listener(CHANNEL, lambda *told: heard.put_nowait(told[3]))
    try:
        async with database.tenant_tx(tenant_id) as session:
            await announce(session, tenant_id)
            await listener.fetchval("select 1")  # whatever was sent before this answer has been heard
            assert heard.empty()
        assert await heard.get() == "1"
    finally:
        await listener.close()


async def test_generations_are_in_the_order_of_commits(database: Database, sync: SyncDatabase) -> None:
    """The second announcer waits until the first one has committed: never is the later generation visible before the earlier."""
    first, second = uuid4(), uuid4()
    async with database.tenant_tx(first) as session:
        assert await announce(session, first) == 1
        waiting = asyncio.create_task(change(database, second))
        while not await _waits_for_a_lock(database):
            pass  # the question itself lets the other one run
        assert await since(sync, 0) == (0, set())
        assert not waiting.done()
    assert await waiting == 2
    assert await since(sync, 0) == (2, {first, second})


async def test_a_reader_misses_nothing_while_many_announce(database: Database, sync: SyncDatabase) -> None:
    tenants = [uuid4() for _ in range(60)]
    writers = asyncio.gather(*(change(database, tenant_id) for tenant_id in tenants))
    seen: set[UUID] = set()
    generation = 0
    while generation < len(tenants):
        newest, changed = await since(sync, generation)
        assert changed is not None
        assert len(changed) == newest - generation
        seen |= changed
        generation = newest
    assert sorted(await writers) == list(range(1, 61))
    assert seen == set(tenants)


async def test_a_reader_too_far_behind_the_trimmed_outbox_hears_that_it_is(
    database: Database, sync: SyncDatabase, database_urls: DatabaseUrls
) -> None:
    clinic = make_tenant(database_urls, "clinic")
    for _ in range(3):
        await change(database, clinic)
    async with owner_tx(database_urls.owner) as connection:
        assert await trim(connection, keep=1) == 2
    assert await since(sync, 2) == (3, {clinic})
    assert await since(sync, 1) == (3, None)
    assert await since(sync, 9) == (3, None)  # a database restored to an older state


async def test_the_sync_connection_reads_one_state(sync: SyncDatabase, database_urls: DatabaseUrls) -> None:
    count = text("select count(id) from tenants")
    async with sync.connection() as connection:
        assert (await connection.execute(count)).scalar() == 0
        make_tenant(database_urls, "clinic")
        assert (await connection.execute(count)).scalar() == 0
    async with sync.connection() as connection:
        assert (await connection.execute(count)).scalar() == 1


async def test_the_sync_connection_is_read_only_whatever_the_role_may(sync: SyncDatabase) -> None:
    async with sync.connection() as connection:
        assert (await connection.execute(text("show transaction_read_only"))).scalar() == "on"


async def _waits_for_a_lock(database: Database) -> bool:
    async with database.tenant_tx(uuid4()) as session:
        return bool(await session.scalar(text("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")))
