"""What a report says about where it was made."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench import processes
from tools.bench.service import ROOT

if TYPE_CHECKING:
    from tools.bench.processes import Cores


def described(cores: Cores, generator: str) -> dict[str, str]:
    """Processor, cores and who has them, Python, revision, generator, what else kept the machine busy."""
    beside = "the same" if cores.beside == cores.server else ", ".join(map(str, sorted(cores.beside)))
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "server's core": ", ".join(map(str, sorted(cores.server))),
        "cores of generator, PostgreSQL and drain": beside,
        "Python": platform.python_version(),
        "revision": _revision(),
        "load generator": generator,
        "load at the beginning": load_average(),
    }


class Others:
    """What programs that are none of ours take of the processors, from here on."""

    def __init__(self) -> None:
        self._busy_s, self._ours_s, self._began = _busy_s(), processes.own_cpu_s(), time.monotonic()

    def share(self) -> float:
        """Of all cores together. Call when everything that was started has ended: only then is its time known to be ours."""
        took = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        theirs = _busy_s() - self._busy_s - (processes.own_cpu_s() - self._ours_s)
        return max(0.0, theirs) / took


def load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _busy_s() -> float:
    """Processor time that was not idle, of all cores since the machine began."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) * processes.TICK_S


def processor() -> str:
    """Its kind, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
