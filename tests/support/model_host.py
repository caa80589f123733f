"""A real model host for tests: the process that serves, started and ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.prediction.runtimes.host import ModelHost

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class RunningHost:
    """`process` is the zygote; `socket` is where it listens; `folder` is readable by it."""

    process: subprocess.Popen[bytes]
    socket: Path
    folder: Path

    def connect(self) -> ModelHost:
        """What one serving process holds."""
        return ModelHost(self.socket)


# An ordinary user may not be able to read this interpreter, so the imports come before the change of user.
_AS_USER = """
import os, sys
from pathlib import Path
user, socket, memory, trust = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
from app.prediction.worker import warm
from app.prediction.worker.unpickle import Trust
from app.prediction.worker.zygote import Zygote
warm.import_everything()
os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
Zygote(socket, memory, Trust(trust), range(60706, 61184)).run()
"""


# The host begins again with a clean environment, so nothing that touches the environment may come before its own imports.
_AFTER_IMPORTS = """
import sys
from app.prediction.worker import warm
from app.prediction.worker.__main__ import main
sys.argv[1:] = {arguments!r}
before = warm.import_everything
warm.import_everything = lambda: (before(), exec({code!r}, globals()))
main()
"""


@contextlib.contextmanager
def model_host(
    trust: str = "restricted", user: int | None = None, memory_bytes: int = MEMORY_BYTES, first: str | None = None, uids: int = 478
) -> Iterator[RunningHost]:
    """A model host that listens; `user`: the ordinary user that it becomes; `first`: code that it runs before it listens. Ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="turnout-host-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        socket = folder / "host.sock"
        if first is not None:
            arguments = ["--socket", str(socket), "--memory-bytes", str(memory_bytes), "--trust", trust]
            options = ["-c", _AFTER_IMPORTS.format(arguments=arguments, code=first)]
        elif user is None:
            options = ["-m", "app.prediction.worker", "--socket", socket, "--memory-bytes", str(memory_bytes), "--trust", trust]
            options += ["--uids", str(uids)]
        else:
            os.chown(folder, user, user)
            options = ["-c", _AS_USER, str(user), socket, str(memory_bytes), trust]
        environ = {"PATH": "/usr/bin:/bin", "CANARY": "the-host-was-started-with-this", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, *options], cwd=ROOT, env=environ)
        try:
            _wait_for(socket, process)
            yield RunningHost(process, socket, folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the model host did not start")
        time.sleep(0.02)
