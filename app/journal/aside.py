"""Records that cannot go the usual way: kept beside the spool, on the disk before the segment that held them is let go."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import structlog

from app.journal.codec import decode, encode, split_frames
from app.journal.layout import HELD, QUARANTINE, SEALED, Segment, segments_of
from app.journal.types import ERASURE_GRACE, WHOLE_TENANT, PredictionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from app.journal.sink import Sink
    from app.journal.types import Record
    from app.kernel.clock import Clock

_RECORDS, _BYTES = ".frames", ".bytes"
_PSEUDONYM = re.compile(rb"[0-9a-f]{32}")
_log = structlog.get_logger(__name__)


class Aside:
    """`held/`: whole records whose day has no partition, tried again. `quarantine/`: what only a person can judge."""

    def __init__(self, spool: Path, clock: Clock) -> None:
        self._held, self._quarantine, self._clock = spool / HELD, spool / QUARANTINE, clock
        for folder in (self._held, self._quarantine):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._days = {segment.number: _days_of(_records_in(segment.path)) for segment in self.held_segments()}
        self.held = sum(len(frames_in(segment.path.read_bytes())) for segment in self.held_segments())
        self.quarantined = sum(len(frames_in(path.read_bytes())) for path in self._quarantine.glob(f"*{_RECORDS}"))
        self.quarantined += sum(1 for _ in self._quarantine.glob(f"*{_BYTES}"))

    @property
    def held_days(self) -> set[str]:
        """Of which days records are held, as `2026-03-01`."""
        return set().union(*self._days.values())

    def held_segments(self) -> list[Segment]:
        return segments_of(self._held)

    def hold(self, records: Sequence[Record]) -> None:
        """Keeps `records` until their days have partitions."""
        number = self._clock.time_ms()
        while (self._held / f"{number}{SEALED}").exists():
            number += 1
        _write_whole(self._held / f"{number}{SEALED}", b"".join(map(encode, records)))
        self._days[number] = _days_of(records)
        self.held += len(records)
        _log.error("journal.held", records=len(records), days=sorted(self._days[number]))

    def release(self, segment: Segment, records: int) -> None:
        """The `records` of a held segment are in the database."""
        segment.path.unlink(missing_ok=True)
        self._days.pop(segment.number, None)
        self.held -= records
        _log.info("journal.held_released", records=records)

    def refuse(self, record: Record, reason: str) -> None:
        """Puts one whole record where the drain does not look again."""
        self._append(f"{record.at.date().isoformat()}{_RECORDS}", encode(record))
        self.quarantined += 1
        _log.error("journal.quarantined", id=str(record.id), tenant_id=str(record.tenant_id), reason=reason)

    def keep_damaged(self, segment: Segment, offset: int, data: bytes, reason: str) -> None:
        """Keeps bytes that are no record that we can read."""
        name = f"{segment.folder.name}-{segment.number}-{offset}{_BYTES}"
        self._append(name, data)
        self.quarantined += 1
        _log.error("journal.damaged", file=name, size_bytes=len(data), reason=reason)

    async def heed(self, sink: Sink) -> int:
        """How many records and pieces in quarantine were of the erased, and lost their unit or are gone. Raises SinkUnavailable.

        Of bytes that nobody can read all go with the first pseudonym of an erased unit in them.
        """
        changed = 0
        for path in self._quarantined():
            tenants, hashes = _named_in(path)
            if (tenants or hashes) and (erased := await sink.erased(tenants, hashes)):
                changed += self._without(path, erased)
        if changed:
            _log.info("journal.quarantine_heeded", records=changed)
        return changed

    def _quarantined(self) -> list[Path]:
        return sorted(path for path in self._quarantine.iterdir() if path.suffix in {_RECORDS, _BYTES})

    def _without(self, path: Path, erased: Mapping[tuple[UUID, str], datetime]) -> int:
        if path.suffix == _BYTES:
            path.unlink()
            self.quarantined -= 1
            return 1
        records = _records_in(path)
        kept = [heeded for record in records if (heeded := without_erased(record, erased)) is not None]
        if kept:
            _write_whole(path, b"".join(map(encode, kept)))
        else:
            path.unlink()
        self.quarantined -= len(records) - len(kept)
        return sum(record not in kept for record in records)

    def _append(self, name: str, data: bytes) -> None:
        descriptor = os.open(self._quarantine / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def without_erased(record: Record, erased: Mapping[tuple[UUID, str], datetime]) -> Record | None:
    """What may be kept of `record`, by the rule of the statement that inserts: an answer without its unit, of all others nothing."""
    if (record.tenant_id, WHOLE_TENANT) in erased:
        return None
    at = None if record.unit_hash is None else erased.get((record.tenant_id, record.unit_hash))
    if at is None or record.at > at + ERASURE_GRACE:
        return record
    return record._replace(unit_hash=None) if isinstance(record, PredictionRecord) else None


def _named_in(path: Path) -> tuple[set[UUID], set[str]]:
    """The tenants and the pseudonyms of units in a file of the quarantine; of bytes all that look like pseudonyms."""
    if path.suffix == _BYTES:
        return set(), {name.decode() for name in _PSEUDONYM.findall(path.read_bytes())}
    records = _records_in(path)
    return {record.tenant_id for record in records}, {record.unit_hash for record in records if record.unit_hash is not None}


def _records_in(path: Path) -> list[Record]:
    return [decode(payload) for payload in frames_in(path.read_bytes())]


def _days_of(records: Sequence[Record]) -> set[str]:
    return {record.at.date().isoformat() for record in records}


def frames_in(data: bytes) -> list[bytes]:
    """The payloads of the whole frames in `data`, whatever follows them."""
    return split_frames(data)[0]


def _write_whole(path: Path, data: bytes) -> None:
    """All or nothing under the name `path`, and on the disk."""
    draft = path.with_suffix(".draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
