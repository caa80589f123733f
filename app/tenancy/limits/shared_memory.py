"""Small whole numbers by key, shared by all processes of this machine through one mapped file, bounded, and not hurt by kill -9."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from contextlib import contextmanager
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

KEY_BYTES = 16
_HEADER_BYTES = 64
_NEIGHBOURS = 16  # slots in which a key may lie, from its home on
_SLOT = Struct("=16sqq")  # key, value, when the value has lost its meaning (in the unit that the table's user counts in)
_VALUES = Struct("=qq")
_read, _write = _SLOT.unpack_from, _SLOT.pack_into
_FREE = bytes(KEY_BYTES)
_PATIENCE_S = 0.01
_IMPATIENCE_S = 1.0
_ARRIVAL_S = 0.05  # five times the patience: a process starts once
_SPINS = 8
_NAP_S = 0.000_05


class Table:
    """Open addressing over a part of the map. A full neighbourhood gives up what would have lost its meaning first.

    A key is never moved and a slot never becomes free again, so a look-up may stop at the first free slot.
    Every call is made between the memory's `lock` and `unlock`.
    """

    def __init__(self, memory: mmap.mmap, offset: int, slots: int) -> None:
        self._memory, self._offset, self._slots = memory, offset, slots

    def slot(self, key: bytes) -> Slot:
        """What lies under `key`, for who asks for it again and again."""
        return Slot(self, self._memory, self._home(key), key)

    def find(self, key: bytes, now: int) -> tuple[int, int, int]:
        """(place, value, expiry) of `key`; (where it would go, 0, 0) where it is not there or has expired by `now`."""
        memory, home = self._memory, self._home(key)
        best, best_expiry = home, None
        for at in range(home, home + _NEIGHBOURS * _SLOT.size, _SLOT.size):
            found, value, expiry = _SLOT.unpack_from(memory, at)
            if found == key:
                return (at, value, expiry) if expiry > now else (at, 0, 0)
            expiry = expiry if found != _FREE and expiry > now else now
            if best_expiry is None or expiry < best_expiry:
                best, best_expiry = at, expiry
            if found == _FREE:
                break
        return best, 0, 0

    def write(self, place: int, key: bytes, value: int, expiry: int) -> None:
        """Puts `key` where `find` said. A process killed half-way leaves the key with an expired value: nothing."""
        _SLOT.pack_into(self._memory, place, key, value, expiry)

    def reset(self) -> None:
        """Forgets everything."""
        for at in range(self._offset, self._offset + self._slots * _SLOT.size, _SLOT.size):
            _VALUES.pack_into(self._memory, at + KEY_BYTES, 0, 0)

    def _home(self, key: bytes) -> int:
        return self._offset + int.from_bytes(key[:4]) % self._slots * _SLOT.size


class Slot:
    """One key of a table. Every call is made between the memory's `lock` and `unlock`, and `write` right after its `read`."""

    __slots__ = ("_home", "_key", "_memory", "_place", "_table")

    def __init__(self, table: Table, memory: mmap.mmap, home: int, key: bytes) -> None:
        self._table, self._memory, self._key = table, memory, key
        self._home = self._place = home

    def read(self, now: int) -> int:
        """The value; 0 where it is not there or has expired by `now`."""
        self._place = place = self._home
        found, value, expiry = _read(self._memory, place)
        if found != self._key:  # not at home, as nearly all are
            self._place, value, expiry = self._table.find(self._key, now)
        return value if expiry > now else 0

    def write(self, value: int, expiry: int) -> None:
        """As the table's, where `read` found it or it would go."""
        _write(self._memory, self._place, self._key, value, expiry)


class SharedMemory:
    """The mapped file at `path` with one table for each name in `tables` (name to number of slots).

    Its lock is `lock` and `unlock`, or the memory as a context manager, which costs half a microsecond more. A process that has the
    file to itself needs none, and no system call: who comes beside it says so in the byte that both look at before each change, which
    stays until all of them have ended.
    Opened after forking, once a process, for one of its threads: flock is between processes alone. Raises ConfigurationError where the
    file cannot be made.
    """

    def __init__(self, path: Path, tables: Mapping[str, int]) -> None:
        layout = ("turnout limits 1 " + " ".join(f"{name}:{slots}" for name, slots in tables.items())).encode()
        header = layout[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0")
        size = _HEADER_BYTES + sum((slots + _NEIGHBOURS) * _SLOT.size for slots in tables.values())
        try:
            with _guarded(path):
                found = path.exists()
                self._descriptor = _open(path, header, size)
                self._presence = _arrive(path, found=found)
            self._memory = mmap.mmap(self._descriptor, size)
            self._others = mmap.mmap(self._presence, 1)  # [0]: whether there are any
        except OSError as error:
            raise ConfigurationError(f"The shared limits {path} cannot be made: {error.strerror}.") from None
        self._tables: dict[str, Table] = {}
        offset = _HEADER_BYTES
        for name, slots in tables.items():
            self._tables[name] = Table(self._memory, offset, slots)
            offset += (slots + _NEIGHBOURS) * _SLOT.size
        if self._others[0]:
            time.sleep(_ARRIVAL_S)
        self._try_lock = partial(fcntl.flock, self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # May be called where the lock was not had: that takes it from nobody.
        self.unlock: Callable[[], None] = partial(fcntl.flock, self._descriptor, fcntl.LOCK_UN)
        self.patience_s = _PATIENCE_S
        self._impatient_until = 0.0

    def table(self, name: str) -> Table:
        return self._tables[name]

    def close(self) -> None:
        self._memory.close()
        self._others.close()
        os.close(self._descriptor)
        os.close(self._presence)

    def lock(self) -> bool:
        """Returns when the memory is ours: whether `unlock` must follow, in any case."""
        if not self._others[0]:
            return False
        try:
            self._try_lock()
        except BlockingIOError:
            self._wait()
        else:
            self._impatient_until = 0.0
        return True

    def __enter__(self) -> None:
        self.lock()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.unlock()

    def _wait(self) -> None:
        """Returns when the lock came: after microseconds as a rule, more where its holder waits for a processor.

        A holder that was stopped must not stop us: after our patience we go on without the lock, at the price that one of two
        simultaneous changes may be lost, and wait for nobody until the lock is seen free again or a second has passed.
        """
        start = time.monotonic()
        if start < self._impatient_until:
            return
        spins = 0
        while time.monotonic() - start < self.patience_s:
            spins += 1
            time.sleep(0 if spins < _SPINS else _NAP_S)
            try:
                self._try_lock()
            except BlockingIOError:
                continue
            return
        self._impatient_until = time.monotonic() + _IMPATIENCE_S


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """One process at a time opens the file, so that those who start together agree on one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    guard = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _open(path: Path, header: bytes, size: int) -> int:
    """A descriptor of the file, made or replaced where it has another layout."""
    if not _fits(path, header, size):
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a page that finds no room on the disk later would kill the process
            os.pwrite(descriptor, header, 0)
        finally:
            os.close(descriptor)
        draft.rename(path)  # whoever has the old file mapped keeps it; shrinking it would kill them
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _arrive(path: Path, *, found: bool) -> int:
    """A descriptor of a file of one byte beside that at `path`: 1 once a second process is there, until one comes that is alone.

    Each holds its lock, shared, for as long as it lives, however it ends; so who gets it unshared is the only one. Who finds another
    says so, and then waits longer than a change takes: that of the other, which may just have looked. Where the file at `path` was
    `found` and this one was not, a process of a version that announces nothing may have made it, and may still be there.
    """
    descriptor = os.open(path.with_name(f".{path.name}.others"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.pwrite(descriptor, b"\x01", 0)
    else:
        os.pwrite(descriptor, b"\x01" if found and os.fstat(descriptor).st_size == 0 else b"\x00", 0)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # at once: all others have it shared, and nobody else arrives meanwhile
    return descriptor


def _fits(path: Path, header: bytes, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and file.read(_HEADER_BYTES) == header
    except FileNotFoundError:
        return False
