"""A disk that really fills up: a file system of a megabyte, mounted by root."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from app.errors import LogUnavailable
from app.journal.depth import read_depth
from app.journal.drain import Drain
from app.journal.partitions import ensure_partitions
from app.journal.sink import PostgresSink
from app.journal.spool import Spool
from app.journal.types import Durability
from tests.integration.journal.processes import logged
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant
from tests.unit.journal.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
ROOM = 1 << 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"a file system of its own needs root: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def emptied(spool: Path, urls: DatabaseUrls, clock: ManualClock) -> Drain:
    """The drain that took everything out of `spool`."""
    await ensure_partitions(urls.owner, clock, days_ahead=1)
    sink = PostgresSink(urls.log)
    drain = Drain(spool, sink, clock)
    while await drain.step():
        pass
    await sink.close()
    return drain


async def test_durable_answers_are_refused_before_they_are_made_and_the_drain_makes_room_again(
    disk: Path, database_urls: DatabaseUrls, clock: ManualClock
) -> None:
    records = Records(clock, make_tenant(database_urls, "clinic"))
    spool, kept = Spool(disk / "spool", ROOM, clock), []
    with suppress(LogUnavailable):
        while True:
            spool.append_now(record := records.one())
            kept.append(str(record.id))
    for _ in range(3):
        with pytest.raises(LogUnavailable):
            spool.check_room()
        clock.advance(1)
    assert os.statvfs(disk).f_bavail == 0
    await emptied(disk / "spool", database_urls, clock)
    clock.advance(1)
    spool.check_room()
    spool.append_now(record := records.one())
    spool.close()
    await emptied(disk / "spool", database_urls, clock)

    assert len(kept) > 4000
    assert sorted(logged(database_urls, records.tenant_id)) == sorted([*kept, str(record.id)])
    assert read_depth(disk / "spool", clock).bytes == 0


async def test_buffered_answers_are_given_and_exactly_those_that_are_missing_were_counted(
    disk: Path, database_urls: DatabaseUrls, clock: ManualClock
) -> None:
    records = Records(clock, make_tenant(database_urls, "clinic"))
    spool = Spool(disk / "spool", ROOM, clock, flush_every_s=0.01)
    sent = []
    for _ in range(15_000):  # three times what fits on the disk, and in the buffer
        spool.check_room(Durability.BUFFERED)
        spool.append_now(record := records.one(), Durability.BUFFERED)
        sent.append(str(record.id))
    await emptied(disk / "spool", database_urls, clock)
    spool.close()
    await emptied(disk / "spool", database_urls, clock)
    arrived = logged(database_urls, records.tenant_id)

    assert spool.dropped > 1000
    assert spool.unwritten == 0
    assert len(arrived) == len(set(arrived)) == len(sent) - spool.dropped
    assert set(arrived) <= set(sent)


async def test_what_no_disk_takes_until_the_end_is_counted_too(disk: Path, database_urls: DatabaseUrls, clock: ManualClock) -> None:
    records = Records(clock, make_tenant(database_urls, "clinic"))
    spool = Spool(disk / "spool", ROOM, clock, flush_every_s=60)
    (disk / "others").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
    sent = [records.one() for _ in range(7_000)]
    for record in sent:
        spool.append_now(record, Durability.BUFFERED)
    spool.close()
    await emptied(disk / "spool", database_urls, clock)

    assert len(sent) - len(logged(database_urls, records.tenant_id)) == spool.dropped + spool.unwritten
    assert min(spool.dropped, spool.unwritten) > 1000
    assert execute(database_urls.runtime, "select sum(requests) from usage_deltas", tenant_id=records.tenant_id) == [(None,)]
