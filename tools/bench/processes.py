"""Process trees as the kernel counts them: which cores they may use, what processor time they took, what memory they hold.

Linux only (`/proc`). A tree is looked up anew for each reading, so children that came since are in it; of those that ended
between two readings only what their parent has waited for counts.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROC = Path("/proc")
ENDED = {"Z", "X"}
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """Which cores the server has, and which its clients, its database and its drain have."""

    server: frozenset[int]
    beside: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first core that we may use for the server, the others for the rest; on a machine of one core both share it."""
        first, *rest = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(rest or {first}))

    def for_workers(self, count: int) -> Cores:
        """A core for each of `count` serving processes; where that leaves none beside, all share all."""
        known = sorted(self.server | self.beside)
        if count < len(known):
            return Cores(frozenset(known[:count]), frozenset(known[count:]))
        return Cores(frozenset(known), frozenset(known))


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    began: str  # in ticks since the machine began: with the number it is one process, for numbers come again
    arguments: str


def processes() -> list[Process]:
    """Every process that `/proc` shows and that has not ended."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, *more = _stat(int(folder.name))
                arguments = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if state not in ENDED:
                    found.append(Process(int(folder.name), int(parent), more[17], arguments))
    return found


def tree(root: int) -> list[Process]:
    """`root` and all that descends from it, parents before children."""
    known = processes()
    members = [process for process in known if process.pid == root]
    for member in members:  # grows as it is walked
        members += [process for process in known if process.parent == member.pid]
    return members


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time of all threads of these processes, in user space and in the kernel, with what their waited-for children took."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(map(int, _stat(pid)[11:15])) * TICK_S
    return total


def waited_cpu_s() -> float:
    """Processor time of all our own children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def own_cpu_s() -> float:
    """Processor time of this process and of all its children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime + waited_cpu_s()


def memory_mib(pids: Sequence[int]) -> float:
    """Proportional set size: what several processes share counts once among them."""
    return sum(_rollup(pid, "Pss:") for pid in pids) / 1024


def private_mib(pids: Sequence[int]) -> float:
    """What would come free if these processes ended."""
    return sum(_rollup(pid, "Private_Clean:") + _rollup(pid, "Private_Dirty:") for pid in pids) / 1024


def pin(pids: Sequence[int], cores: frozenset[int]) -> None:
    """Every thread of these processes on these cores; threads and children to come inherit it."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in (PROC / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(thread.name), cores)


@contextlib.contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside begins its life on these cores, and counts its processors so."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def first() -> Iterator[bool]:
    """What is started inside goes before all others of its cores, and whether it does: root may say so (man 7 sched, SCHED_RR).

    A generator that waits for a core that it shares would tell of its own wait as if it were the server's.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def start(
    command: Sequence[str], cores: frozenset[int], environment: Mapping[str, str], log: Path, folder: Path
) -> subprocess.Popen[bytes]:
    """A server in a session of its own, what it says in `log`."""
    with log.open("wb") as out, on(cores):
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str], by: int = signal.SIGTERM, patience_s: float = 20.0) -> None:
    """Ends it and whatever it started: asked at first, then killed."""
    members = tree(process.pid)
    process.send_signal(by)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        print(f"process {process.pid} did not end in {patience_s:.0f} s and is killed", file=sys.stderr)
    until = time.monotonic() + patience_s
    while (left := _of(members)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    process.wait(patience_s)


def _of(members: list[Process]) -> list[int]:
    """Those that have not ended."""
    known = {(found.pid, found.began) for found in processes()}
    return [member.pid for member in members if (member.pid, member.began) in known]


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold blanks: state, parent, ..."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _rollup(pid: int, name: str) -> int:
    """KiB; 0 of a process that is gone, or of which the kernel tells us nothing."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0
