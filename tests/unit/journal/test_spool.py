"""The spool on a real file system, without other processes: files are what it is about."""

from __future__ import annotations

import asyncio
import errno
import os
from threading import Event
from typing import TYPE_CHECKING

import pytest

from app.errors import ConfigurationError, LogUnavailable
from app.journal.codec import encode, read_frames
from app.journal.layout import pending_bytes, segments_of, write_offset, writer_folders
from app.journal.spool import Spool
from app.journal.types import Durability
from tests.support.clock import ManualClock
from tests.unit.journal.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.journal.types import PredictionRecord

pytestmark = pytest.mark.unit
MIB = 1024 * 1024


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def spool(tmp_path: Path, clock: ManualClock) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", MIB, clock, flush_every_s=60)
    yield spool
    spool.close()


def failing(_descriptor: int) -> None:
    """A disk that does not take what it was given."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def written(tmp_path: Path) -> list[PredictionRecord]:
    """All whole records in the spool, a writer after the other."""
    found: list[PredictionRecord] = []
    for folder in writer_folders(tmp_path / "spool"):
        for segment in segments_of(folder):
            found += read_frames(segment.path.read_bytes())[0]
    return found


class TestDurable:
    def test_a_record_is_in_the_file_when_append_returns(self, spool: Spool, tmp_path: Path) -> None:
        records = Records().many(3)
        for record in records:
            spool.append_now(record)

        assert written(tmp_path) == records

    def test_folders_and_files_are_for_their_owner_alone(self, spool: Spool, tmp_path: Path) -> None:
        spool.append_now(Records().one())

        assert {oct(path.stat().st_mode & 0o777) for path in [tmp_path / "spool", *writer_folders(tmp_path / "spool")]} == {"0o700"}
        assert {oct(path.stat().st_mode & 0o777) for path in writer_folders(tmp_path / "spool")[0].iterdir()} == {"0o600"}

    def test_a_full_segment_is_sealed_and_the_next_begun(self, tmp_path: Path, clock: ManualClock) -> None:
        records = Records().many(5)
        spool = Spool(tmp_path / "spool", MIB, clock, segment_bytes=2 * len(encode(records[0])))
        for record in records:
            spool.append_now(record)

        assert [(s.number, s.sealed) for s in segments_of(writer_folders(tmp_path / "spool")[0])] == [(1, True), (2, True), (3, False)]
        assert written(tmp_path) == records
        spool.close()

    def test_an_old_segment_is_sealed_at_the_next_record(self, spool: Spool, tmp_path: Path, clock: ManualClock) -> None:
        spool.append_now(Records().one())
        clock.advance(31)
        spool.append_now(Records().one())

        assert [s.sealed for s in segments_of(writer_folders(tmp_path / "spool")[0])] == [True, False]

    def test_an_old_segment_is_sealed_also_where_nothing_follows_and_an_empty_one_is_left_alone(
        self, spool: Spool, tmp_path: Path, clock: ManualClock
    ) -> None:
        spool.append_now(Records().one())
        spool.seal_old()
        assert [s.sealed for s in segments_of(writer_folders(tmp_path / "spool")[0])] == [False]
        clock.advance(31)
        spool.seal_old()
        clock.advance(31)
        spool.seal_old()

        assert [(s.number, s.sealed) for s in segments_of(writer_folders(tmp_path / "spool")[0])] == [(1, True), (2, False)]
        spool.close()
        spool.seal_old()

    def test_closing_seals_what_is_there_and_twice_does_no_harm(self, spool: Spool, tmp_path: Path) -> None:
        spool.append_now(Records().one())
        spool.close()
        spool.close()

        assert [s.sealed for s in segments_of(writer_folders(tmp_path / "spool")[0])] == [True]
        with pytest.raises(LogUnavailable):
            spool.append_now(Records().one())


class TestFsync:
    async def test_many_wait_for_few_syncs_and_each_is_on_disk_first(
        self, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        really = os.fdatasync

        def fdatasync(descriptor: int) -> None:
            really(descriptor)
            synced.append(os.fstat(descriptor).st_size)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        records = Records().many(50)
        await asyncio.gather(*(spool.append(record, Durability.DURABLE_FSYNC) for record in records))

        assert synced[-1] == sum(len(encode(record)) for record in records)
        assert len(synced) <= 3
        assert written(tmp_path) == records

    async def test_segments_sealed_before_their_sync_are_synced_too(
        self, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: set[int] = set()
        really = os.fdatasync

        def fdatasync(descriptor: int) -> None:
            really(descriptor)
            synced.add(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        records = Records().many(9)
        spool = Spool(tmp_path / "spool", MIB, clock, segment_bytes=2 * len(encode(records[0])))
        await asyncio.gather(*(spool.append(record, Durability.DURABLE_FSYNC) for record in records))

        assert {s.path.stat().st_ino for s in segments_of(writer_folders(tmp_path / "spool")[0])} == synced
        spool.close()

    async def test_a_disk_that_fails_to_sync_is_told_to_all_who_waited(
        self, spool: Spool, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", failing)
            answers = await asyncio.gather(
                *(spool.append(record, Durability.DURABLE_FSYNC) for record in Records().many(3)), return_exceptions=True
            )
        assert [type(answer) for answer in answers] == [LogUnavailable] * 3
        with pytest.raises(LogUnavailable) as refused:
            spool.check_room(Durability.DURABLE_FSYNC)
        assert refused.value.details == {"retry_after_ms": 1000}
        spool.check_room(Durability.DURABLE)
        clock.advance(1)
        spool.check_room(Durability.DURABLE_FSYNC)
        await spool.append(Records().one(), Durability.DURABLE_FSYNC)

    async def test_a_file_whose_sync_failed_is_never_synced_again_nor_written_and_who_wrote_to_it_meanwhile_learns_it(
        self, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        begun, go_on = Event(), Event()
        really = os.fdatasync

        def fails_once(descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_ino)
            if len(synced) == 1:
                begun.set()
                go_on.wait(10)
                failing(descriptor)
            really(descriptor)

        monkeypatch.setattr(os, "fdatasync", fails_once)
        first, meanwhile, later = Records().many(3)
        waiting = [asyncio.create_task(spool.append(first, Durability.DURABLE_FSYNC))]
        await asyncio.to_thread(begun.wait, 10)
        waiting.append(asyncio.create_task(spool.append(meanwhile, Durability.DURABLE_FSYNC)))
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        await spool.append(later, Durability.DURABLE_FSYNC)
        old, new = segments_of(writer_folders(tmp_path / "spool")[0])

        assert [type(answer) for answer in answers] == [LogUnavailable] * 2
        assert synced == [old.path.stat().st_ino, new.path.stat().st_ino]
        assert (old.sealed, read_frames(new.path.read_bytes())[0]) == (True, [later])

    async def test_where_no_other_file_can_be_had_after_a_failed_sync_nothing_is_written_before_one_can(
        self, spool: Spool, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, refused, later = Records().many(3)
        really = os.open

        def full(path: object, flags: int, *more: int, **named: int) -> int:
            if flags & os.O_EXCL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return really(path, flags, *more, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", failing)
            broken.setattr(os, "open", full)
            with pytest.raises(LogUnavailable):
                await spool.append(first, Durability.DURABLE_FSYNC)
            with pytest.raises(LogUnavailable):
                spool.append_now(refused)
            clock.advance(1)
            with pytest.raises(LogUnavailable):
                spool.check_room()
        clock.advance(1)
        spool.check_room()
        await spool.append(later, Durability.DURABLE_FSYNC)

        assert [read_frames(s.path.read_bytes())[0] for s in segments_of(writer_folders(tmp_path / "spool")[0])] == [[first], [later]]

    async def test_a_caller_who_goes_away_does_not_disturb_the_others(self, spool: Spool) -> None:
        first, second = Records().many(2)
        leaving = asyncio.create_task(spool.append(first, Durability.DURABLE_FSYNC))
        staying = asyncio.create_task(spool.append(second, Durability.DURABLE_FSYNC))
        await asyncio.sleep(0)
        leaving.cancel()

        assert await staying is None
        with pytest.raises(asyncio.CancelledError):
            await leaving


class TestBuffered:
    def test_a_record_waits_in_memory_and_goes_before_the_next_durable_one(self, spool: Spool, tmp_path: Path) -> None:
        first, second = Records().many(2)
        spool.append_now(first, Durability.BUFFERED)
        assert written(tmp_path) == []
        spool.append_now(second)

        assert written(tmp_path) == [first, second]

    def test_closing_writes_the_buffer(self, spool: Spool, tmp_path: Path) -> None:
        record = Records().one()
        spool.append_now(record, Durability.BUFFERED)
        spool.close()

        assert written(tmp_path) == [record]

    def test_the_flusher_writes_it_by_itself(self, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
        flushed = Event()
        really = os.write
        spool = Spool(tmp_path / "spool", MIB, clock, flush_every_s=0.001)

        def write(descriptor: int, data: bytes) -> int:
            done = really(descriptor, data)
            flushed.set()
            return done

        monkeypatch.setattr(os, "write", write)
        record = Records().one()
        spool.append_now(record, Durability.BUFFERED)

        assert flushed.wait(10)
        assert written(tmp_path) == [record]
        spool.close()


class Disk:
    """Lets only so many bytes through, as a disk that fills up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self._write(descriptor, data[: self.left])
        self.left -= done
        return done


class TestFullDisk:
    @pytest.fixture
    def disk(self, monkeypatch: pytest.MonkeyPatch) -> Disk:
        return Disk(monkeypatch)

    def test_at_every_byte_the_record_is_refused_and_the_file_ends_with_a_whole_one(self, spool: Spool, disk: Disk, tmp_path: Path) -> None:
        records = Records()
        kept = [records.one()]
        spool.append_now(kept[0])
        for room in range(len(encode(kept[0]))):
            disk.left = room
            with pytest.raises(LogUnavailable):
                spool.append_now(records.one())
            disk.left = 10**9
            kept.append(records.one())
            spool.append_now(kept[-1])

        assert written(tmp_path) == kept
        assert pending_bytes(tmp_path / "spool") == sum(len(encode(record)) for record in kept)

    def test_nothing_is_predicted_until_the_disk_takes_bytes_again(
        self, spool: Spool, disk: Disk, clock: ManualClock, tmp_path: Path
    ) -> None:
        disk.left = 0
        with pytest.raises(LogUnavailable):
            spool.append_now(Records().one())
        with pytest.raises(LogUnavailable) as refused:
            spool.check_room()
        clock.advance(1)
        with pytest.raises(LogUnavailable):
            spool.check_room()
        disk.left = 10**9
        with pytest.raises(LogUnavailable):  # asked a moment ago
            spool.check_room()
        clock.advance(1)
        spool.check_room()

        assert refused.value.details == {"retry_after_ms": 1000}
        assert pending_bytes(tmp_path / "spool") == 0

    def test_buffered_records_are_served_and_exactly_the_missing_ones_counted(self, spool: Spool, disk: Disk, tmp_path: Path) -> None:
        records = Records().many(6000)
        disk.left = 0
        for record in records:
            spool.check_room(Durability.BUFFERED)
            spool.append_now(record, Durability.BUFFERED)
        disk.left = 10**9
        spool.flush()

        assert spool.dropped > 0
        assert written(tmp_path) == records[spool.dropped :]

    def test_whole_records_of_a_cut_off_flush_stay_and_are_not_written_twice(self, spool: Spool, disk: Disk, tmp_path: Path) -> None:
        records = Records().many(3)
        for record in records:
            spool.append_now(record, Durability.BUFFERED)
        disk.left = len(encode(records[0])) + 5
        spool.flush()
        assert written(tmp_path) == records[:1]
        disk.left = 10**9
        spool.flush()

        assert written(tmp_path) == records


class TestBound:
    def test_at_the_bound_a_prediction_is_refused_before_it_is_made(self, tmp_path: Path, clock: ManualClock) -> None:
        records = Records().many(4)
        size = len(encode(records[0]))
        spool = Spool(tmp_path / "spool", 3 * size, clock)
        for record in records[:3]:
            spool.check_room()
            spool.append_now(record)
        with pytest.raises(LogUnavailable) as refused:
            spool.check_room()
        assert refused.value.details == {"retry_after_ms": 1000}
        spool.close()

    def test_what_other_processes_wrote_counts_within_a_second(self, tmp_path: Path, clock: ManualClock) -> None:
        record = Records().one()
        ours, theirs = (Spool(tmp_path / "spool", len(encode(record)), clock) for _ in range(2))
        ours.check_room()
        theirs.append_now(record)
        clock.advance(1)
        with pytest.raises(LogUnavailable):
            ours.check_room()
        ours.close()
        theirs.close()

    def test_what_is_drained_makes_room_also_in_a_segment_that_is_still_open(self, tmp_path: Path, clock: ManualClock) -> None:
        record = Records().one()
        spool = Spool(tmp_path / "spool", len(encode(record)), clock)
        spool.append_now(record)
        write_offset(segments_of(writer_folders(tmp_path / "spool")[0])[0], len(encode(record)))
        clock.advance(1)
        spool.check_room()
        spool.close()


def test_records_go_on_when_somebody_deletes_the_spool_under_us(spool: Spool, tmp_path: Path, clock: ManualClock) -> None:
    import shutil

    spool.append_now(Records().one())
    shutil.rmtree(tmp_path / "spool")
    clock.advance(1)
    spool.check_room()
    record = Records().one()
    spool.append_now(record)

    assert written(tmp_path) == [record]


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(ConfigurationError, match="TURNOUT_HOME"):
        Spool(tmp_path / "spool", MIB, clock)
