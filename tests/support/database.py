"""A real PostgreSQL for tests: one server a test process, one migrated template, a fresh clone of it for each test that asks.

async def test_something(database_urls: DatabaseUrls) -> None:
    clinic = make_tenant(database_urls, "clinic")
    database = Database(database_urls.runtime)
    ...
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.db import migrate
from app.db.embedded.server import EmbeddedPostgres
from app.db.engine import run_blocking
from app.db.privileges import DatabaseRole

if TYPE_CHECKING:
    from collections.abc import Iterator

# A test's database need not outlive the power supply.
SPEEDY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB", "autovacuum": "off"}
_TEMPLATE = "turnout"
_ROOMY_BYTES = 1024**3
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """URLs of one database, a role each; `superuser` is for planting what no role of ours could."""

    owner: str
    runtime: str
    log: str
    sync: str
    superuser: str


@contextmanager
def temporary_server() -> Iterator[EmbeddedPostgres]:
    """A running server with the four roles and the empty database `turnout`."""
    home = Path(tempfile.mkdtemp(prefix="turnout-test-", dir=_fast_folder()))
    home.chmod(0o711)  # so that root's server, which runs as another user, may lie here
    server = EmbeddedPostgres(home, SPEEDY)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[EmbeddedPostgres]:
    """A running server whose database `turnout` is migrated; tests leave that one alone and take clones."""
    with temporary_server() as server:
        migrate.upgrade(server.url(DatabaseRole.OWNER, _TEMPLATE))
        yield server


@pytest.fixture
def database_urls(embedded_postgres: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    """A fresh, migrated database without rows, gone after the test."""
    with_name = f"clone_{next(_numbers)}"
    execute(
        embedded_postgres._superuser_url(),
        f"create database {with_name} template {_TEMPLATE} owner {DatabaseRole.OWNER} strategy file_copy",
    )
    yield urls_of(embedded_postgres, with_name)
    execute(embedded_postgres._superuser_url(), f"drop database {with_name} with (force)")


@pytest.fixture
def empty_database_urls(embedded_postgres: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    """A fresh database with nothing in it, gone after the test."""
    with_name = f"empty_{next(_numbers)}"
    execute(embedded_postgres._superuser_url(), f"create database {with_name} owner {DatabaseRole.OWNER}")
    yield urls_of(embedded_postgres, with_name)
    execute(embedded_postgres._superuser_url(), f"drop database {with_name} with (force)")


def remove_home(home: Path) -> None:
    """Removes a TURNOUT_HOME whose server is stopped, and the data that root's server keeps elsewhere because of it."""
    pointer = home / "pg" / "location"
    store = Path(pointer.read_text().strip()) if pointer.exists() else home
    if not store.is_relative_to(home):
        shutil.rmtree(store, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def _fast_folder() -> str | None:
    """Memory, where there is plenty: a clone takes 0.02 s there and 0.3 s on a common disk. None: the system's choice."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free > _ROOMY_BYTES
    return str(memory) if roomy else None


def urls_of(server: EmbeddedPostgres, database: str) -> DatabaseUrls:
    return DatabaseUrls(
        owner=server.url(DatabaseRole.OWNER, database),
        runtime=server.url(DatabaseRole.RUNTIME, database),
        log=server.url(DatabaseRole.LOG, database),
        sync=server.url(DatabaseRole.SYNC, database),
        superuser=server._superuser_url(database),
    )


def make_tenant(urls: DatabaseUrls, slug: str, **columns: Any) -> UUID:
    """The tenant_id of a new tenant; `columns` over the defaults. For tests with and without an event loop."""
    tenant_id = uuid4()
    values = {"tenant_id": tenant_id, "id": slug, "name": slug.title(), "wrapped_secret": secrets.token_bytes(60), **columns}
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    execute(urls.runtime, f"insert into tenants ({', '.join(values)}) values ({places})", *values.values(), tenant_id=tenant_id)
    return tenant_id


def execute(url: str, statement: str, *arguments: Any, tenant_id: UUID | None = None) -> list[Any]:
    """The rows of one statement; with `tenant_id` in a transaction that names it."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            if tenant_id is None:
                return list(await connection.fetch(statement, *arguments))
            async with connection.transaction():
                await connection.execute("select set_config('app.tenant_id', $1, true)", str(tenant_id))
                return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    return run_blocking(run())
