"""One history: up from empty, down to nothing, and equal to the models."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from app.audit.rows import AuditEntryRow
from app.db import migrate
from app.db.base import Base, refer_to_tenants
from app.db.engine import run_blocking
from app.db.owner import owner_tx
from app.errors import ConfigurationError
from app.journal.rows import PredictionRow
from app.registry.rows import ModelRow
from app.tenancy.rows import TenantRow
from tests.support.database import DatabaseUrls, execute

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

pytestmark = pytest.mark.integration

ALL_ROWS = (AuditEntryRow, PredictionRow, ModelRow, TenantRow)  # imported: the metadata knows every table
OBJECTS = """
    select 'relation ' || relname from pg_class
    where relnamespace = 'public'::regnamespace and relname not like 'alembic_version%'
    union all select 'function ' || proname from pg_proc where pronamespace = 'public'::regnamespace
    union all select 'type ' || typname from pg_type where typnamespace = 'public'::regnamespace and typname not like '%alembic_version'
    order by 1"""
# Everything that a table is made of, as PostgreSQL itself words it.
SHAPE = """
    select c.relname || ' column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
           || case when a.attnotnull then ' not null' else '' end || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'alembic_version'
    union all
    select r.conrelid::regclass || ' constraint ' || r.conname || ' ' || pg_get_constraintdef(r.oid) from pg_constraint r
    where r.connamespace = 'public'::regnamespace and r.conrelid <> 0 and r.conname !~ '^alembic'
    union all
    select indexdef from pg_indexes where schemaname = 'public' and tablename <> 'alembic_version'
    union all
    select c.relname || ' partitioned ' || pg_get_partkeydef(c.oid) from pg_class c
    where c.relkind = 'p' and c.relnamespace = 'public'::regnamespace
    order by 1"""


def words(url: str, query: str) -> list[str]:
    return [row[0] for row in execute(url, query)]


def test_the_history_goes_up_from_empty_down_to_nothing_and_up_again(empty_database_urls: DatabaseUrls) -> None:
    owner, said = empty_database_urls.owner, []
    assert migrate.current(owner) is None
    assert words(owner, OBJECTS) == []
    migrate.upgrade(owner, say=said.append)
    assert migrate.is_current(owner)
    first = words(owner, OBJECTS)
    assert "relation predictions" in first
    migrate.downgrade(owner, "base", said.append)
    assert (migrate.current(owner), words(owner, OBJECTS)) == (None, [])
    migrate.upgrade(owner)
    assert words(owner, OBJECTS) == first
    assert [text.split(":")[0] for text in said] == [
        "migration 0001, up",
        "migration 0002, up",
        "migration 0003, up",
        "migration 0004, up",
        "migration 0005, up",
        "migration 0006, up",
        "migration 0006, down",
        "migration 0005, down",
        "migration 0004, down",
        "migration 0003, down",
        "migration 0002, down",
        "migration 0001, down",
    ]


def test_migrating_a_current_database_changes_nothing(database_urls: DatabaseUrls) -> None:
    said: list[str] = []
    migrate.upgrade(database_urls.owner, say=said.append)
    assert said == []


def test_the_models_are_what_the_migrations_make_as_alembic_sees_it(database_urls: DatabaseUrls) -> None:
    async def differences() -> list[Any]:
        async with owner_tx(database_urls.owner) as connection:
            return await connection.run_sync(_differences)

    assert run_blocking(differences()) == []


def test_the_models_are_what_the_migrations_make_to_the_letter(database_urls: DatabaseUrls, empty_database_urls: DatabaseUrls) -> None:
    async def create() -> None:
        refer_to_tenants(Base.metadata)
        async with owner_tx(empty_database_urls.owner) as connection:
            await connection.run_sync(Base.metadata.create_all)

    run_blocking(create())
    assert words(empty_database_urls.superuser, SHAPE) == words(database_urls.superuser, SHAPE)


def test_chunks_and_graphs_are_stored_uncompressed_outside_their_row(database_urls: DatabaseUrls) -> None:
    storage = """
        select attstorage::text from pg_attribute
        where attrelid in ('artifact_chunks'::regclass, 'compiled_models'::regclass) and attname = 'data'"""
    assert words(database_urls.owner, storage) == ["e", "e"]


def test_two_starters_migrate_one_after_the_other(empty_database_urls: DatabaseUrls) -> None:
    program = "import sys; from app.db import migrate; migrate.upgrade(sys.argv[1], say=print)"
    both = [
        subprocess.Popen([sys.executable, "-c", program, empty_database_urls.owner], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert [text.count("migration 0001") for text in said] == [0, 1]


def test_migrations_are_found_from_any_working_directory(empty_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    program = "import sys; from app.db import migrate; migrate.upgrade(sys.argv[1]); print(migrate.is_current(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-c", program, empty_database_urls.owner],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "True\n"


def test_an_owner_who_may_not_make_tables_is_told_what_it_needs(empty_database_urls: DatabaseUrls) -> None:
    with pytest.raises(ConfigurationError, match="must own the database, or have CREATE on its schema public"):
        migrate.upgrade(empty_database_urls.runtime)


def test_a_login_that_is_refused_is_told_without_the_password(database_urls: DatabaseUrls) -> None:
    wrong = database_urls.owner.replace("turnout_owner:", "turnout_owner:wrong")
    with pytest.raises(ConfigurationError, match="refuses the login") as caught:
        migrate.upgrade(wrong)
    assert "wrong" not in str(caught.value)


def test_rows_that_break_a_rule_are_refused(database_urls: DatabaseUrls) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="ck_routing_generation_singleton"):
        execute(database_urls.superuser, "insert into routing_generation values (false, 1)")


def _differences(connection: Connection) -> list[Any]:
    refer_to_tenants(Base.metadata)
    context = MigrationContext.configure(connection, opts={"compare_server_default": True, "compare_type": True})
    return list(compare_metadata(context, Base.metadata))
