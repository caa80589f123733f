"""Which files make up a spool, and how much in them waits. Writers, the drain and `/health` all look here.

spool/                                  0700
├─ <pid>-<start ms>-<random>/           one a writer
│  ├─ lock                              held (flock) while the writer lives: obtainable means dead
│  ├─ 1.sealed 2.open                   segments; only the last may be open
│  └─ 1.offset                          how far the drain has committed
├─ held/                                whole records whose day has no partition yet
├─ quarantine/                          what the database refuses and what is damaged; for a person to look at
└─ drain.lock drain.json                the one drain of this machine, and what it last said
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "lock"
OPEN = ".open"
SEALED = ".sealed"
OFFSET = ".offset"
HELD = "held"
QUARANTINE = "quarantine"
DRAIN_LOCK = "drain.lock"
UNBORN = ".new-"  # a writer's folder before its lock is held; the drain passes it over
_OFFSET = Struct("<QI")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of frames as a listing saw it."""

    folder: Path
    number: int
    sealed: bool
    size_bytes: int

    @property
    def path(self) -> Path:
        return self.folder / f"{self.number}{SEALED if self.sealed else OPEN}"

    @property
    def offset_path(self) -> Path:
        return self.folder / f"{self.number}{OFFSET}"


def writer_folders(spool: Path) -> list[Path]:
    """The folders of all writers, living and dead, oldest name first; empty where there is no spool."""
    try:
        with os.scandir(spool) as entries:
            names = [e.name for e in entries if e.name[0].isdigit() and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [spool / name for name in sorted(names)]


def segments_of(folder: Path) -> list[Segment]:
    """The segments of one writer, oldest first; a file that goes away meanwhile is left out."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                number, dot, kind = entry.name.partition(".")
                if number.isdigit() and dot + kind in {OPEN, SEALED}:
                    try:
                        found.append(Segment(folder, int(number), dot + kind == SEALED, entry.stat().st_size))
                    except FileNotFoundError:
                        continue
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda segment: segment.number)


def read_offset(segment: Segment) -> int:
    """How many bytes of `segment` are in the database for certain; 0 where nothing readable says so (a replay does no harm)."""
    try:
        raw = segment.offset_path.read_bytes()
    except FileNotFoundError:
        return 0
    if len(raw) != _OFFSET.size:
        return 0
    offset, checksum = _OFFSET.unpack(raw)
    return int(offset) if crc32(raw[:8]) == checksum else 0


def write_offset(segment: Segment, offset: int) -> None:
    """Notes that the first `offset` bytes of `segment` are committed."""
    body = offset.to_bytes(8, "little")
    descriptor = os.open(segment.offset_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, _OFFSET.pack(offset, crc32(body)), 0)
    finally:
        os.close(descriptor)


def pending_bytes(spool: Path) -> int:
    """Bytes of this machine's spool that are not in the database yet."""
    waiting = sum(segment.size_bytes for segment in segments_of(spool / HELD))
    for folder in writer_folders(spool):
        for segment in segments_of(folder):
            waiting += max(0, segment.size_bytes - read_offset(segment))
    return waiting


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock file `path` (made where missing); None where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
