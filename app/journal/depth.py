"""How much waits and for how long: measured on the files themselves, so it is true also when the drain is dead."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING

import orjson

from app.journal.codec import MAX_FRAME, UnreadableRecord, decode, split_frames
from app.journal.layout import HELD, pending_bytes, read_offset, segments_of, writer_folders
from app.journal.types import Depth
from app.kernel.ids import minted_at_ms

if TYPE_CHECKING:
    from pathlib import Path

    from app.journal.layout import Segment
    from app.kernel.clock import Clock

_STATUS = "drain.json"
_MEAN_BYTES = 250  # of a record, until the drain has seen some


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """What the drain last said of itself."""

    at_ms: int
    waiting_for: str | None = None
    held: int = 0
    quarantined: int = 0
    mean_bytes: int | None = None
    missing_days: tuple[str, ...] = ()  # whose records wait for a partition


def write_status(spool: Path, status: DrainStatus) -> None:
    """Leaves `status` for every process of the machine to read, whole or not at all."""
    draft = spool / (_STATUS + ".draft")
    draft.write_bytes(orjson.dumps(asdict(status)))
    draft.rename(spool / _STATUS)


def read_status(spool: Path) -> DrainStatus | None:
    """What the drain last said; None where it never spoke."""
    try:
        return DrainStatus(**orjson.loads((spool / _STATUS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def missing_days(spool: Path) -> list[date]:
    """The days whose partition the drain of this machine waits for."""
    status = read_status(spool)
    return [] if status is None else sorted(map(date.fromisoformat, status.missing_days))


def read_depth(spool: Path, clock: Clock) -> Depth:
    """What waits in `spool` now. Reads a few files: for `/health` and `/metrics`, not for every request."""
    status = read_status(spool)
    waiting = pending_bytes(spool)
    now_ms = clock.time_ms()
    oldest = [at for at in map(_oldest_ms, [*writer_folders(spool), spool / HELD]) if at is not None]
    mean = status.mean_bytes if status and status.mean_bytes else _MEAN_BYTES
    return Depth(
        bytes=waiting,
        records=-(-waiting // mean),
        oldest_age_s=max(0.0, (now_ms - min(oldest)) / 1000) if oldest else 0.0,
        held=status.held if status else 0,
        quarantined=status.quarantined if status else 0,
        drain_age_s=max(0.0, (now_ms - status.at_ms) / 1000) if status else None,
        waiting_for=status.waiting_for if status else None,
    )


def _oldest_ms(folder: Path) -> int | None:
    """When the first record was made that waits in this writer's folder."""
    for segment in segments_of(folder):
        offset = read_offset(segment)
        if offset < segment.size_bytes and (at := _first_record_ms(segment, offset)) is not None:
            return at
    return None


def _first_record_ms(segment: Segment, offset: int) -> int | None:
    try:
        with segment.path.open("rb") as file:
            file.seek(offset)
            payloads, _ = split_frames(file.read(MAX_FRAME))
        return minted_at_ms(decode(payloads[0]).id) if payloads else None
    except (FileNotFoundError, UnreadableRecord):
        return None
