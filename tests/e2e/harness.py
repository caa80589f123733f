"""The service as a person starts it, and every process that comes of it."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TURNOUT = str(ROOT / ".venv" / "bin" / "turnout")
START_S = 180.0
GONE_S = 30.0


def environment(home, **more):
    env = {"PATH": os.defpath, "TURNOUT_HOME": str(home), "LC_ALL": "C.UTF-8", **more}
    return {**env, "HOME": str(home)}


@dataclass
class Run:
    """`command` until it says that it serves; what it printed so far in `lines`."""

    command: list[str]
    home: Path
    user: int | None = None
    lines: list[str] = field(default_factory=list)
    started_in_s: float = 0.0

    def __post_init__(self):
        began = time.monotonic()
        account = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, env=environment(self.home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, **account,
        )  # fmt: skip
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
                if "serving on http" in line:
                    break
            else:
                self.process.wait()
                self.process.stdout.close()
                raise AssertionError("it did not start:\n" + "\n".join(self.lines))
        finally:
            watchdog.cancel()
        self.started_in_s = time.monotonic() - began
        self.demo_failed = any("could not be made" in line for line in self.lines)
        self.url = re.search(r"http://[0-9.:]+", self.lines[-1])[0]
        # Reads on, so that a full pipe never stops the service.
        self.reader = threading.Thread(target=lambda: self.lines.extend(line.rstrip("\n") for line in self.process.stdout), daemon=True)
        self.reader.start()

    @property
    def curl(self):
        (line,) = [line for line in self.lines if line.startswith("curl ")]
        return line

    def paste(self):
        """What the banner's line prints, run by a shell."""
        return subprocess.run(["sh", "-c", self.curl], capture_output=True, text=True, check=True, timeout=60).stdout

    def turnout(self, *arguments, **env):
        return subprocess.run(
            [TURNOUT, *arguments], cwd="/", env=environment(self.home, **env), capture_output=True, text=True, check=False, timeout=120
        )

    def tree(self):
        """Every process below the one that was started, itself included: (pid, start time) so that a reused pid is another."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (state := stat_of(int(entry.name))):
                parents[int(entry.name)] = state
        found = {self.process.pid}
        while more := {pid for pid, (parent, _) in parents.items() if parent in found} - found:
            found |= more
        return {(pid, parents[pid][1]) for pid in found if pid in parents}

    def interrupt(self):
        """Ctrl-C: the terminal signals its whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self):
        """Ends the process if it still runs, and lets go of the pipe."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(GONE_S * 3)
        self.reader.join(GONE_S)
        self.process.stdout.close()


def python_for(user, folder):
    """A Python that `user` may run, with this checkout's packages: a virtual environment in `folder` that borrows them. None: there is none."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for base in (os.path.realpath(sys.executable), f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            subprocess.run([base, "-c", ""], user=user, group=user, extra_groups=[], cwd="/", check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True)
        (folder / "lib" / name / "site-packages" / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
        return str(folder / "bin" / "python")
    return None


def stat_of(pid):
    """(parent, start time) of a living process, None where it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else (int(parent), rest[17])


def file_of(pid, name):
    """What is in that file of a process; nothing, where the process ended before it was read."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def command_of(pid):
    return file_of(pid, "cmdline").replace(b"\0", b" ").decode()


def user_of(pid):
    """Its number; None where the process ended before it was asked."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def left_of(tree):
    """Which of `tree` still run, after giving them the few seconds that they may take."""
    end = time.monotonic() + GONE_S
    while left := {pid for pid, started in tree if (now := stat_of(pid)) and now[1] == started}:
        if time.monotonic() > end:
            return {pid: command_of(pid) for pid in left}
    return {}


def commands(tree):
    """pid -> command line."""
    return {pid: command_of(pid) for pid, _ in tree if stat_of(pid)}
