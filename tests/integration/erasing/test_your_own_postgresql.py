"""A database that somebody else runs, whose owner the parent may not know: what waits there, who says so, and what sweeps it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from click.testing import CliRunner

from app.cli.doctor_database import database_findings
from app.cli.findings import Level
from app.cli.main import main
from app.db.engine import run_blocking
from app.errors import ConfigurationError
from app.journal.partitions import ensure_partitions
from app.kernel.clock import SystemClock
from app.settings import Settings
from app.supervisor.database import open_database
from tests.integration.experiments.world import World
from tests.support.clock import ManualClock
from tests.support.database import execute

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
STONE = "insert into tombstones (tenant_id, unit_hash, id, at) values ($1, $2, $3, $4)"


def environment(urls: DatabaseUrls, home: Path, *, owner: bool) -> dict[str, str]:
    given = {"TURNOUT_DATABASE_URL": urls.runtime, "TURNOUT_DATABASE_LOG_URL": urls.log, "TURNOUT_DATABASE_SYNC_URL": urls.sync}
    return {"TURNOUT_HOME": str(home), **given, **({"TURNOUT_DATABASE_OWNER_URL": urls.owner} if owner else {})}


def erasures(settings: Settings) -> tuple[Level, str]:
    ((level, text),) = [(each.level, each.text) for each in database_findings(settings) if each.area == "erasures"]
    return level, text


def test_without_the_owner_the_doctor_says_what_waits_and_turnout_maintain_sweeps_it(
    database_urls: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SystemClock().now()
    run_blocking(ensure_partitions(database_urls.owner, SystemClock()))
    world = World(database_urls, ManualClock(now - timedelta(hours=4)))
    early = world.prediction("u1", "blue")
    run_blocking(_logged(world, early))
    without = Settings.from_env(environment(database_urls, tmp_path, owner=False))
    assert erasures(without) == (Level.OK, "none waits to be swept")
    world.ask(STONE, world.tenant_id, early.unit_hash, uuid4(), now - timedelta(hours=3))
    late = world.prediction("u1", "blue")
    run_blocking(_logged(world, late))

    database = open_database(without)
    database.tend()
    with pytest.raises(ConfigurationError, match="TURNOUT_DATABASE_OWNER_URL"):
        database.tend_all()
    database.stop()
    count = "select count(*) from predictions where unit_hash is not null"
    assert execute(database_urls.superuser, count) == [(1,)], "what came before waits, what comes now is heeded"
    assert erasures(without) == (
        Level.UNSAFE, "1 tombstone to sweep the log for, the oldest of 3.0 hours ago: run turnout maintain",
    )  # fmt: skip

    for name, value in environment(database_urls, tmp_path, owner=True).items():
        monkeypatch.setenv(name, value)
    said = CliRunner().invoke(main, ["maintain"])
    assert (said.exit_code, said.output.splitlines()[-1]) == (
        0,
        "turnout: 2 rows of the erased, or older than their tenants keep, are gone",
    )
    assert execute(database_urls.superuser, count) == [(0,)]
    assert erasures(without) == (Level.OK, "none waits to be swept")
    assert CliRunner().invoke(main, ["maintain"]).output.splitlines()[-1] == "turnout: nothing was left to delete"


async def _logged(world: World, record: object) -> None:
    await world.log(record)  # type: ignore[arg-type]
    await world.sink.close()


def test_a_parent_that_knows_the_owner_sweeps_by_itself(database_urls: DatabaseUrls, tmp_path: Path) -> None:
    run_blocking(ensure_partitions(database_urls.owner, SystemClock()))
    world = World(database_urls, ManualClock(SystemClock().now()))
    record = world.prediction("u1", "blue")
    run_blocking(_logged(world, record))
    database = open_database(Settings.from_env(environment(database_urls, tmp_path, owner=True)))
    database.start()
    world.ask(STONE, world.tenant_id, record.unit_hash, uuid4(), SystemClock().now())
    end = time.monotonic() + 30
    while world.ask("select 1 from tombstones where swept_at is null") and time.monotonic() < end:  # in slices of half a second
        database.tend()
    database.stop()
    assert execute(database_urls.superuser, "select unit_hash from predictions") == [(None,)]
    assert world.ask("select swept_at is not null from tombstones") == [(True,)]
