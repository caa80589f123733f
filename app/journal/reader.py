"""What waits in the spool, in pieces that the drain can commit; and the end of segments that are done."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.journal.codec import MAX_FRAME, UnreadableRecord, decode, is_torn, next_frame, split_frames
from app.journal.layout import LOCK, UNBORN, Segment, read_offset, segments_of, take_lock, write_offset, writer_folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.journal.types import Record
    from app.kernel.clock import Clock

_READ_BYTES = 512 * 1024  # some 2,500 records: of more the database's triggers keep their copies on its disk
_ALL = 1 << 62  # beyond the end of every segment
_UNBORN_MS = 60_000  # a folder that has had no name for so long was left by a writer that died while it was born
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    offset: int
    data: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one segment: once its records are committed and its damage kept, `end` may be noted."""

    segment: Segment
    records: list[Record]
    damage: list[Damage]
    end: int
    length: int  # bytes, from where the segment was read to `end`
    last: bool  # nothing will follow in this segment


class SpoolReader:
    """Reads the segments of living writers as they grow, and adopts those of dead ones. One a machine: the drain holds a lock."""

    def __init__(self, spool: Path, clock: Clock) -> None:
        self._spool, self._clock = spool, clock
        self._read_to: dict[Path, int] = {}  # a segment, by its offset file: how far it was given out, committed or not yet
        self._adopted: dict[Path, int] = {}

    def pieces(self) -> Iterator[Piece]:
        """At most one piece of each segment, only where there is something to do; a writer's segments in the order of writing.

        What was given out is not given again, committed or not, until `rewind`. Not while `commit` runs in another thread.
        """
        for folder in writer_folders(self._spool):
            dead = self._adopt(folder)
            segments = segments_of(folder)
            for segment in segments:
                if piece := self._read(segment, final=segment.sealed or dead):
                    self._read_to[segment.offset_path] = _ALL if piece.last else piece.end
                    yield piece
            if dead and not segments:
                self._bury(folder)

    def commit(self, piece: Piece) -> None:
        """Notes durably that `piece` is dealt with; a finished segment is deleted.

        On a full disk the note stays in memory: a replay does no harm, standing still would keep the disk full.
        """
        path = piece.segment.offset_path
        if piece.last:
            self._read_to.pop(path, None)
            path.unlink(missing_ok=True)  # first: an offset without its segment must never meet another
            piece.segment.path.unlink(missing_ok=True)
        else:
            with suppress(OSError):
                write_offset(piece.segment, piece.end)

    def rewind(self) -> None:
        """What was given out and is not committed is given again."""
        self._read_to.clear()

    def _read(self, segment: Segment, *, final: bool) -> Piece | None:
        key = segment.offset_path
        if key not in self._read_to:
            self._read_to[key] = read_offset(segment)
        offset = self._read_to[key]
        if offset == _ALL:  # with its last piece
            return None
        if offset >= segment.size_bytes:
            return Piece(segment, [], [], offset, 0, last=True) if final else None
        try:
            with segment.path.open("rb") as file:
                file.seek(offset)
                data = file.read(min(_READ_BYTES, segment.size_bytes - offset))
        except FileNotFoundError:  # sealed since the listing: the next one finds it under its new name
            return None
        payloads, clean = split_frames(data)
        at_end = offset + len(data) >= segment.size_bytes
        records, damage = _decoded(payloads, offset)
        if final and clean < len(data) and (at_end or len(data) - clean >= MAX_FRAME):
            clean = _past_the_tear(data, offset, clean, damage, at_end=at_end)
        if not payloads and clean == 0:
            return None
        return Piece(segment, records, damage, offset + clean, clean, last=final and at_end and clean == len(data))

    def _adopt(self, folder: Path) -> bool:
        """Whether the writer is dead; if so its lock is ours from now on."""
        if folder not in self._adopted:
            try:
                lock = take_lock(folder / LOCK)
            except FileNotFoundError:
                return False
            if lock is None:
                return False
            self._adopted[folder] = lock
            if waiting := sum(segment.size_bytes - read_offset(segment) for segment in segments_of(folder)):
                _log.info("journal.adopted", writer=folder.name, size_bytes=waiting)
        return True

    def _bury(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(self._adopted.pop(folder))

    def clear_unborn(self) -> None:
        """Removes folders of writers that died before they had a name: they hold no records."""
        for folder in self._spool.glob(UNBORN + "*"):
            with suppress(FileNotFoundError):
                if self._clock.time_ms() - folder.stat().st_mtime_ns // 1_000_000 > _UNBORN_MS:
                    shutil.rmtree(folder, ignore_errors=True)


def _decoded(payloads: list[bytes], offset: int) -> tuple[list[Record], list[Damage]]:
    records, damage = [], []
    for payload in payloads:
        try:
            records.append(decode(payload))
        except UnreadableRecord as error:
            damage.append(Damage(offset, payload, f"unreadable: {error}"))
    return records, damage


def _past_the_tear(data: bytes, offset: int, clean: int, damage: list[Damage], *, at_end: bool) -> int:
    """Where in `data` reading may go on after the tear at `clean`. What is passed over was never acknowledged, or is kept as damage."""
    following = next_frame(data, clean + 1)
    tail = data[clean:following]
    if following is None and at_end and is_torn(tail):
        _log.info("journal.torn_tail_cut", size_bytes=len(tail))
        return len(data)
    if following is None and not at_end:  # the next whole frame may begin in what was not read yet
        tail = tail[: len(tail) - MAX_FRAME + 1]
    damage.append(Damage(offset + clean, tail, "checksum"))
    return clean + len(tail)
