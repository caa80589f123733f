"""What the owner sweeps: the log slice by slice, whole tenants table by table, what is too old, and all of it again after a restore."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.db.tenant_rows import KEPT
from app.db.writers import writers_gone
from app.errors import ConfigurationError, Unavailable
from app.experiments.outcome_rules import OutcomeToRecord
from app.journal.aside import Aside
from app.journal.sink import PostgresSink
from app.journal.types import WHOLE_TENANT, InputRecord
from app.kernel.home import TOMBSTONES
from app.supervisor.sweeping import Sweeper
from app.supervisor.tending import Tender
from app.tenancy.store import bury_tenant
from app.tenancy.tombstone_file import TombstoneFile
from app.tenancy.tombstones import Tombstone
from app.tenancy.types import Erasure
from tests.integration.db.test_isolation import LOGGED, PREDICTION, ROWS, TABLES, insert
from tests.integration.erasing.test_sums import erase, kept_of, sweep
from tests.integration.experiments.world import World, open_world
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_S = 86_400.0


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    opened = await open_world(database_urls)
    opened.metrics()
    opened.experiment()
    yield opened
    await opened.close()


def everything(world: World) -> dict[str, int]:
    """Rows of the tenant by table, of every table that there is."""
    found = {}
    for row in execute(world.urls.superuser, TABLES):
        if "tenant_id" in row["columns"]:
            count = execute(world.urls.superuser, f"select count(*) from {row['name']} where tenant_id = $1", world.tenant_id)[0][0]
            found[row["name"]] = count
    return found


def captured(world: World, unit: str) -> InputRecord:
    answered = world.prediction(unit)
    return InputRecord(answered.id, answered.tenant_id, answered.unit_hash, b"sealed")


async def bury(world: World, erasure: Erasure) -> None:
    """The tenant's own stone, as the service leaves it."""
    async with world.database.tenant_tx(world.tenant_id) as session:
        await bury_tenant(session, world.tenant_id, erasure)


class TestTheLog:
    async def test_answers_are_kept_without_the_unit_and_what_lay_beside_them_is_not_wherever_in_time_they_are(
        self, world: World, tmp_path: Path
    ) -> None:
        records = []
        for seconds in (0, 0.001, 59.998, 0.001, 3600, DAY_S, 3 * DAY_S, 0.5):  # a slice ends after a minute
            world.clock.advance(seconds)
            for unit in ("u1", "u2"):
                answered = world.prediction(unit, "blue")
                records.append(answered)
                await world.log(
                    answered, world.covariate(answered, 1.0), InputRecord(answered.id, world.tenant_id, answered.unit_hash, b"s")
                )
        rows = await erase(world, "u1")
        swept = await sweep(world, tmp_path)

        assert (rows, swept) == (8 + 8, 8 + 8 + 8)  # queued exposures and covariates; answers, shadows, inputs
        assert kept_of(world, "u1") == {}
        assert len(world.ask("select 1 from predictions")) == 16
        for table in ("predictions", "shadow_answers", "captured_inputs"):
            assert world.ask(f"select count(*) from {table} where unit_hash = $1", world.unit_hash("u2")) == [(8,)], table
        assert world.ask("select sum(rows)::int, bool_and(swept_at = $1) from tombstones", world.clock.now()) == [(40, True)]
        assert await sweep(world, tmp_path) == 0

    async def test_of_the_erased_the_drain_keeps_what_is_usage_and_a_replay_changes_nothing(self, world: World) -> None:
        answered = world.prediction("u1", "blue")
        all_of_it = (answered, world.covariate(answered, 1.0), InputRecord(answered.id, world.tenant_id, answered.unit_hash, b"s"))
        other = world.prediction("u2", "blue")
        await erase(world, "u1")
        for _ in range(2):
            await world.log(*all_of_it, other)

        assert world.ask("select id, unit_hash, experiment, variant from predictions order by id") == [
            (answered.id, None, "colour", "blue"), (other.id, other.unit_hash, "colour", "blue"),
        ]  # fmt: skip
        assert {name: len(world.ask(f"select 1 from {name}")) for name in ("shadow_answers", "captured_inputs", "covariate_queue")} == {
            "shadow_answers": 0, "captured_inputs": 0, "covariate_queue": 0,
        }  # fmt: skip
        assert world.ask("select id from exposure_queue") == [(other.id,)]

    async def test_an_outcome_of_before_that_comes_after_is_nobodys_and_a_later_one_is_the_units(self, world: World) -> None:
        before = world.clock.now()
        await erase(world, "u1")
        world.clock.advance(3600)
        for number, occurred_at in enumerate((before, None)):
            sent = OutcomeToRecord("spent", 1.0, unit="u1", idempotency_key=f"k{number}", occurred_at=occurred_at)
            first = await world.outcomes.record(world.caller(), sent)
            assert not first.duplicate
            assert (await world.outcomes.record(world.caller(), sent)).duplicate
        assert world.ask("select unit_hash from outcomes order by occurred_at") == [(None,), (world.unit_hash("u1"),)]

    async def test_another_tenants_unit_of_the_same_pseudonym_is_left_alone(self, world: World, tmp_path: Path) -> None:
        other = make_tenant(world.urls, "other")
        await world.log(world.prediction("u1", "blue"), world.prediction("u1", "blue", tenant_id=other))
        await erase(world, "u1")
        await sweep(world, tmp_path)
        await world.log(world.prediction("u1", "blue", tenant_id=other))
        count = "select count(*) from predictions where unit_hash is not null"
        assert execute(world.urls.runtime, count, tenant_id=other) == [(2,)]

    async def test_records_in_quarantine_lose_the_unit_or_go_and_so_do_bytes_that_name_it(self, world: World, tmp_path: Path) -> None:
        answered, other = world.prediction("u1", "blue"), world.prediction("u2", "blue")
        aside = Aside(tmp_path, world.clock)
        for record in (answered, captured(world, "u1"), world.covariate(answered, 1.0), other):
            aside.refuse(record, "a rule")
        folder = tmp_path / "quarantine"
        (folder / "1-1-0.bytes").write_bytes(b"\x00[1," + world.unit_hash("u1").encode() + b"\xff")
        (folder / "1-1-9.bytes").write_bytes(b"\x00[1," + world.unit_hash("u2").encode() + b"\xff")
        assert await aside.heed(world.sink) == 0
        await erase(world, "u1")
        aside = Aside(tmp_path, world.clock)

        assert await aside.heed(world.sink) == 4
        assert aside.quarantined == 3 == Aside(tmp_path, world.clock).quarantined
        left = b"".join(path.read_bytes() for path in folder.iterdir())
        assert world.unit_hash("u1").encode() not in left
        assert left.count(world.unit_hash("u2").encode()) == 2
        assert answered.id.hex.encode() in left
        assert await aside.heed(world.sink) == 0


class _Watched:
    """A connection that tells when it was asked for the first time."""

    def __init__(self, connection: Any) -> None:
        self._connection, self.asked = connection, asyncio.Event()

    async def fetch(self, *given: Any) -> Any:
        found = await self._connection.fetch(*given)
        self.asked.set()
        return found


class TestWriters:
    async def test_who_was_writing_is_waited_for_and_who_begins_meanwhile_is_not(self, world: World) -> None:
        asking, writing, later = [await asyncpg.connect(world.urls.owner) for _ in range(3)]
        first, second = writing.transaction(), later.transaction()
        await first.start()
        await writing.execute("delete from shadow_answers where false")
        with pytest.raises(Unavailable):
            await writers_gone(asking, ["predictions", "shadow_answers"], patience_s=0.05)
        await writers_gone(asking, ["predictions", "outcomes"])
        watched = _Watched(asking)
        waiting = asyncio.create_task(writers_gone(watched, ["shadow_answers"]))
        await watched.asked.wait()
        await second.start()
        await later.execute("delete from shadow_answers where false")
        assert not waiting.done()
        await first.rollback()
        await asyncio.wait_for(waiting, 60)
        await second.rollback()
        for connection in (asking, writing, later):
            await connection.close()


class TestATenant:
    async def test_every_row_of_it_goes_from_every_table_but_its_chain_and_nobody_elses(
        self, database_urls: DatabaseUrls, tmp_path: Path
    ) -> None:
        world = await open_world(database_urls, ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC)))
        other = make_tenant(database_urls, "other")
        execute(
            database_urls.runtime, "insert into replicas (replica_id, name) values ($1, 'here/1-0')", ROWS["replica_acks"]["replica_id"]
        )
        for number, tenant_id in enumerate((world.tenant_id, other), 1):
            for table, row in ROWS.items():
                own = {"outbox": {"generation": number}, "tenant_names": {"external_id": f"org_{number}"}}.get(table, {})
                insert(database_urls.runtime, table, {"tenant_id": tenant_id, **row, **own}, tenant_id)
            for table, row in {"predictions": PREDICTION, **LOGGED}.items():
                insert(database_urls.log, table, {"tenant_id": tenant_id, **row})
        full = everything(world)
        assert [table for table, rows in full.items() if not rows] == [], "each table has a row of the tenant, or this test proves nothing"
        erasure = Erasure(uuid4(), world.clock.now(), 0)
        await bury(world, erasure)
        rows = await sweep(world, tmp_path)

        left = {table: count for table, count in everything(world).items() if count}
        assert left.keys() == KEPT
        assert rows == sum(count for table, count in full.items() if table not in KEPT)
        stone = world.ask("select rows, swept_at from tombstones where unit_hash = $1", WHOLE_TENANT)
        assert stone == [(rows, world.clock.now())]
        world.tenant_id = other
        assert everything(world) == full

        world.tenant_id = erasure_tenant = execute(database_urls.superuser, "select tenant_id from tenants where status = 'ERASED'")[0][0]
        answered = world.prediction("u1", "blue")
        await world.log(answered, world.covariate(answered, 1.0), captured(world, "u1"))
        assert {table: count for table, count in everything(world).items() if count} == {**left, "tombstones": 2}
        assert erasure_tenant == world.tenant_id
        await world.close()

    async def test_many_rows_go_in_batches_and_what_comes_after_the_sweep_goes_with_the_next_round(
        self, world: World, tmp_path: Path
    ) -> None:
        many = "insert into outcomes (tenant_id, id, metric, value, occurred_at, pending, dedup_key) select $1, gen_random_uuid(), 'spent', 1, now(), false, n::text from generate_series(1, 4500) n"
        world.ask(many, world.tenant_id)
        await bury(world, Erasure(uuid4(), world.clock.now(), 0))
        assert await sweep(world, tmp_path) >= 4500
        assert everything(world)["outcomes"] == 0
        world.ask(many, world.tenant_id)
        sweeper = Sweeper(world.urls.owner, tmp_path, world.clock)
        assert sum([rows async for rows in sweeper.round()]) == 4500
        await sweeper.close()
        assert everything(world)["outcomes"] == 0


class TestRetention:
    async def test_each_tenant_keeps_its_log_for_as_long_as_it_wants_and_outcomes_for_a_window_more(
        self, world: World, tmp_path: Path
    ) -> None:
        other = make_tenant(world.urls, "other", settings=json.dumps({"retentionDays": 3650}))
        setting = json.dumps({"retentionDays": 10, "outcomeWindowDays": 7, "somethingNew": 1})
        execute(world.urls.runtime, "update tenants set settings = $1", setting, tenant_id=world.tenant_id)
        made = {}
        for day in range(31):
            answered = world.prediction(f"u{day}", "blue")
            made[day] = answered.at
            await world.log(answered, world.covariate(answered, 1.0), InputRecord(answered.id, world.tenant_id, answered.unit_hash, b"s"))
            await world.log(world.prediction("u", "blue", tenant_id=other))
            await world.outcomes.record(world.caller(), OutcomeToRecord("spent", 1.0, prediction_id=str(answered.id)))
            world.clock.advance(DAY_S)
        assert await world.folder.fold(world.tenant_id)
        before = world.sums()
        sweeper = Sweeper(world.urls.owner, tmp_path, world.clock)
        rows = sum([rows async for rows in sweeper.round()])
        await sweeper.close()

        # It is day 31 now: what was made on day 21 is ten days old, to the moment, and stays.
        oldest = {
            "predictions": "select min(at), count(*) from predictions", "shadow_answers": "select min(at), count(*) from shadow_answers",
            "captured_inputs": "select min(at), count(*) from captured_inputs", "outcomes": "select min(occurred_at), count(*) from outcomes",
        }  # fmt: skip
        found = {name: tuple(world.ask(query)[0]) for name, query in oldest.items()}
        assert found == {
            "predictions": (made[21], 10),
            "shadow_answers": (made[21], 10),
            "captured_inputs": (made[21], 10),
            "outcomes": (made[14], 17),
        }
        assert rows == 3 * 21 + 14
        assert execute(world.urls.runtime, "select count(*) from predictions", tenant_id=other) == [(31,)]
        assert world.sums() == before


class TestARestore:
    async def test_an_older_database_is_told_by_the_file_and_forgets_again(self, world: World, tmp_path: Path) -> None:
        answered = world.prediction("u1", "blue")
        await world.log(answered)
        assert await world.folder.fold(world.tenant_id)
        other = make_tenant(world.urls, "other")
        old = World(world.urls, world.clock)
        old.tenant_id = other
        await old.log(old.prediction("x", "blue"))
        rows_before = {table: execute(world.urls.superuser, f"select * from {table}") for table in ("predictions", "exposures", "tenants")}
        await erase(world, "u1")
        await bury(old, Erasure(uuid4(), world.clock.now(), 0))
        await sweep(world, tmp_path)
        assert kept_of(world, "u1") == {}
        self._restore(world, rows_before)
        assert kept_of(world, "u1") == {"exposures": 1, "predictions": 1}

        tender = Tender(world.urls.owner, tmp_path, world.clock)
        await asyncio.to_thread(tender.stand_again)
        await asyncio.to_thread(tender.finish)
        await asyncio.to_thread(tender.close)
        assert kept_of(world, "u1") == {}
        assert execute(world.urls.superuser, "select status, wrapped_secret, name from tenants where tenant_id = $1", other) == [
            ("ERASED", b"", "")
        ]
        assert everything(old)["predictions"] == 0
        assert everything(old)["outbox"] > 0, "replicas hear of it"
        sweeper = Sweeper(world.urls.owner, tmp_path, world.clock)
        assert await sweeper.stand_again() == 0
        await sweeper.close()
        await old.close()

    def _restore(self, world: World, rows: dict[str, list[Any]]) -> None:
        """The rows as they were; no stone stands."""
        execute(world.urls.superuser, "delete from tombstones")
        for table, old in (*rows.items(), ("exposure_queue", [])):
            if table != "tenants":
                execute(world.urls.superuser, f"delete from {table}")
                for row in old:
                    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
                    execute(world.urls.superuser, f"insert into {table} ({', '.join(row.keys())}) values ({places})", *row.values())
            else:
                for row in old:
                    back = "update tenants set status = $2, wrapped_secret = $3, name = $4 where tenant_id = $1"
                    execute(world.urls.superuser, back, row["tenant_id"], row["status"], row["wrapped_secret"], row["name"])

    async def test_stones_that_another_machine_swept_are_in_the_file_after_a_round(self, world: World, tmp_path: Path) -> None:
        mine, other = tmp_path / "mine", tmp_path / "other"
        mine.mkdir()
        other.mkdir()
        await erase(world, "u1")
        await sweep(world, other)
        assert not (mine / TOMBSTONES).exists()
        for _ in range(2):
            sweeper = Sweeper(world.urls.owner, mine, world.clock)
            assert [rows async for rows in sweeper.round()] == [0]
            await sweeper.close()
        assert (mine / TOMBSTONES).read_bytes() == (other / TOMBSTONES).read_bytes()
        assert [stone.unit_hash for stone in TombstoneFile(mine).read()] == [world.unit_hash("u1")]

    def test_a_line_torn_by_a_crash_is_passed_over_and_nothing_is_glued_to_it(self, tmp_path: Path) -> None:
        stones = [Tombstone(UUID(int=n), f"{n:032x}", UUID(int=100 + n), NOON + timedelta(seconds=n)) for n in range(3)]
        assert TombstoneFile(tmp_path).append(stones[:2]) == 2
        path = tmp_path / TOMBSTONES
        path.write_bytes(path.read_bytes()[:-20])
        again = TombstoneFile(tmp_path)
        assert again.read() == stones[:1]
        assert again.append(stones) == 2
        assert TombstoneFile(tmp_path).read() == stones
        assert again.append(stones) == 0
        assert path.stat().st_mode & 0o777 == 0o600


class TestTender:
    async def test_a_sweep_that_was_cut_off_is_ended_by_the_next_one(self, world: World, tmp_path: Path) -> None:
        for seconds in (0, 3600, DAY_S):
            world.clock.advance(seconds)
            await world.log(world.prediction("u1", "blue"))
        await erase(world, "u1")
        sweeper = Sweeper(world.urls.owner, tmp_path, world.clock)
        work = sweeper.erased()
        while not await anext(work):
            pass
        await sweeper.close()
        assert kept_of(world, "u1") == {"predictions": 2}
        await sweep(world, tmp_path)
        assert kept_of(world, "u1") == {}
        assert world.ask("select rows, swept_at is not null from tombstones") == [(5, True)], (
            "three queued exposures, and two of the answers"
        )

    async def test_a_file_that_cannot_be_written_keeps_the_sweep_waiting_for_it(self, world: World, tmp_path: Path) -> None:
        await world.log(world.prediction("u1", "blue"))
        await erase(world, "u1")
        (tmp_path / TOMBSTONES).mkdir()
        with pytest.raises(ConfigurationError, match=TOMBSTONES.replace(".", r"\.")):
            await sweep(world, tmp_path)
        assert kept_of(world, "u1") == {"predictions": 1}
        (tmp_path / TOMBSTONES).rmdir()
        await sweep(world, tmp_path)
        assert kept_of(world, "u1") == {}

    async def test_it_sweeps_by_itself_in_slices_and_one_machine_at_a_time(self, world: World, tmp_path: Path) -> None:
        await world.log(world.prediction("u1", "blue"))
        await erase(world, "u1")
        first, second = Tender(world.urls.owner, tmp_path, world.clock), Tender(world.urls.owner, tmp_path, world.clock)

        def work() -> tuple[dict[str, int], dict[str, int]]:
            first._work, first._look_at = None, 0.0
            assert first._run(first._leads())
            second.tend()
            before = kept_of(world, "u1")
            end = time.monotonic() + 30
            while (after := kept_of(world, "u1")) and time.monotonic() < end:  # a slice ends after its time, a crowded machine's too
                first.tend()
            first.close()
            second._look_at = 0.0
            second.tend()
            second.close()
            return before, after

        before, after = await asyncio.to_thread(work)
        assert (before, after) == ({"predictions": 1}, {})

    async def test_a_database_that_is_away_is_said_once_and_tried_again(
        self, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tender = Tender("postgresql://nobody:x@127.0.0.1:1/none", tmp_path, world.clock)

        def work() -> None:
            for _ in range(3):
                tender._look_at = 0.0
                tender.tend()
            tender.close()

        await asyncio.to_thread(work)
        assert capsys.readouterr().out.count("could not be swept") == 1


async def test_the_sink_is_closed_to_whoever_may_not_read_tombstones(world: World) -> None:
    """The columns that the log role reads, and no other."""
    sink = PostgresSink(world.urls.log)
    await erase(world, "u1")
    found = await sink.erased({world.tenant_id}, {world.unit_hash("u1"), "0" * 32})
    assert found == {(world.tenant_id, world.unit_hash("u1")): world.clock.now()}
    await sink.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(world.urls.log, "select id from tombstones")
