"""A migration that meets a table in use, and what older code makes of a newer schema."""

import shutil
import threading
import time

import pytest

from app.db import migrate
from app.db.engine import connect, run_blocking
from app.errors import Unavailable
from app.supervisor import revision
from app.supervisor.revision import Standing
from tests.support.database import execute

pytestmark = pytest.mark.integration

ADDITIVE = """
from alembic import op
revision = "9999"
down_revision = {head!r}
branch_labels = depends_on = None
{more}
def upgrade():
    op.execute("alter table models add column rolled integer not null default 0")
def downgrade():
    op.execute("alter table models drop column rolled")
"""


@pytest.fixture
def newer(tmp_path, monkeypatch):
    """Makes this process's migrations those of the next version, which adds a column; `more` is Python of that migration."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def make(more=""):
        head = revision.newest_revision()
        (folder / "versions" / "9999_next.py").write_text(ADDITIVE.format(head=head, more=more))
        monkeypatch.setattr(migrate, "MIGRATIONS", folder)
        return head

    return make


def standing(url):
    return run_blocking(revision.standing(url))


def test_a_database_stands_behind_and_then_is_current(empty_database_urls):
    owner = empty_database_urls.owner
    assert standing(owner) is Standing.BEHIND
    migrate.upgrade(owner, "0001")
    assert standing(owner) is Standing.BEHIND
    migrate.upgrade(owner)
    assert standing(owner) is Standing.CURRENT


def test_what_a_newer_version_only_added_to_is_served_by_this_one(database_urls, newer):
    head = newer(f"oldest_code = {revision.newest_revision()!r}")
    migrate.upgrade(database_urls.owner)
    assert execute(database_urls.owner, "select obj_description('alembic_version'::regclass)")[0][0] == f"oldest code: {head}"
    assert standing(database_urls.owner) is Standing.AHEAD


def test_what_a_newer_version_took_something_away_from_is_not(database_urls, newer):
    newer()
    migrate.upgrade(database_urls.owner)
    assert standing(database_urls.owner) is Standing.FOREIGN


def test_a_migration_waits_for_a_table_in_moments_between_which_everybody_else_gets_in(database_urls, newer):
    newer()
    said = []
    tried = threading.Event()

    def say(line):
        said.append(line)
        tried.set()

    async def meanwhile():
        reader = await connect(database_urls.owner)
        await reader.execute("begin; select count(*) from models")
        try:
            thread.start()
            assert tried.wait(30)
            other = await connect(database_urls.owner)
            began = time.monotonic()
            for _ in range(5):
                await other.execute("select count(*) from models")
            waited_s = time.monotonic() - began
            await other.close()
        finally:
            await reader.execute("commit")
            await reader.close()
        return waited_s

    thread = threading.Thread(target=migrate.upgrade, args=(database_urls.owner,), kwargs={"say": say})
    assert run_blocking(meanwhile()) < 30.0
    thread.join(60)
    assert said[0] == "migration 9999, up: None" or "in use" in said[0]
    assert any("a table is in use: trying again" in line for line in said)
    assert migrate.current(database_urls.owner) == "9999"


def test_a_table_that_stays_in_use_is_told(database_urls, newer, monkeypatch):
    newer()
    monkeypatch.setattr(migrate, "_TRY_FOR_S", 0.0)

    async def hold():
        reader = await connect(database_urls.owner)
        await reader.execute("begin; select count(*) from models")
        try:
            with pytest.raises(Unavailable, match="A table stayed in use"):
                migrate.upgrade(database_urls.owner)
        finally:
            await reader.close()

    run_blocking(hold())
    assert standing(database_urls.owner) is Standing.CURRENT
