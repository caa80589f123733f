"""Records that cannot go the usual way: kept beside the spool, on the disk before the segment that held them is let go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from app.journal.codec import encode, split_frames
from app.journal.layout import HELD, QUARANTINE, SEALED, Segment, segments_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.journal.types import Record
    from app.kernel.clock import Clock

_log = structlog.get_logger(__name__)


class Aside:
    """`held/`: whole records whose day has no partition, tried again. `quarantine/`: what only a person can judge."""

    def __init__(self, spool: Path, clock: Clock) -> None:
        self._held, self._quarantine, self._clock = spool / HELD, spool / QUARANTINE, clock
        for folder in (self._held, self._quarantine):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.held = sum(len(frames_in(segment.path.read_bytes())) for segment in self.held_segments())
        self.quarantined = sum(len(frames_in(path.read_bytes())) for path in self._quarantine.glob("*.frames"))
        self.quarantined += sum(1 for _ in self._quarantine.glob("*.bytes"))

    def held_segments(self) -> list[Segment]:
        return segments_of(self._held)

    def hold(self, records: Sequence[Record]) -> None:
        """Keeps `records` until their days have partitions."""
        number = self._clock.time_ms()
        while (self._held / f"{number}{SEALED}").exists():
            number += 1
        _write_whole(self._held / f"{number}{SEALED}", b"".join(map(encode, records)))
        self.held += len(records)
        _log.error("journal.held", records=len(records), days=sorted({record.at.date().isoformat() for record in records}))

    def release(self, segment: Segment, records: int) -> None:
        """The `records` of a held segment are in the database."""
        segment.path.unlink(missing_ok=True)
        self.held -= records
        _log.info("journal.held_released", records=records)

    def refuse(self, record: Record, reason: str) -> None:
        """Puts one whole record where the drain does not look again."""
        self._append(f"{record.at.date().isoformat()}.frames", encode(record))
        self.quarantined += 1
        _log.error("journal.quarantined", id=str(record.id), tenant_id=str(record.tenant_id), reason=reason)

    def keep_damaged(self, segment: Segment, offset: int, data: bytes, reason: str) -> None:
        """Keeps bytes that are no record that we can read."""
        name = f"{segment.folder.name}-{segment.number}-{offset}.bytes"
        self._append(name, data)
        self.quarantined += 1
        _log.error("journal.damaged", file=name, size_bytes=len(data), reason=reason)

    def _append(self, name: str, data: bytes) -> None:
        descriptor = os.open(self._quarantine / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


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
