"""The journal as it runs: writers that die, a drain that dies, a database that goes away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.db import migrate
from app.db.embedded.server import EmbeddedPostgres
from app.db.engine import run_blocking
from app.db.privileges import DatabaseRole
from app.journal.depth import read_depth
from app.journal.layout import pending_bytes, writer_folders
from app.journal.partitions import ensure_partitions
from app.kernel.clock import SystemClock
from app.supervisor.tending import Tender
from tests.integration.journal.processes import drain, eventually, ids_of, killed, logged, until, writer
from tests.support.database import SPEEDY, execute, make_tenant, urls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
CLOCK = SystemClock()


@pytest.fixture
def urls(database_urls: DatabaseUrls) -> DatabaseUrls:
    run_blocking(ensure_partitions(database_urls.owner, CLOCK, days_ahead=1))
    return database_urls


@pytest.mark.parametrize("durability", ["DURABLE", "DURABLE_FSYNC"])
def test_writers_killed_under_load_lose_nothing_that_they_acknowledged_and_nothing_else_appears(
    tmp_path: Path, urls: DatabaseUrls, durability: str
) -> None:
    tenant_id = make_tenant(urls, "clinic")
    lines: list[str] = []
    with drain(tmp_path, urls) as draining:
        for _ in range(3):
            with ExitStack() as stack:
                writers = [stack.enter_context(writer(tmp_path, tenant_id, durability)) for _ in range(2)]
                for running in writers:
                    lines += until(running, 150)
                for running in writers:
                    lines += killed(running)
        draining.send_signal(signal.SIGTERM)
        said = draining.communicate()[1]
        assert draining.returncode == 0, said
    found = logged(urls, tenant_id)

    assert ids_of(lines, "ok") - set(found) == set()
    assert set(found) - ids_of(lines, "try") == set()
    assert len(found) == len(set(found))
    assert writer_folders(tmp_path / "spool") == []


def test_a_drain_killed_at_any_moment_leaves_each_record_once(tmp_path: Path, urls: DatabaseUrls) -> None:
    tenant_id = make_tenant(urls, "clinic")
    with writer(tmp_path, tenant_id, "DURABLE") as running:
        lines = until(running, 100)
        for rows in (1, 500, 900):
            with drain(tmp_path, urls) as draining:
                eventually(lambda rows=rows: len(logged(urls, tenant_id)) >= rows, draining)
                draining.kill()
            lines += until(running, 400)
        lines += killed(running)
    with drain(tmp_path, urls) as draining:
        eventually(lambda: pending_bytes(tmp_path / "spool") == 0, draining)
    found = logged(urls, tenant_id)

    assert ids_of(lines, "ok") <= set(found) <= ids_of(lines, "try")
    assert len(found) == len(set(found))


def test_a_full_disk_refuses_and_every_refused_record_is_missing_and_every_other_there(tmp_path: Path, urls: DatabaseUrls) -> None:
    tenant_id = make_tenant(urls, "clinic")
    with writer(tmp_path, tenant_id, "DURABLE", "20001") as running:
        lines = running.communicate(timeout=60)[0].splitlines()
        assert running.returncode == 0
    with drain(tmp_path, urls) as draining:
        eventually(lambda: pending_bytes(tmp_path / "spool") == 0, draining)

    assert len(ids_of(lines, "refused")) == 4
    assert set(logged(urls, tenant_id)) == ids_of(lines, "ok") == ids_of(lines, "try") - ids_of(lines, "refused")


def test_a_second_drain_of_the_machine_refuses_to_start(tmp_path: Path, urls: DatabaseUrls) -> None:
    with drain(tmp_path, urls) as first:
        eventually(lambda: read_depth(tmp_path / "spool", CLOCK).drain_age_s is not None, first)
        with drain(tmp_path, urls) as second:
            said = second.communicate(timeout=60)[1]
        assert second.returncode == 2
        assert "one a machine" in json.loads(said.splitlines()[-1])["reason"]
        assert first.poll() is None


def test_a_drain_without_a_url_says_which_variable_it_needs(tmp_path: Path, urls: DatabaseUrls) -> None:
    import dataclasses

    with drain(tmp_path, dataclasses.replace(urls, log="")) as refused:
        said = refused.communicate(timeout=60)[1]
    assert refused.returncode == 2
    assert "TURNOUT_DATABASE_LOG_URL" in said


def test_a_partition_that_somebody_dropped_is_no_error_and_is_made_again_when_the_drain_asks_for_it(
    tmp_path: Path, urls: DatabaseUrls
) -> None:
    tenant_id = make_tenant(urls, "clinic")
    spool, tender = tmp_path / "spool", Tender(urls.owner, tmp_path, CLOCK)
    execute(urls.owner, f"drop table predictions_{CLOCK.now():%Y%m%d}")
    with drain(tmp_path, urls) as draining, writer(tmp_path, tenant_id, "DURABLE") as running:
        lines = until(running, 200)
        eventually(lambda: read_depth(spool, CLOCK).waiting_for == "the partition of today", draining)
        assert read_depth(spool, CLOCK).readings()["turnout_journal_drain_stalled"] == 1.0
        lines += until(running, 200)
        lines += killed(running)
        eventually(lambda: bool(tender.tend() or pending_bytes(spool) == 0), draining)
    tender.close()
    found = logged(urls, tenant_id)

    assert ids_of(lines, "refused") == set()
    assert ids_of(lines, "ok") <= set(found) <= ids_of(lines, "try")
    assert len(found) == len(set(found))


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop."""
    home = Path(tempfile.mkdtemp(prefix="turnout-test-"))
    home.chmod(0o711)
    server = EmbeddedPostgres(home, SPEEDY | {"fsync": "on"})
    server.start()
    migrate.upgrade(server.url(DatabaseRole.OWNER, "turnout"))
    yield server
    server.stop()
    shutil.rmtree(home)


def test_postgres_away_and_back_loses_nothing_and_is_said_once(tmp_path: Path, own_server: EmbeddedPostgres) -> None:
    urls = urls_of(own_server, "turnout")
    run_blocking(ensure_partitions(urls.owner, CLOCK, days_ahead=1))
    tenant_id = make_tenant(urls, "clinic")
    spool = tmp_path / "spool"
    with drain(tmp_path, urls) as draining, writer(tmp_path, tenant_id, "DURABLE") as running:
        lines = until(running, 50)
        eventually(lambda: len(logged(urls, tenant_id)) > 0, draining)
        own_server.stop()
        lines += until(running, 200)
        eventually(lambda: read_depth(spool, CLOCK).waiting_for is not None, draining)
        assert read_depth(spool, CLOCK).bytes > 0
        own_server.start()
        lines += killed(running)
        eventually(lambda: pending_bytes(spool) == 0, draining)
        draining.send_signal(signal.SIGTERM)
        said = [json.loads(line) for line in draining.communicate()[1].splitlines()]
    found = logged(urls, tenant_id)

    assert ids_of(lines, "ok") <= set(found) <= ids_of(lines, "try")
    assert len(found) == len(set(found))
    assert [line["event"] for line in said].count("journal.drain_resumed") == 1
    assert all(line["process"] == "drain" for line in said)


def test_a_drain_that_cannot_empty_the_spool_says_so_loudly(tmp_path: Path, urls: DatabaseUrls) -> None:
    import dataclasses

    tenant_id = make_tenant(urls, "clinic")
    with writer(tmp_path, tenant_id, "DURABLE") as running:
        until(running, 5)
    nowhere = dataclasses.replace(urls, log=urls.log.replace("port=", "port=1"))
    with drain(tmp_path, nowhere) as draining:
        eventually(lambda: read_depth(tmp_path / "spool", CLOCK).waiting_for is not None, draining)
        os.kill(draining.pid, signal.SIGTERM)
        said = [json.loads(line) for line in draining.communicate(timeout=60)[1].splitlines()]

    assert draining.returncode == 1
    assert said[-1]["event"] == "journal.not_emptied"
    assert said[-1]["level"] == "error"
    assert said[-1]["size_bytes"] == pending_bytes(tmp_path / "spool") > 0
