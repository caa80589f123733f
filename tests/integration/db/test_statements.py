"""A statement that goes to the driver belongs to the session's transaction all the same: its tenant, its writes, its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import bindparam, column, select, text

from app.db.base import Jsonb
from app.db.engine import Timeouts
from app.db.session import Database
from app.db.statement import Statement
from app.errors import NotFound, Unavailable
from app.registry.rows import ModelRow
from app.registry.standing import standing
from tests.support.database import DatabaseUrls, execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

pytestmark = pytest.mark.integration

MODELS = Statement(select(ModelRow.name, ModelRow.fallback).where(ModelRow.task == bindparam("task")).order_by(ModelRow.name))
SLEEP = Statement(text("select pg_sleep(30) as slept").columns(column("slept")))
ALIVE = "select pid from pg_stat_activity where usename = 'turnout_runtime' and datname = current_database()"
WHO = Statement(text("select pg_backend_pid() as pid").columns(column("pid")))


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    database = Database(database_urls.runtime, pool_size=1, max_overflow=0)
    yield database
    await database.close()


@pytest.fixture
def clinic(database_urls: DatabaseUrls) -> UUID:
    return make_tenant(database_urls, "clinic")


def model(tenant_id: UUID, name: str, fallback: object = None) -> ModelRow:
    return ModelRow(tenant_id=tenant_id, model_id=uuid4(), name=name, folded_name=name, task="REGRESSION", fallback=fallback)


async def test_rows_have_the_names_of_their_columns_and_the_sessions_writes_among_them(database: Database, clinic: UUID) -> None:
    async with database.tenant_tx(clinic) as session:
        session.add(model(clinic, "price", {"kind": "FIXED", "value": 3}))
        session.add(model(clinic, "risk"))
        rows = await MODELS.rows(session, task="REGRESSION")
        assert [(row.name, row.fallback) for row in rows] == [("price", {"kind": "FIXED", "value": 3}), ("risk", None)]
        assert await MODELS.row(session, task="CLASSIFICATION") is None
        with pytest.raises(ValueError, match="2 rows"):
            await MODELS.row(session, task="REGRESSION")


async def test_a_document_is_written_as_json_and_none_as_null(database: Database, clinic: UUID) -> None:
    put = Statement(text("update models set fallback = :fallback").bindparams(bindparam("fallback", type_=Jsonb)))
    async with database.tenant_tx(clinic) as session:
        session.add(model(clinic, "risk"))
        assert await put.rows(session, fallback={"é": [1, None]}) == []
        assert (await MODELS.row(session, task="REGRESSION")).fallback == {"é": [1, None]}
        await put.rows(session, fallback=None)
        assert await session.scalar(text("select fallback is null from models"))


async def test_another_tenants_rows_are_not_there(database: Database, database_urls: DatabaseUrls, clinic: UUID) -> None:
    async with database.tenant_tx(clinic) as session:
        session.add(model(clinic, "risk"))
    shop = make_tenant(database_urls, "shop")
    async with database.tenant_tx(shop) as session:
        assert await MODELS.rows(session, task="REGRESSION") == []
    for tenant_id, names in ((clinic, ["risk"]), (shop, [])):
        async with database.tenant_read(tenant_id) as reading:
            assert [row.name for row in await MODELS.rows(reading, task="REGRESSION")] == names
    async with database._engine.connect() as connection:  # the same, only connection of the pool
        assert (await connection.execute(text("select count(*) from models"))).scalar() == 0


async def test_what_it_wrote_goes_with_the_transaction(database: Database, clinic: UUID) -> None:
    rename = Statement(text("update models set name = :name"))
    async with database.tenant_tx(clinic) as session:
        session.add(model(clinic, "risk"))
    with pytest.raises(asyncpg.PostgresError, match="null value"):  # noqa: PT012  the block is the promise
        async with database.tenant_tx(clinic) as session:
            await rename.rows(session, name="price")
            await rename.rows(session, name=None)
    async with database.tenant_tx(clinic) as session:
        assert (await MODELS.row(session, task="REGRESSION")).name == "risk"


async def test_one_that_the_server_cuts_off_is_unavailable(database_urls: DatabaseUrls) -> None:
    database = Database(database_urls.runtime, Timeouts(statement_s=0.05))
    try:
        with pytest.raises(Unavailable):
            async with database.tenant_tx(uuid4()) as session:
                await SLEEP.rows(session)
    finally:
        await database.close()


async def test_a_connection_that_does_not_answer_in_time_is_cut_and_its_caller_waits_no_longer(database_urls: DatabaseUrls) -> None:
    database = Database(database_urls.runtime, Timeouts(command_s=0.1), pool_size=1, max_overflow=0)
    try:
        with pytest.raises(Unavailable):  # noqa: PT012  the block is the promise
            async with database.tenant_tx(uuid4()) as session:
                before = (await WHO.row(session)).pid
                await SLEEP.rows(session)
        async with database.tenant_tx(uuid4()) as session:
            assert (await WHO.row(session)).pid != before
    finally:
        await database.close()


async def test_one_that_is_given_up_leaves_no_connection_with_half_an_answer(database: Database, clinic: UUID) -> None:
    begun = asyncio.Event()
    pids = []

    async def wait_long() -> None:
        async with database.tenant_tx(clinic) as session:
            pids.append((await WHO.row(session)).pid)
            begun.set()
            await SLEEP.rows(session)

    task = asyncio.create_task(wait_long())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.tenant_tx(clinic) as session:  # the pool has room for one
        assert (await WHO.row(session)).pid not in pids


async def test_a_reading_transaction_writes_nothing_and_ends_with_its_block(database: Database, clinic: UUID) -> None:
    async with database.tenant_tx(clinic) as session:
        session.add(model(clinic, "risk"))
    remove = Statement(text("delete from models"))
    with pytest.raises(Unavailable):  # as of a standby, which cannot be written to either
        async with database.tenant_read(clinic) as reading:
            await remove.rows(reading)
    with pytest.raises(ZeroDivisionError):
        async with database.tenant_read(clinic):
            _ = 1 / 0
    async with database.tenant_tx(clinic) as session:
        assert (await MODELS.row(session, task="REGRESSION")).name == "risk"


async def test_a_reading_transaction_without_a_tenant_does_not_begin(database: Database) -> None:
    with pytest.raises(TypeError, match="without a tenant"):
        async with database.tenant_read("5d7d9a4e-0000-4000-8000-000000000000"):  # type: ignore[arg-type]
            pass


async def readers_at_once(database: Database, tenant_id: UUID, count: int) -> set[int]:
    """By which processes of the server so many readers were served that were there at the same time."""
    together = asyncio.Barrier(count)

    async def read() -> int:
        async with database.tenant_read(tenant_id) as reading:
            await together.wait()
            return int((await WHO.row(reading)).pid)

    return set(await asyncio.gather(*(read() for _ in range(count))))


async def test_more_readers_than_the_pool_keeps_are_served_and_leave(database_urls: DatabaseUrls, clinic: UUID) -> None:
    database = Database(database_urls.runtime, pool_size=1, max_overflow=2)
    try:
        assert len(await readers_at_once(database, clinic, 3)) == 3
        assert database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert len(execute(database_urls.superuser, ALIVE)) == 1
    finally:
        await database.close()


@pytest.mark.parametrize("how", ["late", "given up"])
async def test_a_reader_that_does_not_wait_leaves_no_connection_with_half_an_answer(
    database_urls: DatabaseUrls, clinic: UUID, how: str
) -> None:
    database = Database(database_urls.runtime, Timeouts(command_s=0.1 if how == "late" else 5.0), pool_size=1, max_overflow=0)
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait_long() -> None:
        async with database.tenant_read(clinic) as reading:
            begun.set_result((await WHO.row(reading)).pid)
            await SLEEP.rows(reading)

    task = asyncio.create_task(wait_long())
    try:
        before = await begun
        if how == "late":
            with pytest.raises(Unavailable):
                await task
        else:
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with database.tenant_read(clinic) as reading:
            assert (await WHO.row(reading)).pid != before
    finally:
        await database.close()


async def test_a_reader_does_not_see_that_its_connection_died_in_the_pool(
    database: Database, database_urls: DatabaseUrls, clinic: UUID
) -> None:
    async with database.tenant_read(clinic) as reading:
        before = (await WHO.row(reading)).pid
    execute(database_urls.superuser, f"select pg_terminate_backend({before})")
    async with database.tenant_read(clinic) as reading:
        assert (await WHO.row(reading)).pid != before


async def test_a_reader_after_all_connections_of_the_pool_died_is_served_at_once(database_urls: DatabaseUrls, clinic: UUID) -> None:
    database = Database(database_urls.runtime, pool_size=5, max_overflow=0)
    try:
        before = await readers_at_once(database, clinic, 5)
        assert len(before) == 5
        execute(database_urls.superuser, f"select pg_terminate_backend(pid, 5000) from unnest(array{sorted(before)}) pid")
        for _ in range(3):
            async with database.tenant_read(clinic) as reading:
                assert (await WHO.row(reading)).pid not in before
    finally:
        await database.close()


async def test_how_things_stand_with_a_model_that_went_away_meanwhile_is_not_found(database: Database, clinic: UUID) -> None:
    async with database.tenant_tx(clinic) as session:
        with pytest.raises(NotFound):
            await standing(session, model(clinic, "risk"), "production", 1)
