"""What a report says about where it was made."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.service import ROOT

if TYPE_CHECKING:
    from tools.bench.processes import Cores


def described(cores: Cores, generator: str) -> dict[str, str]:
    """Processor, cores and who has them, Python, revision, generator, what else kept the machine busy."""
    beside = "the same" if cores.beside == cores.server else ", ".join(map(str, sorted(cores.beside)))
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "server's core": ", ".join(map(str, sorted(cores.server))),
        "cores of generator, PostgreSQL and drain": beside,
        "Python": platform.python_version(),
        "revision": _revision(),
        "load generator": generator,
        "load at the beginning": load_average(),
    }


def load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
