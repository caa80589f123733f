"""The table's side: what the log role can insert, which days have partitions, what usage says."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.db.session import Database
from app.errors import Unavailable
from app.journal.partitions import days_ahead, drop_expired, ensure_partitions, keep_partitions
from app.journal.sink import PartitionMissing, Patience, PostgresSink, RecordsRefused, SinkUnavailable
from app.journal.types import ModelUsage
from app.journal.usage import usage_between
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant
from tests.unit.journal.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from app.journal.types import PredictionRecord
    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
async def sink(database_urls: DatabaseUrls, clock: ManualClock) -> AsyncIterator[PostgresSink]:
    await ensure_partitions(database_urls.owner, clock, days_ahead=1)
    sink = PostgresSink(database_urls.log)
    yield sink
    await sink.close()


@pytest.fixture
async def hasty(database_urls: DatabaseUrls) -> AsyncIterator[PostgresSink]:
    sink = PostgresSink(database_urls.log, Patience(command_s=1.0))
    yield sink
    await sink.close()


class TestSink:
    async def test_every_field_arrives_and_a_replay_changes_nothing(
        self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        tenant_id = make_tenant(database_urls, "clinic")
        record = Records(clock, tenant_id).one(
            experiment="colour", variant="blue", propensity=0.5, flag_revision=2**40, rows=7, degraded=True, unit_hash="ab"
        )
        await sink.insert([record])
        await sink.insert([record, record])
        rows = execute(database_urls.runtime, "select * from predictions", tenant_id=tenant_id)

        assert [dict(row) for row in rows] == [
            {
                "tenant_id": tenant_id, "id": record.id, "at": NOON, "model": "churn", "version": 3, "reason": "ALIAS", "unit_hash": "ab",
                "key_generation": 1, "experiment": "colour", "variant": "blue", "propensity": 0.5, "flag_revision": 2**40, "rows": 7,
                "compute_us": 812, "score": 0.25, "degraded": True,
            }
        ]  # fmt: skip

    async def test_two_who_write_the_same_records_at_the_same_moment_count_each_once(
        self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        records = Records(clock, make_tenant(database_urls, "clinic"))
        sent = [records.one(experiment="colour", variant="blue", reason="EXPERIMENT") for _ in range(2000)]
        others = [PostgresSink(database_urls.log) for _ in range(3)]

        async def write(sink: PostgresSink, records: Sequence[PredictionRecord]) -> None:
            """As a drain does: again until it is done; who is in the other's way is told so."""
            while True:
                try:
                    await sink.insert(records)
                    break
                except SinkUnavailable:
                    continue

        await asyncio.gather(*(write(each, sent[:: (-1) ** n]) for n, each in enumerate(others)))
        for each in others:
            await each.close()
        counted = """select (select count(*) from predictions), (select sum(requests)::int from usage_deltas),
          (select count(*) from exposure_queue)"""

        assert execute(database_urls.runtime, counted, tenant_id=records.tenant_id) == [(2000, 2000, 2000)]

    async def test_what_a_shadow_said_arrives_whole_once_and_beside_its_answer(
        self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        tenant_id = make_tenant(database_urls, "clinic")
        records = Records(clock, tenant_id)
        answered = records.one()
        said = [records.shadow(answered), records.shadow(answered, kind="COVARIATE", variant="control", unit_hash="ab", label=None)]
        for given in ([said[0], answered, said[1]], [answered, *said, *said], said):
            await sink.insert(given)
        rows = execute(database_urls.runtime, "select * from shadow_answers order by kind desc", tenant_id=tenant_id)

        assert execute(database_urls.runtime, "select id from predictions", tenant_id=tenant_id) == [(answered.id,)]
        assert dict(rows[0]) == {
            "tenant_id": tenant_id, "prediction_id": answered.id, "variant": "candidate", "row": 0, "kind": "SHADOW", "at": NOON,
            "experiment": "colour", "unit_hash": "u" * 32, "version": 4, "served_variant": "blue", "served_version": 3,
            "served_label": "yes", "served_score": 0.75, "label": "no", "score": 0.5, "compute_us": 97,
        }  # fmt: skip
        assert [(row["kind"], row["variant"], row["unit_hash"], row["label"]) for row in rows[1:]] == [("COVARIATE", "control", "ab", None)]

    async def test_a_word_of_a_shadow_that_breaks_a_rule_is_refused_and_a_retry_without_it_counts_nobody_twice(
        self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        records = Records(clock, make_tenant(database_urls, "clinic"))
        answered = records.one(experiment="colour", variant="blue", reason="EXPERIMENT")
        with pytest.raises(RecordsRefused, match="ck_shadow_answers_kind"):
            await sink.insert([answered, records.shadow(answered, kind="RUMOUR")])
        await sink.insert([answered, records.shadow(answered)])
        count = "select (select count(*) from exposure_queue), (select count(*) from predictions), (select count(*) from shadow_answers)"

        assert execute(database_urls.runtime, count, tenant_id=records.tenant_id) == [(1, 1, 1)]

    async def test_a_record_that_breaks_a_rule_of_the_table_is_refused_with_all_beside_it(
        self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        records = Records(clock, make_tenant(database_urls, "clinic"))
        with pytest.raises(RecordsRefused, match="ck_predictions_rows"):
            await sink.insert([records.one(), records.one(rows=-1)])
        with pytest.raises(RecordsRefused):
            await sink.insert([records.one(version=2**40)])
        with pytest.raises(RecordsRefused):
            await sink.insert([records.one(model="a\0b")])
        assert execute(database_urls.runtime, "select 1 from predictions", tenant_id=records.tenant_id) == []

    async def test_a_day_without_partition_is_told_apart_from_a_broken_rule(self, sink: PostgresSink, clock: ManualClock) -> None:
        clock.advance(86_400 * 5)
        with pytest.raises(PartitionMissing):
            await sink.insert([Records(clock).one()])

    async def test_a_lost_connection_is_made_anew(self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        records = Records(clock, make_tenant(database_urls, "clinic"))
        await sink.insert([records.one()])
        execute(database_urls.superuser, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'turnout-drain'")
        with pytest.raises(SinkUnavailable):
            await sink.insert([records.one()])
        await sink.insert([records.one()])

    async def test_a_table_that_somebody_holds_locked_is_waited_for_only_so_long(
        self, hasty: PostgresSink, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        record = Records(clock, make_tenant(database_urls, "clinic")).one()
        holder = await asyncpg.connect(database_urls.owner)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("lock table predictions in access exclusive mode")
        with pytest.raises(SinkUnavailable, match="TimeoutError"):
            await hasty.insert([record])
        await transaction.rollback()
        await holder.close()
        await sink.insert([record])

    async def test_a_read_only_database_is_an_outage_and_no_fault_of_the_record(
        self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        name = database_urls.log.rpartition("?")[0].rpartition("/")[2]
        execute(database_urls.superuser, f"alter database {name} set default_transaction_read_only = on")
        with pytest.raises(SinkUnavailable, match="25006"):
            await sink.insert([Records(clock).one()])

    async def test_a_commit_is_on_disk_also_where_the_server_says_otherwise(self, sink: PostgresSink, clock: ManualClock) -> None:
        await sink.insert([Records(clock).one()])

        assert await sink._connection.fetchval("show synchronous_commit") == "on"


class TestPartitions:
    async def test_yesterday_to_the_days_ahead_are_made_once(self, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        assert await days_ahead(database_urls.runtime, clock) == -1
        made = await ensure_partitions(database_urls.owner, clock, days_ahead=3)

        assert made == [date(2026, 2, 28) + timedelta(days=n) for n in range(5)]
        assert await ensure_partitions(database_urls.owner, clock, days_ahead=3) == []
        assert await days_ahead(database_urls.runtime, clock) == 3
        clock.advance(86_400)
        assert await ensure_partitions(database_urls.owner, clock, days_ahead=3) == [date(2026, 3, 5)]

    async def test_a_day_that_records_wait_for_is_made_however_long_ago_it_was(
        self, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        await ensure_partitions(database_urls.owner, clock, days_ahead=1)

        assert await ensure_partitions(database_urls.owner, clock, days_ahead=1, also=[date(2025, 1, 1), date(2026, 3, 1)]) == [
            date(2025, 1, 1)
        ]

    async def test_two_machines_at_once_make_each_day_once(self, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        made = await asyncio.gather(*(ensure_partitions(database_urls.owner, clock, days_ahead=4) for _ in range(3)))

        assert sorted(day for days in made for day in days) == [date(2026, 2, 28) + timedelta(days=n) for n in range(6)]

    async def test_nobody_but_the_owner_may_anything_on_a_partition_and_it_has_the_parents_indexes(
        self, database_urls: DatabaseUrls, clock: ManualClock
    ) -> None:
        execute(database_urls.superuser, "alter default privileges for role turnout_owner grant select on tables to turnout_runtime")
        await ensure_partitions(database_urls.owner, clock, days_ahead=0)
        grants = execute(
            database_urls.superuser,
            "select grantee, privilege_type from information_schema.table_privileges"
            " where table_name = 'predictions_20260301' and grantee <> 'turnout_owner'",
        )
        indexes = "select count(*) as n from pg_index where indrelid = $1::text::regclass"

        assert grants == []
        assert execute(database_urls.superuser, indexes, "predictions_20260301") == execute(database_urls.superuser, indexes, "predictions")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(database_urls.runtime, "select 1 from predictions_20260301")

    async def test_a_row_of_either_border_finds_its_day(self, sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        tenant_id = make_tenant(database_urls, "clinic")
        first, last = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 23, 59, 59, 999_000, tzinfo=UTC)
        await sink.insert([Records(ManualClock(at), tenant_id).one() for at in (first, last)])
        counts = execute(
            database_urls.runtime, "select tableoid::regclass::text as day, count(*) from predictions group by 1", tenant_id=tenant_id
        )

        assert [tuple(row) for row in counts] == [("predictions_20260301", 2)]

    async def test_days_past_retention_are_dropped_and_no_others(self, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        await ensure_partitions(database_urls.owner, clock, days_ahead=2)
        clock.advance(86_400 * 3)

        assert await drop_expired(database_urls.owner, 3, clock) == [date(2026, 2, 28)]
        assert await drop_expired(database_urls.owner, 3, clock) == []
        assert await drop_expired(database_urls.owner, 1, clock) == [date(2026, 3, 1), date(2026, 3, 2)]

    def test_the_supervisor_keeps_both_ends_without_an_event_loop(self, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        made, dropped = keep_partitions(database_urls.owner, 90, clock)

        assert (len(made), dropped) == (16, [])

    async def test_a_database_that_is_away_is_unavailable(self, database_urls: DatabaseUrls, clock: ManualClock) -> None:
        with pytest.raises(Unavailable):
            await ensure_partitions(database_urls.owner.replace("port=", "port=1"), clock)


async def test_usage_is_what_the_journal_holds_of_the_tenant_alone(
    sink: PostgresSink, database_urls: DatabaseUrls, clock: ManualClock
) -> None:
    clinic, shop = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "shop")
    today, theirs = Records(clock, clinic), Records(clock, shop)
    tomorrow = Records(ManualClock(NOON + timedelta(days=1)), clinic)
    await sink.insert(
        [
            today.one(rows=10, compute_us=1500), today.one(), today.one(version=4), today.one(model="age"), theirs.one(rows=999),
            tomorrow.one(rows=5),
        ]
    )  # fmt: skip
    database = Database(database_urls.runtime)
    async with database.tenant_tx(clinic) as session:
        two_days = await usage_between(session, clinic, NOON, NOON + timedelta(days=2))
        to_tomorrow = await usage_between(session, clinic, NOON, NOON + timedelta(days=1))
    await database.close()
    first = datetime(2026, 3, 1, tzinfo=UTC)

    assert to_tomorrow == [
        ModelUsage(first, "age", 3, 1, 1, 812),
        ModelUsage(first, "churn", 3, 2, 11, 2312),
        ModelUsage(first, "churn", 4, 1, 1, 812),
    ]
    assert two_days == [*to_tomorrow, ModelUsage(first + timedelta(days=1), "churn", 3, 1, 5, 812)]
