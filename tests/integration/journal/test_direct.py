"""Answers that are committed in the database before they are given: together, once, and honestly where it is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from app.errors import DeadlineExceeded, LogUnavailable
from app.journal.direct import HASTE, DirectLog
from app.journal.partitions import ensure_partitions
from app.journal.sink import Patience, PostgresSink
from app.kernel.clock import Deadline, SystemClock
from tests.support.database import execute, make_tenant
from tests.support.proxy import Cut, Proxy
from tests.unit.journal.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
CLOCK = SystemClock()
INSERT = "insert into predictions"


class Told:
    """What the telemetry heard."""

    def __init__(self) -> None:
        self.records: dict[str, int] = {}
        self.commits = 0

    def journal_committed(self, outcome: str, records: int) -> None:
        self.records[outcome] = self.records.get(outcome, 0) + records
        self.commits += 1


@pytest.fixture
def proxy(database_urls: DatabaseUrls) -> Iterator[Proxy]:
    with Proxy.of_database(database_urls.log) as proxy:
        yield proxy


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def patience() -> Patience:
    """The service's, but that a crowded machine has its time."""
    return replace(HASTE, connect_s=20.0, command_s=30.0, statement_s=25.0, lock_s=20.0)


@pytest.fixture
async def direct(database_urls: DatabaseUrls, proxy: Proxy, told: Told, patience: Patience) -> AsyncIterator[DirectLog]:
    await ensure_partitions(database_urls.owner, CLOCK, days_ahead=1)
    direct = DirectLog(PostgresSink(proxy.url(database_urls.log), patience), told, CLOCK)
    yield direct
    proxy.thaw()
    await direct.close()


@pytest.fixture
def records(database_urls: DatabaseUrls) -> Records:
    return Records(CLOCK, make_tenant(database_urls, "clinic"))


def kept(urls: DatabaseUrls, tenant_id: UUID) -> dict[str, int]:
    rows = execute(urls.runtime, "select id from predictions", tenant_id=tenant_id)
    assert len({row["id"] for row in rows}) == len(rows)
    (usage,) = execute(urls.runtime, "select coalesce(sum(requests), 0)::int as n from usage_deltas", tenant_id=tenant_id)
    assert usage["n"] == len(rows)
    return {str(row["id"]): 1 for row in rows}


async def test_a_record_is_committed_when_append_returns(direct: DirectLog, records: Records, database_urls: DatabaseUrls) -> None:
    record = records.one()
    await direct.append(record, Deadline.after(10, CLOCK))

    assert set(kept(database_urls, records.tenant_id)) == {str(record.id)}


async def test_many_who_come_together_share_few_commits(
    direct: DirectLog, told: Told, records: Records, database_urls: DatabaseUrls
) -> None:
    sent = records.many(2500)
    await asyncio.gather(*(direct.append(record) for record in sent))

    assert set(kept(database_urls, records.tenant_id)) == {str(record.id) for record in sent}
    assert (told.records, told.commits) == ({"committed": 2500}, 3)


@pytest.mark.parametrize("cut", list(Cut))
async def test_a_commit_that_was_cut_off_is_repeated_under_the_same_ids_and_nobody_is_counted_twice(
    direct: DirectLog, proxy: Proxy, told: Told, records: Records, database_urls: DatabaseUrls, cut: Cut
) -> None:
    await direct.append(records.one())
    sent = [*records.many(20), records.one(experiment="colour", variant="blue", reason="EXPERIMENT")]
    proxy.cut_at(INSERT, cut)
    await asyncio.gather(*(direct.append(record) for record in sent))
    queued = execute(database_urls.runtime, "select count(*) from exposure_queue", tenant_id=records.tenant_id)

    assert (proxy.cuts, told.records, queued) == (1, {"committed": 1, "repeated": 21}, [(1,)])
    assert len(kept(database_urls, records.tenant_id)) == 22


async def test_a_database_that_is_away_is_said_before_the_next_prediction_and_its_return_is_noticed(
    direct: DirectLog, proxy: Proxy, told: Told, records: Records, database_urls: DatabaseUrls
) -> None:
    direct.check_room()
    proxy.refuse()
    lost = records.one()
    with pytest.raises(LogUnavailable) as refused:
        await direct.append(lost)
    with pytest.raises(LogUnavailable):
        direct.check_room()
    proxy.accept()
    async with asyncio.timeout(30):
        while True:
            try:
                direct.check_room()
                break
            except LogUnavailable:
                await asyncio.sleep(0.01)
    found = records.one()
    await direct.append(found)

    assert refused.value.details == {"retry_after_ms": 1000}
    assert set(kept(database_urls, records.tenant_id)) == {str(found.id)}
    assert told.records == {"given_up": 1, "committed": 1}


async def test_who_asks_while_another_writes_waits_for_the_one_connection_and_neither_finds_the_database_away(
    direct: DirectLog, proxy: Proxy, records: Records, database_urls: DatabaseUrls
) -> None:
    await direct.close()  # made for its partitions
    sink = PostgresSink(proxy.url(database_urls.log), HASTE)
    sent = records.many(20)
    await sink.erased((), ())
    proxy.delay_s = 0.005  # long enough for the others to come meanwhile
    first = asyncio.ensure_future(sink.insert([records.one()]))
    writing = [asyncio.ensure_future(sink.insert([record])) for record in sent]
    asking = [asyncio.ensure_future(sink.erased((), ())) for _ in sent]
    await asyncio.sleep(0)
    writing.pop().cancel()  # who waits and goes away takes the connection from nobody
    told = await asyncio.gather(first, *writing, *asking, return_exceptions=True)
    await sink.close()

    assert [each for each in told if isinstance(each, BaseException)] == []
    assert proxy.connections == 1
    assert len(kept(database_urls, records.tenant_id)) == 20


@pytest.mark.parametrize("patience", [HASTE])
async def test_a_frozen_database_is_given_up_and_whoever_has_a_deadline_waits_no_longer_than_that(
    direct: DirectLog, proxy: Proxy, records: Records
) -> None:
    await direct.append(records.one())
    proxy.freeze()
    patient, hurried = (asyncio.ensure_future(direct.append(records.one(), deadline)) for deadline in (None, Deadline.after(0.05, CLOCK)))
    ended: list[asyncio.Future[None]] = []
    for each in (patient, hurried):
        each.add_done_callback(ended.append)
    await asyncio.wait([patient, hurried])
    assert ended == [hurried, patient]
    with pytest.raises(DeadlineExceeded):
        await hurried
    with pytest.raises(LogUnavailable):
        await patient


async def test_who_went_away_before_the_commit_leaves_nothing_behind(
    direct: DirectLog, records: Records, database_urls: DatabaseUrls
) -> None:
    gone, waiting = records.many(2)
    left, stayed = (asyncio.ensure_future(direct.append(record)) for record in (gone, waiting))
    await asyncio.sleep(0)
    left.cancel()
    await stayed

    assert set(kept(database_urls, records.tenant_id)) == {str(waiting.id)}


async def test_a_record_that_the_database_refuses_fails_alone(direct: DirectLog, records: Records, database_urls: DatabaseUrls) -> None:
    good = records.many(5)
    answers = await asyncio.gather(*(direct.append(record) for record in [*good, records.one(rows=-1)]), return_exceptions=True)

    assert [type(answer) for answer in answers] == [type(None)] * 5 + [LogUnavailable]
    assert set(kept(database_urls, records.tenant_id)) == {str(record.id) for record in good}


async def test_a_day_without_partition_is_no_answer(direct: DirectLog, records: Records, database_urls: DatabaseUrls) -> None:
    execute(database_urls.owner, f"drop table predictions_{CLOCK.now():%Y%m%d}")
    with pytest.raises(LogUnavailable):
        await direct.append(records.one())
    await ensure_partitions(database_urls.owner, CLOCK, days_ahead=1)
    record = records.one()
    await direct.append(record)

    assert set(kept(database_urls, records.tenant_id)) == {str(record.id)}


async def test_of_an_erased_unit_the_answer_is_kept_without_it_and_its_input_not_at_all(
    direct: DirectLog, records: Records, database_urls: DatabaseUrls
) -> None:
    tenant_id = records.tenant_id
    record = records.one(unit_hash="ab" * 16)
    execute(
        database_urls.runtime,
        "insert into tombstones (tenant_id, unit_hash, id, at) values ($1, $2, gen_random_uuid(), now())",
        tenant_id, "ab" * 16, tenant_id=tenant_id,
    )  # fmt: skip
    await asyncio.gather(direct.append(record), direct.append(records.captured(record, unit_hash="ab" * 16)))

    assert execute(database_urls.runtime, "select id, unit_hash from predictions", tenant_id=tenant_id) == [(record.id, None)]
    assert execute(database_urls.runtime, "select 1 from captured_inputs", tenant_id=tenant_id) == []
