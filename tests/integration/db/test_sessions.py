"""A tenant's transaction sees its own rows, others see none, and no setting leaks through the pool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker

from app.db.engine import Timeouts, violated_constraint
from app.db.session import Database, TenantSession
from app.errors import Unavailable
from app.registry.rows import ModelRow
from app.tenancy.rows import TenantRow
from tests.support.database import DatabaseUrls, execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

pytestmark = pytest.mark.integration


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    database = Database(database_urls.runtime, pool_size=1, max_overflow=0)
    yield database
    await database.close()


def model(tenant_id: UUID, name: str) -> ModelRow:
    return ModelRow(tenant_id=tenant_id, model_id=uuid4(), name=name, folded_name=name.title(), task="REGRESSION")


async def names(database: Database, tenant_id: UUID) -> list[str]:
    async with database.tenant_tx(tenant_id) as session:
        return list((await session.scalars(select(ModelRow.name).order_by(ModelRow.name))).all())


async def test_a_transaction_commits_at_exit_and_shows_only_its_tenants_rows(database: Database, database_urls: DatabaseUrls) -> None:
    clinic, shop = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "shop")
    for tenant_id, name in ((clinic, "risk"), (shop, "price")):
        async with database.tenant_tx(tenant_id) as session:
            session.add(model(tenant_id, name))
    assert await names(database, clinic) == ["risk"]
    assert await names(database, shop) == ["price"]


async def test_an_exception_rolls_back(database: Database, database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  the block is the promise
        async with database.tenant_tx(clinic) as session:
            session.add(model(clinic, "risk"))
            await session.flush()
            _ = 1 / 0
    assert await names(database, clinic) == []


async def test_another_tenants_row_cannot_be_written(database: Database, database_urls: DatabaseUrls) -> None:
    clinic, shop = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "shop")
    with pytest.raises(DBAPIError, match="row-level security"):
        async with database.tenant_tx(clinic) as session:
            session.add(model(shop, "planted"))
    assert await names(database, shop) == []


async def test_the_tenant_is_gone_from_the_connection_after_the_transaction(database: Database, database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    async with database.tenant_tx(clinic) as session:
        assert await session.scalar(select(TenantRow.id)) == "clinic"
    async with database._engine.connect() as connection:  # the same, only connection of the pool
        assert (await connection.execute(text("select count(*) from tenants"))).scalar() == 0


async def test_every_transaction_of_a_session_names_the_tenant(database: Database, database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    async with database._session(info={"tenant_id": clinic}) as session:
        for _ in range(3):
            assert await session.scalar(select(TenantRow.id)) == "clinic"
            await session.commit()
        async with session.begin_nested():
            assert await session.scalar(select(TenantRow.id)) == "clinic"


@pytest.mark.parametrize("info", [{}, {"tenant_id": None}, {"tenant_id": "5d7d9a4e-0000-4000-8000-000000000000"}])
async def test_a_session_without_a_tenant_sends_nothing(database: Database, info: dict[str, object]) -> None:
    factory = async_sessionmaker(database._engine, sync_session_class=TenantSession)
    async with factory(info=info) as session:
        with pytest.raises(TypeError, match="without a tenant"):
            await session.execute(text("select 1"))


async def test_a_statement_that_takes_too_long_is_unavailable_and_says_nothing_of_sql(database_urls: DatabaseUrls) -> None:
    database = Database(database_urls.runtime, Timeouts(statement_s=0.05))
    try:
        with pytest.raises(Unavailable) as caught:
            async with database.tenant_tx(uuid4()) as session:
                await session.execute(text("select pg_sleep(30)"))
        assert caught.value.message == "The database cannot answer right now. Try again."
        assert caught.value.details == {"retry_after_ms": 500}
    finally:
        await database.close()


async def test_a_row_locked_by_another_is_unavailable(database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    database = Database(database_urls.runtime, Timeouts(lock_s=0.05))
    lock = select(TenantRow).with_for_update()
    try:
        async with database.tenant_tx(clinic) as holder:
            await holder.execute(lock)
            with pytest.raises(Unavailable):
                async with database.tenant_tx(clinic) as session:
                    await session.execute(lock)
    finally:
        await database.close()


async def test_a_pool_that_is_used_up_is_unavailable(database_urls: DatabaseUrls) -> None:
    database = Database(database_urls.runtime, Timeouts(pool_s=0.05), pool_size=1, max_overflow=0)
    try:
        async with database.tenant_tx(uuid4()):
            with pytest.raises(Unavailable):
                async with database.tenant_tx(uuid4()):
                    pass
    finally:
        await database.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql://turnout_runtime:x@127.0.0.1:1/turnout")
    with pytest.raises(Unavailable):
        async with database.tenant_tx(uuid4()):
            pass
    await database.close()


async def test_a_connection_that_died_in_the_pool_is_replaced_unseen(database: Database, database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    assert await names(database, clinic) == []
    kill = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'turnout_runtime' and datname = current_database()"
    )
    assert execute(database_urls.superuser, kill)[0][0] == 1
    assert await names(database, clinic) == []


async def test_a_connection_killed_inside_a_transaction_is_unavailable(database: Database, database_urls: DatabaseUrls) -> None:
    with pytest.raises(Unavailable):  # noqa: PT012  the block is the promise
        async with database.tenant_tx(uuid4()) as session:
            pid = await session.scalar(text("select pg_backend_pid()"))
            execute(database_urls.superuser, f"select pg_terminate_backend({pid}, 5000)")
            await session.execute(text("select 1"))


async def test_a_broken_rule_reaches_the_room_with_the_constraints_name(database: Database, database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    with pytest.raises(IntegrityError) as caught:
        async with database.tenant_tx(clinic) as session:
            session.add_all([model(clinic, "risk"), model(clinic, "risk")])
    assert violated_constraint(caught.value) == "uq_models_tenant_id_name"
    assert "risk" not in str(caught.value).split("[SQL", 1)[1]


async def test_a_hundred_transactions_of_two_tenants_at_once_never_mix(database_urls: DatabaseUrls) -> None:
    tenants = {make_tenant(database_urls, slug): slug for slug in ("clinic", "shop")}
    database = Database(database_urls.runtime, Timeouts(pool_s=30.0), pool_size=2, max_overflow=1)

    async def who(tenant_id: UUID) -> tuple[str, list[str]]:
        async with database.tenant_tx(tenant_id) as session:
            return tenants[tenant_id], list((await session.scalars(select(TenantRow.id))).all())

    seen = await asyncio.gather(*(who(tenant_id) for tenant_id in list(tenants) * 50))
    await database.close()
    assert all(found == [slug] for slug, found in seen)
