"""Usage is the journal, row for row, whatever died on the way and whenever it was folded."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from app.db.session import Database
from app.db.sync import SyncDatabase
from app.errors import InvalidInput, PermissionDenied
from app.journal.drain import Drain
from app.journal.folding import UsageFolder
from app.journal.partitions import ensure_partitions
from app.journal.sink import PostgresSink
from app.journal.spool import Spool
from app.journal.types import Durability
from app.journal.usage import fold_usage, usage_between, usage_of_days
from app.kernel.context import Role
from app.usage.prices import Prices
from app.usage.service import UsageService
from app.usage.types import DayUsage
from tests.integration.audit.test_log import context
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant
from tests.unit.journal.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from app.journal.types import Record
    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MIDNIGHT = NOON.replace(hour=0)
GIB = 1024**3


class World:
    """A tenant, the log's table with days ahead, and what reads them."""

    def __init__(self, urls: DatabaseUrls) -> None:
        self.urls, self.clock = urls, ManualClock(NOON)
        self.database, self.sync = Database(urls.runtime), SyncDatabase(urls.sync)
        self.sink = PostgresSink(urls.log)
        self.tenant_id = make_tenant(urls, "clinic")
        self.reader = context(self.tenant_id, Role.READER)
        self.service = UsageService(self.database, Prices("EUR", 1_000_000, 0, 0, 86_400), self.clock)
        self.folder = UsageFolder(self.database, self.sync)

    async def close(self) -> None:
        await self.sink.close()
        await self.database.close()
        await self.sync.close()

    def records(self, at: datetime = NOON) -> Records:
        return Records(ManualClock(at), self.tenant_id)

    def journal(self) -> Counter[tuple[Any, ...]]:
        """What the log's rows add up to, counted here."""
        found: Counter[tuple[Any, ...]] = Counter()
        for row in execute(self.urls.runtime, "select * from predictions", tenant_id=self.tenant_id):
            key = (row["at"].date(), row["model"], row["version"])
            found[*key, "requests"] += 1
            found[*key, "rows"] += row["rows"]
            found[*key, "compute_us"] += row["compute_us"]
        return found

    async def usage(self, first: datetime = MIDNIGHT, end: datetime = MIDNIGHT + 9 * DAY) -> Counter[tuple[Any, ...]]:
        async with self.database.tenant_tx(self.tenant_id) as session:
            rows = await usage_of_days(session, self.tenant_id, first.date(), end.date())
        return Counter({(r.day.date(), r.model, r.version, n): getattr(r, n) for r in rows for n in ("requests", "rows", "compute_us")})

    def artifact(self, digest: str, size: int, created: datetime, removed: datetime | None = None) -> None:
        execute(
            self.urls.runtime,
            "insert into artifacts (tenant_id, digest, size_bytes, upload_id, mac, created_at, created_by, removed_at)"
            " values ($1, $2, $3, gen_random_uuid(), 'm', $4, 'a', $5)",
            self.tenant_id, digest, size, created, removed, tenant_id=self.tenant_id,
        )  # fmt: skip


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    await ensure_partitions(database_urls.owner, ManualClock(NOON), days_ahead=3)
    world = World(database_urls)
    yield world
    await world.close()


class Killed(BaseException):
    """As a kill: nothing that is in the process is tidied up."""


class DyingSink:
    """A real sink whose process dies now and then: before the insert, or when it is committed and nobody has heard."""

    def __init__(self, sink: PostgresSink, chance: random.Random) -> None:
        self._sink, self._chance = sink, chance

    async def insert(self, records: Sequence[Record]) -> None:
        fate = self._chance.random()
        if fate < 0.2:
            raise Killed
        await self._sink.insert(records)
        if fate < 0.6:
            raise Killed

    async def close(self) -> None: ...


@pytest.mark.parametrize("seed", range(3))
async def test_usage_equals_the_journal_row_for_row_when_drains_are_killed_between_insert_and_commit(
    world: World, tmp_path: Path, seed: int
) -> None:
    chance, written = random.Random(seed), 0
    spool = Spool(tmp_path / "spool", 2**24, world.clock)
    deaths = 0
    for _ in range(12):
        for _ in range(chance.randrange(1, 40)):
            at = NOON + chance.choice((0, 1)) * DAY
            given = {"model": chance.choice("ab"), "version": chance.choice((1, 2)), "rows": chance.randrange(9)}
            await spool.append(world.records(at).one(compute_us=chance.randrange(5000), **given), Durability.DURABLE)
            written += 1
        drain = Drain(tmp_path / "spool", DyingSink(world.sink, chance), world.clock, batch=7)
        try:
            while await drain.step():
                pass
        except Killed:
            deaths += 1
        if chance.random() < 0.5:
            await world.folder.sweep()
        assert await world.usage() == world.journal()
    last = Drain(tmp_path / "spool", world.sink, world.clock)
    while await last.step():
        pass
    spool.close()
    assert deaths > 3
    usage = await world.usage()
    assert usage == world.journal()
    assert sum(count for key, count in usage.items() if key[3] == "requests") == written


async def test_usage_is_the_journal_at_every_moment_while_rows_land_and_folders_fold(world: World) -> None:
    async def land() -> None:
        for _ in range(40):
            await world.sink.insert([world.records().one(rows=3), world.records().one(model="b")])

    async def fold() -> None:
        for _ in range(40):
            async with world.database.tenant_tx(world.tenant_id) as session:
                await fold_usage(session, world.tenant_id, most=3)

    async def look() -> None:
        for _ in range(20):
            async with world.database.tenant_tx(world.tenant_id) as session:
                before = await usage_between(session, world.tenant_id, MIDNIGHT, MIDNIGHT + DAY)
                between = await usage_of_days(session, world.tenant_id, MIDNIGHT.date(), (MIDNIGHT + DAY).date())
                after = await usage_between(session, world.tenant_id, MIDNIGHT, MIDNIGHT + DAY)
            low, mid, high = (sum(each.requests for each in found) for found in (before, between, after))
            assert low <= mid <= high

    await asyncio.gather(land(), fold(), fold(), look())
    assert await world.usage() == world.journal()
    await world.folder.sweep()
    assert execute(world.urls.superuser, "select count(*) from usage_deltas") == [(0,)]
    assert await world.usage() == world.journal()


async def test_the_leader_alone_folds(world: World) -> None:
    await world.sink.insert([world.records().one()])
    from app.db.leading import leading
    from app.journal.folding import _LEADER

    async with leading(world.sync, _LEADER):
        assert await UsageFolder(world.database, world.sync).sweep() == 0
    assert await world.folder.sweep() == 1


async def test_edges_that_cut_a_day_are_counted_in_the_log(world: World) -> None:
    for hours in (-1, 0, 1, 24, 25, 48):
        await world.sink.insert([world.records(NOON + timedelta(hours=hours)).one(rows=hours + 2)])
    await world.folder.sweep()
    world.clock.advance(7 * 86_400)

    async def asked(start: datetime, end: datetime) -> tuple[int, int]:
        used = (await world.service.usage(world.reader, start, end)).quantities
        return used.requests, used.rows

    assert await asked(NOON, NOON + timedelta(hours=1)) == (1, 2)
    assert await asked(NOON, NOON + timedelta(hours=1, microseconds=1000)) == (2, 5)
    assert await asked(NOON, NOON + timedelta(hours=25)) == (3, 31)
    assert await asked(NOON, NOON + 2 * DAY) == (4, 58)
    assert await asked(MIDNIGHT, MIDNIGHT + 3 * DAY) == (6, 109)
    assert await asked(MIDNIGHT + DAY, MIDNIGHT + 2 * DAY) == (2, 53)
    assert await asked(MIDNIGHT - timedelta(hours=1), NOON) == (1, 1)


async def test_whole_days_stay_when_the_log_forgets_their_records_and_parts_of_them_are_refused(world: World) -> None:
    await world.sink.insert([world.records().one(), world.records().one()])
    execute(world.urls.superuser, "delete from predictions")
    world.clock.advance(3 * 86_400)
    used = await world.service.usage(world.reader, MIDNIGHT, MIDNIGHT + DAY)
    assert used.quantities.requests == 2
    with pytest.raises(InvalidInput, match="no records of 2026-03-01"):
        await world.service.usage(world.reader, NOON, MIDNIGHT + DAY)
    assert (await world.service.usage(world.reader, NOON + DAY, NOON + 2 * DAY)).quantities.requests == 0


async def test_today_is_whole_where_to_is_in_the_future(world: World) -> None:
    await world.sink.insert([world.records().one()])
    execute(world.urls.superuser, "delete from predictions")  # so the day's sum alone tells
    used = await world.service.usage(world.reader, MIDNIGHT, NOON + timedelta(seconds=1))
    assert used.quantities.requests == 1


async def test_artifacts_cost_for_as_long_as_they_are_kept(world: World) -> None:
    world.clock.advance(2 * 86_400)  # now: noon of the third
    world.artifact("a" * 64, GIB, MIDNIGHT - DAY)
    world.artifact("b" * 64, GIB, MIDNIGHT + DAY / 2, MIDNIGHT + DAY)
    world.artifact("c" * 64, 5, MIDNIGHT + 30 * DAY)
    used = await world.service.usage(world.reader, MIDNIGHT, MIDNIGHT + 9 * DAY)
    assert used.artifact_bytes == GIB
    assert used.quantities.byte_us == GIB * 1_000_000 * 86_400 * 3  # two days and a half, and half a day
    assert used.cost_micros == 3 * 86_400
    assert (await world.service.usage(world.reader, MIDNIGHT, MIDNIGHT + DAY)).artifact_bytes == 2 * GIB


async def test_usage_by_day_adds_up_to_usage_and_names_versions_and_their_bytes(world: World) -> None:
    tomorrow = NOON + DAY
    await world.sink.insert([world.records().one(), world.records().one(version=4, rows=5), world.records(tomorrow).one()])
    world.artifact("a" * 64, 70, NOON)
    world.artifact("b" * 64, 9, tomorrow)
    execute(
        world.urls.runtime,
        "with m as (insert into models (tenant_id, model_id, name, folded_name, task) values ($1, gen_random_uuid(), 'churn',"
        " 'churn', 'CLASSIFICATION') returning model_id) insert into model_versions (tenant_id, model_id, number, status, artifact_digest,"
        " registration_hash, created_by) select $1, model_id, n, 'READY', repeat('a', 64), 'h', 'a' from m, generate_series(3, 4) n",
        world.tenant_id, tenant_id=world.tenant_id,
    )  # fmt: skip
    world.clock.advance(86_400 + 1)
    days = await world.service.by_day(world.reader, MIDNIGHT, MIDNIGHT + 2 * DAY)
    one, two = NOON.date(), tomorrow.date()
    assert days == [
        DayUsage(one, "churn", 3, 1, 1, 812, 70),
        DayUsage(one, "churn", 4, 1, 5, 812, 0),
        DayUsage(two, None, None, 0, 0, 0, 9),
        DayUsage(two, "churn", 3, 1, 1, 812, 70),
    ]
    whole = await world.service.usage(world.reader, MIDNIGHT, MIDNIGHT + 2 * DAY)
    assert [(each.model, each.version, each.requests, each.rows) for each in whole.by_model] == [("churn", 3, 2, 2), ("churn", 4, 1, 5)]
    assert whole.artifact_bytes == 79
    assert whole.cost_micros == 3


async def test_another_tenants_usage_is_not_there(world: World, database_urls: DatabaseUrls) -> None:
    await world.sink.insert([world.records().one()])
    world.artifact("a" * 64, 70, NOON)
    shop = context(make_tenant(database_urls, "shop"), Role.ADMIN)
    used = await world.service.usage(shop, MIDNIGHT, MIDNIGHT + DAY)
    assert (used.quantities.requests, used.artifact_bytes, used.cost_micros, used.by_model) == (0, 0, 0, ())
    assert await world.service.by_day(shop, MIDNIGHT, MIDNIGHT + DAY) == []


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (NOON, NOON, "before"),
        (NOON, NOON - DAY, "before"),
        (NOON, NOON + 401 * DAY, "^The time between from and to is longer than 400 days: ask in parts.$"),
        (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC), "1970"),
        (datetime(9999, 12, 30, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), "1970 to 9000"),
    ],
)
async def test_times_that_make_no_sense_are_refused(world: World, start: datetime, end: datetime, said: str) -> None:
    for ask in (world.service.usage, world.service.by_day):
        with pytest.raises(InvalidInput, match=said if ask == world.service.usage or "days" not in said else "31 days"):
            await ask(world.reader, start, end)


@pytest.mark.parametrize("role", [Role.PREDICTOR, Role.PUBLISHER, Role.OPERATOR])
async def test_who_may_not_read_usage_does_not(world: World, role: Role) -> None:
    with pytest.raises(PermissionDenied, match="READ_USAGE"):
        await world.service.usage(context(world.tenant_id, role), MIDNIGHT, NOON)
