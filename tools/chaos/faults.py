"""What is done to processes: killed, frozen, kept from writing. Only to those that the suite started itself."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.support.service import Service

SERVING, DRAIN, MODEL_HOST, POSTGRES = "app.main", "app.journal", "app.prediction.worker", "bin/postgres"


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it, itself first; empty where it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pids_of(service: Service, words: str) -> list[int]:
    """Direct children of the service's parent whose command line holds `words`, oldest first."""
    found = []
    for process in psutil.Process(service.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if words in " ".join(process.cmdline()):
                found.append(process.pid)
    return sorted(found)


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each in this order, and until all are gone."""
    victims = list(processes)
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims, timeout=60)


def kill_everything(service: Service) -> None:
    """Kill -9 of the parent first, so that it repairs nothing, then of all that it started: the database's processes too."""
    kill_all(tree(service.process.pid))
    service.process.wait(60)


@contextmanager
def frozen(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    held = list(processes)
    for process in held:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in held:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def full_disk(pids: Iterable[int], free_bytes: int = 0) -> Iterator[None]:
    """As if the disk had room for files of `free_bytes` at the most: RLIMIT_FSIZE of running processes, which needs no root."""
    before = [(pid, resource.prlimit(pid, resource.RLIMIT_FSIZE)) for pid in pids]
    for pid, (_, hard) in before:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        for pid, limits in before:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[str | None]:
    """A real file system of this size over the folder, which nobody uses; gives why this machine cannot, in words, or None."""
    if os.geteuid():
        yield "mounting one needs root"
        return
    options = f"size={size_bytes},mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "turnout-chaos", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stderr.strip()[-120:] or "it cannot be mounted here"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Writes to the file until its disk has no room for one more byte."""
    with path.open("wb", buffering=0) as file:
        for piece in (1 << 16, 1):
            with suppress(OSError):
                while file.write(b"\0" * piece):
                    pass


def resident_bytes(pid: int) -> int:
    """Resident memory; 0 where the process is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def until(holds: Callable[[], object], within_s: float, every_s: float = 0.05) -> float | None:
    """Seconds until it held; None where it did not within `within_s`."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > within_s:
            return None
        time.sleep(every_s)
    return time.monotonic() - began


def is_alive(pid: int) -> bool:
    """Whether anything of the process runs still: its first thread may be dead while others hold its connections open."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        others = len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
        return others or bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
