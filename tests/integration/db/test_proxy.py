"""The proxy that other tests break connections with does what it says: else they would prove nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.database import execute
from tests.support.proxy import Cut, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
TABLE = "create table if not exists kept (n int)"


@pytest.fixture
def proxy(database_urls: DatabaseUrls) -> Iterator[Proxy]:
    execute(database_urls.superuser, TABLE)
    with Proxy.of_database(database_urls.superuser) as proxy:
        yield proxy


async def _insert(url: str, *, also_reads: bool = False) -> None:
    connection = await asyncpg.connect(url)
    try:
        if also_reads:
            async with connection.transaction():
                await connection.fetch("select n from kept")
        async with connection.transaction():
            await connection.execute("insert into kept values ($1)", 1)
    finally:
        connection.terminate()


@pytest.mark.parametrize(("cut", "kept"), [(Cut.BEFORE, 0), (Cut.AFTER, 1)])
async def test_a_commit_is_cut_before_or_after_it_was_done_and_only_that_one(
    proxy: Proxy, database_urls: DatabaseUrls, cut: Cut, kept: int
) -> None:
    url = proxy.url(database_urls.superuser)
    proxy.cut_at("COMMIT", cut)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await _insert(url)
    assert execute(database_urls.superuser, "select count(*) from kept") == [(kept,)]
    await _insert(url)

    assert execute(database_urls.superuser, "select count(*) from kept") == [(kept + 1,)]
    assert proxy.cuts == 1


async def test_the_commit_of_a_transaction_that_said_something_is_told_from_others(proxy: Proxy, database_urls: DatabaseUrls) -> None:
    url = proxy.url(database_urls.superuser)
    proxy.cut_at("commit", Cut.AFTER, having="INSERT into kept")
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await _insert(url, also_reads=True)

    assert execute(database_urls.superuser, "select count(*) from kept") == [(1,)]


@pytest.mark.parametrize(("cut", "kept"), [(Cut.BEFORE, 1), (Cut.AFTER, 2)])
async def test_a_statement_that_was_prepared_before_is_cut_when_it_is_run(
    proxy: Proxy, database_urls: DatabaseUrls, cut: Cut, kept: int
) -> None:
    connection = await asyncpg.connect(proxy.url(database_urls.superuser))
    statement = await connection.prepare("insert into kept values ($1)")
    await statement.fetch(1)
    proxy.cut_at("into kept", cut)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await statement.fetch(2)
    connection.terminate()

    assert execute(database_urls.superuser, "select count(*) from kept") == [(kept,)]


async def test_frozen_means_that_nothing_is_heard_until_it_thaws(proxy: Proxy, database_urls: DatabaseUrls) -> None:
    connection = await asyncpg.connect(proxy.url(database_urls.superuser))
    proxy.freeze()
    asked = asyncio.ensure_future(connection.fetchval("select 7"))
    assert await asyncio.wait([asked], timeout=0.2) == (set(), {asked})
    proxy.thaw()

    assert await asked == 7
    await connection.close()


async def test_cut_and_refused_connections_are_errors_and_later_ones_work(proxy: Proxy, database_urls: DatabaseUrls) -> None:
    url = proxy.url(database_urls.superuser)
    connection = await asyncpg.connect(url)
    proxy.refuse()
    proxy.cut()
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("select 7")
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await asyncpg.connect(url)
    proxy.accept()
    connection = await asyncpg.connect(url)

    assert await connection.fetchval("select 7") == 7
    await connection.close()
    assert proxy.connections == 3
