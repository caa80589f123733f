"""Forks a locked child for each (tenant, artifact) on demand, from one warm process that stays single-threaded and keyless.

Clients are this machine's serving processes. One connection is one request: a frame in, a frame out, and for `acquire` and
`inspect` a descriptor beside the answer: the client's end of a socket pair whose other end the child got. Nothing that a child
says is read here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from app.kernel.inspection import Confinement
from app.prediction.worker import warm, wire
from app.prediction.worker.child import ChildOptions, Purpose, run_child
from app.prediction.worker.lock import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from app.prediction.worker.unpickle import Trust

_LARGEST_REQUEST = 64 * 1024
_FATES_KEPT = 1_024
_PF_EXITING = 0x4
_UNLOCKED = Confinement(seccomp=False, landlock_abi=0, own_uid=False)


@dataclass(slots=True)
class _Child:
    key: str
    pid: int
    uid: int
    control: socket.socket
    killed: bool = False
    waiters: list[socket.socket] = field(default_factory=list)


class Zygote:
    """One a machine. `run` returns after SIGTERM, or when the process that started it is gone; every child is dead then."""

    def __init__(self, path: Path, memory_bytes: int, trust: Trust, uids: range) -> None:
        self._path = path
        self._memory_bytes = memory_bytes
        self._trust = trust
        self._free_uids = list(reversed(uids))
        self._most_a_tenant = max(1, len(uids) // 2)
        self._parent = os.getppid()
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._current: dict[str, _Child] = {}
        self._fates: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._inspections = count(1)
        self._stopping = False
        self._confinement = _UNLOCKED

    def run(self) -> None:
        gc.collect()
        gc.freeze()  # a collection in a child would touch, and so copy, every page of the imported libraries
        self._confinement = self._measure_confinement()
        wake = self._take_signals()
        listener = self._listen()
        self._selector.register(wake, selectors.EVENT_READ, self._woken)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        try:
            while not self._stopping and os.getppid() == self._parent:
                for key, _ in self._selector.select(timeout=1.0):
                    key.data(key.fileobj)
                self._reap()
        finally:
            for child in self._children.values():
                _kill(child.pid)
            with contextlib.suppress(OSError):
                self._path.unlink()

    # --- starting

    def _measure_confinement(self) -> Confinement:
        """What a child of this machine is held by, as one that locked itself and ended tells."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _in_child(self._options(self._free_uids[-1] if self._free_uids else 0, Purpose.SERVE, None, _UNLOCKED), theirs, probe=True)
        theirs.close()
        data = ours.recv(4096)
        ours.close()
        os.waitpid(pid, 0)
        return Confinement(**orjson.loads(data)) if data else _UNLOCKED

    def _take_signals(self) -> socket.socket:
        """A socket that turns readable with each signal, so that the loop sees it at once."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wake_end = theirs  # kept open
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the supervisor's to handle
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        return ours

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(mask)
        listener.listen(128)
        listener.setblocking(False)
        return listener

    # --- requests

    def _woken(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while wake.recv(4096):
                pass

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = listener.accept()
            _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                connection.close()
                return
            connection.setblocking(False)
            received = bytearray()
            self._selector.register(connection, selectors.EVENT_READ, lambda c: self._receive(c, received))

    def _receive(self, connection: socket.socket, received: bytearray) -> None:
        try:
            data = connection.recv(_LARGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        received += data
        if not data or len(received) > _LARGEST_REQUEST:
            self._hang_up(connection)
            return
        if len(received) < wire.PREFIX.size:
            return
        header_size, _ = wire.PREFIX.unpack_from(received)
        if len(received) < wire.PREFIX.size + header_size:
            return
        self._selector.unregister(connection)
        try:
            self._handle(connection, wire.parse_header(received[wire.PREFIX.size : wire.PREFIX.size + header_size]))
        except (wire.Hangup, KeyError, TypeError, ValueError):
            connection.close()

    def _hang_up(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _handle(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if request.get("skops") is True:  # of the artifact that comes: the child cannot import once it is locked
            warm.import_skops()
        match request["op"]:
            case "acquire":
                self._hand_over(connection, str(request["key"]), Purpose.SERVE, None)
            case "inspect" | "compile" | "prove" as purpose:
                self._hand_over(connection, f"{purpose}/{next(self._inspections)}", Purpose(purpose), int(request["cpu_s"]))
            case "kill":
                self._kill(connection, str(request["key"]), int(request["pid"]))
            case "memory":
                self._tell_memory(connection, str(request["key"]), int(request["pid"]))
            case "stats":
                _answer(connection, self._stats())
            case _:
                connection.close()

    def _hand_over(self, connection: socket.socket, key: str, purpose: Purpose, cpu_s: int | None) -> None:
        """Answers with a channel to the key's child, which is made where there is none."""
        for _ in range(2):
            child = self._current.get(key)
            if child is None and cpu_s is None and self._children_of(key) >= self._most_a_tenant:
                _answer(connection, {"error": "Your tenant has as many models loaded as this machine holds for one."})
                return
            child = child or self._spawn(key, purpose, cpu_s)
            if child is None:
                _answer(connection, {"error": "This machine holds as many models as it can."})
                return
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            with ours, theirs:
                try:
                    socket.send_fds(child.control, [b"c"], [theirs.fileno()])
                except OSError:  # it is ending, or does not take what it is sent
                    self._end(child)
                    continue
                _answer(connection, {"pid": child.pid, "key": key}, ours.fileno())
                return
        _answer(connection, {"error": "The model's process could not be started."})

    def _children_of(self, key: str) -> int:
        """How many children the tenant of this key has: no tenant takes all that there can be."""
        tenant = key.partition("/")[0] + "/"
        return sum(child.key.startswith(tenant) for child in self._children.values())

    def _kill(self, connection: socket.socket, key: str, pid: int) -> None:
        """Answers with what became of the child, once it is dead; touches none but `pid`, and only where it is that key's."""
        child = self._children.get(pid)
        if child is not None and child.key == key:
            self._end(child)
            child.waiters.append(connection)
            return
        fate = self._fates.get(pid)
        _answer(connection, _told(fate) if fate is not None and fate["key"] == key else {"key": key})

    def _tell_memory(self, connection: socket.socket, key: str, pid: int) -> None:
        """Answers with the bytes that go when this child of that key goes: what it shares with this process is not among them."""
        child = self._children.get(pid)
        own = None if child is None or child.key != key else _own_bytes(pid)
        _answer(connection, {} if own is None else {"bytes": own})

    def _stats(self) -> dict[str, Any]:
        page = os.sysconf("SC_PAGE_SIZE")
        children = []
        for child in self._children.values():
            rss = 0
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{child.pid}/statm", "rb") as statm:  # noqa: PTH123
                rss = int(statm.read().split()[1]) * page
            children.append({"key": child.key, "pid": child.pid, "rss_bytes": rss})
        held = self._confinement
        return {
            "pid": self._pid,
            "children": children,
            "confinement": {"seccomp": held.seccomp, "landlock_abi": held.landlock_abi, "own_uid": held.own_uid},
        }

    # --- children

    def _spawn(self, key: str, purpose: Purpose, cpu_s: int | None) -> _Child | None:
        if not self._free_uids:
            return None
        uid = self._free_uids.pop()
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _in_child(self._options(uid, purpose, cpu_s, self._confinement), theirs, probe=False)
        theirs.close()
        ours.setblocking(False)
        ours.shutdown(socket.SHUT_RD)  # a child has nothing to say here
        child = _Child(key, pid, uid, ours)
        self._children[pid] = child
        self._current[key] = child
        return child

    def _options(self, uid: int, purpose: Purpose, cpu_s: int | None, expected: Confinement) -> ChildOptions:
        return ChildOptions(
            uid=uid,
            parent=self._pid,
            limits=Limits(self._memory_bytes, cpu_s),
            trust=self._trust,
            expected=expected,
            purpose=purpose,
        )

    def _end(self, child: _Child) -> None:
        child.killed = not _is_ending(child.pid)
        _kill(child.pid)
        if self._current.get(child.key) is child:
            del self._current[child.key]

    def _reap(self) -> None:
        for child in list(self._children.values()):
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                self._buried(child, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)

    def _buried(self, child: _Child, code: int, cpu_s: float) -> None:
        del self._children[child.pid]
        if self._current.get(child.key) is child:
            del self._current[child.key]
        child.control.close()
        self._free_uids.append(child.uid)
        fate = {"key": child.key, "exit": code, "killed": child.killed, "cpu_s": cpu_s}
        self._fates[child.pid] = fate
        while len(self._fates) > _FATES_KEPT:
            self._fates.popitem(last=False)
        for waiter in child.waiters:
            _answer(waiter, _told(fate))


def _in_child(options: ChildOptions, control: socket.socket, *, probe: bool) -> None:
    """Never returns."""
    try:
        run_child(options, control, probe=probe)
    finally:
        os._exit(1)


def _told(fate: dict[str, Any]) -> dict[str, Any]:
    """`first`: nobody else was told before, so that a child that several shared is counted once."""
    first = not fate.get("told", False)
    fate["told"] = True
    return {**fate, "first": first}


def _own_bytes(pid: int) -> int | None:
    """None where the kernel does not tell this user of a locked process."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:  # noqa: PTH123
            lines = [line.split() for line in rollup if line.startswith((b"Private_Clean:", b"Private_Dirty:"))]
        return sum(int(line[1]) for line in lines) * 1024
    except (OSError, ValueError, IndexError):
        return None


def _is_ending(pid: int) -> bool:
    """Whether it ends by itself already: its socket is closed before it can be reaped, and what killed it must not be put down to us.

    Source: proc(5), field 9 of stat; PF_EXITING of the kernel's sched.h.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
            return bool(int(stat.read().rpartition(b")")[2].split()[6]) & _PF_EXITING)
    except (OSError, ValueError, IndexError):
        return False


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # the group is the child's own once it has begun
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _answer(connection: socket.socket, answer: dict[str, Any], descriptor: int | None = None) -> None:
    data = wire.frame(answer)
    with connection, contextlib.suppress(OSError):
        connection.setblocking(True)
        connection.settimeout(1.0)
        if descriptor is None:
            connection.sendall(data)
        else:
            sent = socket.send_fds(connection, [data], [descriptor])
            connection.sendall(data[sent:])
