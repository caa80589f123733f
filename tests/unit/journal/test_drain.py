"""The drain against a sink of ours that can be told to fail: what moves, what stays, what is set aside."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zlib import crc32

import orjson
import pytest

from app.journal.codec import encode, read_frames, split_frames
from app.journal.depth import missing_days, read_depth
from app.journal.drain import Drain
from app.journal.layout import LOCK, pending_bytes, segments_of, take_lock, writer_folders
from app.journal.sink import PartitionMissing, RecordsRefused, SinkUnavailable
from app.journal.spool import Spool
from app.journal.types import Durability, InputRecord, PredictionRecord, ShadowRecord
from tests.support.clock import ManualClock
from tests.unit.journal.records import Records, ids

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path
    from uuid import UUID

    from app.journal.types import Record

pytestmark = pytest.mark.unit
MIB = 1024 * 1024


class MemorySink:
    """The tables as a dictionary: a record that comes twice meets its own key."""

    def __init__(self) -> None:
        self.rows: dict[object, Record] = {}
        self.sizes: list[int] = []  # of what was given together
        self.away = False
        self.days_missing: set[str] = set()
        self.stones: dict[tuple[UUID, str], datetime] = {}
        self.refuses: Callable[[Record], bool] = lambda _record: False

    async def insert(self, records: Sequence[Record]) -> None:
        if self.away:
            raise SinkUnavailable("the database")
        if any(self.refuses(record) for record in records):
            raise RecordsRefused("CheckViolationError")
        if any(record.at.date().isoformat() in self.days_missing for record in records):
            raise PartitionMissing
        self.rows.update({key(record): record for record in records})
        self.sizes += [len(records)] if records else []

    async def erased(self, tenants: Collection[UUID], hashes: Collection[str]) -> dict[tuple[UUID, str], datetime]:
        return {unit: at for unit, at in self.stones.items() if unit[0] in tenants or unit[1] in hashes}

    async def close(self) -> None:
        pass


def key(record: Record) -> object:
    return (record.id, record.kind, record.variant, record.row) if isinstance(record, ShadowRecord) else (type(record), record.id)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def records(clock: ManualClock) -> Records:
    return Records(clock)


def spool_of(folder: Path, clock: ManualClock, **options: int) -> Spool:
    return Spool(folder, MIB, clock, **options)


def dead_writer(folder: Path, name: str, data: bytes) -> None:
    (folder / name).mkdir(parents=True, mode=0o700)
    (folder / name / "1.open").write_bytes(data)
    (folder / name / LOCK).touch()


async def emptied(drain: Drain) -> None:
    while await drain.step():
        pass


class TestMoving:
    async def test_records_of_a_living_writer_move_as_they_come(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        sent = []
        for _ in range(3):
            sent.append(records.one())
            spool.append_now(sent[-1])
            await emptied(drain)
            assert list(sink.rows.values()) == sent
        assert pending_bytes(folder) == 0
        spool.close()

    async def test_sealed_segments_and_at_last_the_writers_folder_are_deleted(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool = spool_of(folder, clock, segment_bytes=1)
        drain = Drain(folder, sink, clock)
        sent = records.many(3)
        for record in sent:
            spool.append_now(record)
        await emptied(drain)
        assert [segment.sealed for segment in segments_of(writer_folders(folder)[0])] == [False]
        spool.close()
        await emptied(drain)

        assert writer_folders(folder) == []
        assert list(sink.rows.values()) == sent

    async def test_a_batch_is_bounded_and_nothing_is_skipped(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool = spool_of(folder, clock, segment_bytes=5 * len(encode(records.one())))
        sent = records.many(53)
        for record in sent:
            spool.append_now(record)
        await emptied(Drain(folder, sink, clock, batch=7))

        assert list(sink.rows.values()) == sent
        assert sink.sizes == [10] * 5 + [3]
        spool.close()

    async def test_what_was_read_ahead_of_a_failed_batch_is_read_again_and_arrives_in_its_place(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool = spool_of(folder, clock, segment_bytes=5 * len(encode(records.one())))
        sent = records.many(53)
        for record in sent:
            spool.append_now(record)
        spool.close()
        drain, insert, given = Drain(folder, sink, clock, batch=7), sink.insert, 0

        async def now_and_then(batch: Sequence[Record]) -> None:
            nonlocal given
            given += 1
            if given % 3 == 0:
                raise SinkUnavailable("the database")
            await insert(batch)

        sink.insert = now_and_then  # type: ignore[method-assign]
        failed = 0
        while pending_bytes(folder):
            try:
                await drain.step()
            except SinkUnavailable:
                failed += 1

        assert (list(sink.rows.values()), failed) == (sent, 2)

    async def test_a_drain_that_starts_again_goes_on_where_the_last_one_committed(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool = spool_of(folder, clock)
        first, second = records.many(2)
        spool.append_now(first)
        await emptied(Drain(folder, sink, clock))
        sink.rows.clear()
        spool.append_now(second)
        await emptied(Drain(folder, sink, clock))

        assert list(sink.rows.values()) == [second]
        spool.close()

    async def test_what_shadows_said_moves_beside_the_answers_although_it_is_only_buffered(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        answered = records.one()
        said = [records.shadow(answered, row=row, variant=variant) for row in (0, 1) for variant in ("a", "b")]
        spool.append_now(answered)
        for each in said:
            spool.append_now(each, Durability.BUFFERED)
        await emptied(drain)
        assert list(sink.rows.values()) == [answered]
        spool.flush()
        clock.advance(60)
        assert read_depth(folder, clock).oldest_age_s == 60.0
        await emptied(drain)

        assert list(sink.rows.values()) == [answered, *said]
        spool.close()

    @pytest.mark.parametrize("content", [b"torn", b"\xff\x00\x00\x00\x00\x00\x00\x00torn"])
    async def test_an_offset_file_that_cannot_be_read_means_a_harmless_replay(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records, content: bytes
    ) -> None:
        spool = spool_of(folder, clock)
        sent = records.many(2)
        spool.append_now(sent[0])
        await emptied(Drain(folder, sink, clock))
        next(writer_folders(folder)[0].glob("*.offset")).write_bytes(content)
        spool.append_now(sent[1])
        await emptied(Drain(folder, sink, clock))

        assert list(sink.rows.values()) == sent
        spool.close()


class TestTheDead:
    @pytest.mark.parametrize("kind", [PredictionRecord, ShadowRecord, InputRecord])
    async def test_a_torn_tail_of_any_kind_is_cut_at_every_byte_of_any_segment_and_all_whole_records_arrive(
        self, folder: Path, clock: ManualClock, records: Records, kind: type[Record]
    ) -> None:
        first, second = records.of_all_kinds(), records.of_all_kinds()
        torn = next(encode(record) for record in records.of_all_kinds() if isinstance(record, kind))
        for cut in range(len(torn)):
            dead_writer(folder, f"{cut}-1-x", b"".join(map(encode, first)) + torn[:cut])
            (folder / f"{cut}-1-x" / "1.open").rename(folder / f"{cut}-1-x" / "1.sealed")
            (folder / f"{cut}-1-x" / "2.open").write_bytes(b"".join(map(encode, second)) + torn[:cut])
            sink = MemorySink()
            await emptied(Drain(folder, sink, clock))
            assert list(sink.rows.values()) == [*first, *second]
        assert writer_folders(folder) == []
        assert list((folder / "quarantine").iterdir()) == []

    async def test_wherever_in_a_record_the_drain_ends_to_read_nothing_is_skipped(
        self, folder: Path, clock: ManualClock, records: Records, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = records.of_all_kinds()
        longest = max(len(encode(record)) for record in sent)
        for more in range(longest + 1):
            monkeypatch.setattr("app.journal.reader._READ_BYTES", longest + more)
            dead_writer(folder, f"{more}-1-x", b"".join(map(encode, sent)))
            sink = MemorySink()
            await emptied(Drain(folder, sink, clock))
            assert list(sink.rows.values()) == sent
        assert list((folder / "quarantine").iterdir()) == []

    async def test_a_writer_that_dies_while_the_drain_runs_is_adopted_with_what_it_had_not_sealed(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        dead_writer(folder, "1-1-x", b"")
        alive = take_lock(folder / "1-1-x" / LOCK)
        assert alive is not None
        drain, last = Drain(folder, sink, clock), records.one()
        assert await drain.step() == 0
        (folder / "1-1-x" / "1.open").write_bytes(encode(last) + encode(records.one())[:-1])
        assert await drain.step() == 1
        os.close(alive)
        await emptied(drain)

        assert list(sink.rows.values()) == [last]
        assert writer_folders(folder) == []

    async def test_a_damaged_stretch_is_kept_aside_and_the_records_behind_it_arrive(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        sent = records.of_both_kinds()
        frames = [encode(record) for record in sent]
        frames[1] = frames[1][:-1] + b"?"
        dead_writer(folder, "1-1-x", b"".join(frames))
        await emptied(Drain(folder, sink, clock))

        assert list(sink.rows.values()) == [sent[0], sent[2]]
        assert (folder / "quarantine" / f"1-1-x-1-{len(frames[0])}.bytes").read_bytes() == frames[1]

    async def test_a_damaged_last_record_is_kept_aside_not_cut(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        damaged = encode(records.one())[:-1] + b"?"
        dead_writer(folder, "1-1-x", damaged)
        await emptied(Drain(folder, sink, clock))

        assert (folder / "quarantine" / "1-1-x-1-0.bytes").read_bytes() == damaged
        assert writer_folders(folder) == []

    @pytest.mark.parametrize("size_bytes", [3 * MIB, MIB - 100, 2 * MIB - 200_000])
    async def test_a_megabyte_of_rubbish_does_not_stop_the_drain(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records, size_bytes: int
    ) -> None:
        last = records.one()
        rubbish = os.urandom(size_bytes)
        dead_writer(folder, "1-1-x", rubbish + encode(last))
        await emptied(Drain(folder, sink, clock))

        assert list(sink.rows.values()) == [last]
        kept = sorted((folder / "quarantine").iterdir(), key=lambda path: int(path.stem.rpartition("-")[2]))
        assert b"".join(path.read_bytes() for path in kept) == rubbish

    async def test_an_open_segment_of_the_living_is_left_alone_where_it_is_torn(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        record = records.one()
        dead_writer(folder, "1-1-x", encode(record)[:-1])
        lock = take_lock(folder / "1-1-x" / LOCK)
        assert lock is not None
        drain = Drain(folder, sink, clock)
        assert await drain.step() == 0
        (folder / "1-1-x" / "1.open").write_bytes(encode(record))
        await emptied(drain)

        assert list(sink.rows.values()) == [record]
        os.close(lock)


class TestTheDatabaseAway:
    async def test_nothing_is_lost_and_nothing_noted_while_it_is_away(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        sent = records.many(2)
        spool.append_now(sent[0])
        sink.away = True
        with pytest.raises(SinkUnavailable):
            await drain.step()
        spool.append_now(sent[1])
        clock.advance(60)
        depth = read_depth(folder, clock)
        assert (depth.bytes, depth.oldest_age_s) == (sum(len(encode(record)) for record in sent), 60.0)
        sink.away = False
        await emptied(drain)

        assert list(sink.rows.values()) == sent
        assert read_depth(folder, clock).bytes == 0
        spool.close()

    async def test_the_end_says_how_many_records_stay(self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records) -> None:
        stop = asyncio.Event()
        stop.set()
        with_record = spool_of(folder, clock)
        with_record.append_now(records.one())
        sink.away = True
        assert await Drain(folder, sink, clock).run(stop, last_effort_s=5) == 1
        assert read_depth(folder, clock).drain_age_s == 0.0
        sink.away = False
        assert await Drain(folder, sink, clock).run(stop, last_effort_s=5) == 0
        with_record.close()


class TestPace:
    async def test_after_a_full_batch_the_next_follows_at_once_and_what_drips_is_gathered(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock, batch=2)
        pauses = []
        for several in (2, 1, 0):
            for _ in range(several):
                spool.append_now(records.one())
            pauses.append(await drain._round())
        assert (pauses, len(sink.rows)) == ([0.0, 0.05, 0.05], 3)
        spool.close()

    async def test_it_does_not_pause_while_more_is_there_than_is_read_at_once(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        for _ in range(200):  # 12 MB: far from a full batch, and much for one reading
            spool.append_now(records.one(model="m" * 60_000))
        rounds = 0
        while await drain._round() == 0.0:
            rounds += 1
        assert (rounds > 10, len(sink.rows)) == (True, 200)
        spool.close()


class TestNoPartition:
    async def test_todays_records_wait_where_they_are(self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        record = records.one()
        spool.append_now(record)
        sink.days_missing = {"2026-03-01"}
        assert await drain._round() > 0
        assert (read_depth(folder, clock).waiting_for, missing_days(folder)) == ("the partition of today", [date(2026, 3, 1)])
        sink.days_missing = set()
        await emptied(drain)

        assert list(sink.rows.values()) == [record]
        spool.close()

    async def test_another_days_record_is_held_lets_the_others_pass_and_arrives_when_its_day_is_made(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        stray = records.one(id=ids(datetime(2025, 1, 1, tzinfo=UTC)))
        beside = records.shadow(stray)
        today = records.one()
        spool.append_now(stray)
        spool.append_now(beside)
        spool.append_now(today)
        sink.days_missing = {"2025-01-01"}
        await emptied(drain)
        await drain.retry_held()
        assert list(sink.rows.values()) == [today]
        assert pending_bytes(folder) == len(encode(stray)) + len(encode(beside))
        for asking in (drain, Drain(folder, sink, clock)):
            asking._speak()
            assert missing_days(folder) == [date(2025, 1, 1)]

        sink.days_missing = set()
        again = Drain(folder, sink, clock)
        await again.retry_held()
        again._speak()
        assert missing_days(folder) == []
        assert list(sink.rows.values()) == [today, stray, beside]
        assert pending_bytes(folder) == 0
        spool.close()


class TestPoison:
    async def test_only_the_refused_records_go_into_quarantine_and_once(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        sent = [records.one(rows=-1 if n in {0, 17, 41} else 1) for n in range(42)]
        for record in sent:
            spool.append_now(record)
        sink.refuses = lambda record: not isinstance(record, ShadowRecord) and record.rows < 0
        sink.days_missing = {"2026-03-01"}
        for _ in range(3):
            with pytest.raises(SinkUnavailable):
                await drain.step()
        sink.days_missing = set()
        await emptied(drain)

        assert list(sink.rows.values()) == [record for record in sent if record.rows > 0]
        assert read_frames((folder / "quarantine" / "2026-03-01.frames").read_bytes())[0] == [r for r in sent if r.rows < 0]
        spool.close()

    async def test_what_waits_in_quarantine_is_looked_at_every_ten_minutes_for_who_was_erased(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool, drain = spool_of(folder, clock), Drain(folder, sink, clock)
        record = records.one(rows=-1)
        spool.append_now(record)
        sink.refuses = lambda _record: True
        await emptied(drain)
        kept = folder / "quarantine" / "2026-03-01.frames"
        seen = []
        sink.stones = {(record.tenant_id, str(record.unit_hash)): clock.now()}
        for seconds in (0, 599, 31):
            clock.advance(seconds)
            await drain._round()
            seen.append(read_frames(kept.read_bytes())[0])
            if not seconds:
                assert seen == [[record._replace(unit_hash=None)]]
                kept.write_bytes(encode(record))

        assert seen[1:] == [[record], [record._replace(unit_hash=None)]]
        spool.close()

    async def test_a_refused_word_of_a_shadow_is_put_into_quarantine_and_its_answer_arrives(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        spool = spool_of(folder, clock)
        answered, beside, other = records.of_both_kinds()
        for record in (answered, beside, other):
            spool.append_now(record)
        sink.refuses = lambda record: isinstance(record, ShadowRecord)
        await emptied(Drain(folder, sink, clock))

        assert list(sink.rows.values()) == [answered, other]
        assert read_frames((folder / "quarantine" / "2026-03-01.frames").read_bytes())[0] == [beside]
        spool.close()

    async def test_a_record_of_a_format_that_we_do_not_know_is_kept_aside(
        self, folder: Path, clock: ManualClock, sink: MemorySink, records: Records
    ) -> None:
        strange = b'["of another make"]'
        record = records.one()
        dead_writer(folder, "1-1-x", framed(strange) + encode(record))
        await emptied(Drain(folder, sink, clock))

        assert list(sink.rows.values()) == [record]
        assert (folder / "quarantine" / "1-1-x-1-0.bytes").read_bytes() == strange


async def test_a_spool_that_a_later_make_wrote_is_read_and_what_nobody_knows_of_it_is_kept(
    folder: Path, clock: ManualClock, sink: MemorySink, records: Records
) -> None:
    known = records.of_all_kinds()
    later = [grown(record) for record in known]
    unknown = b'["explanation",1,"of another kind"]'
    dead_writer(folder, "1-1-x", b"".join((later[0], framed(unknown), *later[1:])))
    await emptied(Drain(folder, sink, clock))

    assert list(sink.rows.values()) == known
    assert [path.read_bytes() for path in (folder / "quarantine").iterdir()] == [unknown]
    assert writer_folders(folder) == []


def grown(record: Record) -> bytes:
    """The record as a later format may write it: a higher number, and more fields."""
    fields = orjson.loads(split_frames(encode(record))[0][0])
    place = 0 if isinstance(fields[0], int) else 1
    fields[place] += 1
    return framed(orjson.dumps([*fields, "later", None]))


def framed(payload: bytes) -> bytes:
    return b"\xa7J" + len(payload).to_bytes(2, "little") + crc32(payload, len(payload)).to_bytes(4, "little") + payload


async def test_a_folder_left_by_a_writer_that_died_at_birth_is_cleared(folder: Path, sink: MemorySink) -> None:
    unborn = folder / ".new-1-1-x"
    unborn.mkdir(parents=True)
    now = ManualClock(datetime.now(UTC) + timedelta(minutes=2))
    drain = Drain(folder, sink, now)
    drain._reader.clear_unborn()

    assert not unborn.exists()


async def test_the_last_effort_gives_each_record_once(folder: Path, clock: ManualClock, sink: MemorySink, records: Records) -> None:
    for number in range(6):
        dead_writer(folder, f"{number}-1-x", b"".join(encode(records.one()) for _ in range(10)))
    stop = asyncio.Event()
    stop.set()
    assert await Drain(folder, sink, clock, batch=10).run(stop, last_effort_s=5) == 0
    assert sink.sizes == [10] * 6


def test_an_empty_spool_and_none_at_all_have_no_depth(folder: Path, clock: ManualClock) -> None:
    depth = read_depth(folder, clock)

    assert (depth.bytes, depth.records, depth.oldest_age_s, depth.drain_age_s, depth.waiting_for) == (0, 0, 0.0, None, None)
