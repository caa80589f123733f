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
from app.errors import Unavailable
from app.registry.rows import ModelRow
from tests.support.database import DatabaseUrls, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

pytestmark = pytest.mark.integration

MODELS = Statement(select(ModelRow.name, ModelRow.fallback).where(ModelRow.task == bindparam("task")).order_by(ModelRow.name))
SLEEP = Statement(text("select pg_sleep(30) as slept").columns(column("slept")))
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
    async with database.tenant_tx(make_tenant(database_urls, "shop")) as session:
        assert await MODELS.rows(session, task="REGRESSION") == []


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
