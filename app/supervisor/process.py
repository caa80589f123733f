"""One child process: started in a session of its own, bound to the parent's life, restarted with growing pauses, stopped in steps."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PR_SET_PDEATHSIG = 1
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0  # a child that lived this long was well: it is started again at once, and the next pause is the short one
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: between fork and exec nothing may be looked up


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start. `env` is the whole environment: nothing is inherited."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    grace_s: float  # from SIGTERM to SIGKILL
    fds: tuple[int, ...] = ()  # descriptors handed down, by the same numbers
    waits: bool = False  # reads what `Child.tell` says from its standard input before it does anything; says there when it is ready
    ended: Callable[[int], None] | None = None  # told the process id of one that died, before another is started
    slot: int | None = None  # its place among its like, as its option --slot: one that is started beside it has another

    @property
    def whole_command(self) -> tuple[str, ...]:
        return self.command if self.slot is None else (*self.command, "--slot", str(self.slot))


class Child:
    """A running (or waiting to be restarted) process. Not thread-safe, and `start` belongs to the main thread:
    the kernel's parent-death signal is tied to the thread that forked.
    """

    def __init__(self, spec: ChildSpec, now: Callable[[], float] = time.monotonic) -> None:
        self.spec = spec
        self._now = now
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._restart_at: float | None = None
        self._words: bytes | None = None
        self._line: socket.socket | None = None  # to the standard input of one that waits
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether one that waits has said that it does its work."""
        if not self._ready and self._line is not None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self._ready = bool(self._line.recv(64))
        return self._ready

    @property
    def words(self) -> bytes | None:
        """What it was told."""
        return self._words

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Fork and exec. The child dies by SIGKILL with its parent, whatever it is doing.

        SIGKILL rather than SIGTERM for every kind of child: the journal is written before an answer is sent and its drain may
        repeat itself, so there is nothing left that a child must do; a signal that a stuck loop can ignore would leave it behind.
        """
        parent = os.getpid()

        def bind_to_parent() -> None:  # runs between fork and exec
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent died before the request reached the kernel
                os._exit(0)

        self._restart_at = None
        self._started_at = self._now()
        self._hang_up()
        theirs: socket.socket | None = None
        if self.spec.waits:
            self._line, theirs = socket.socketpair()
            self._line.setblocking(False)
        self._process = subprocess.Popen(
            self.spec.whole_command,
            env=dict(self.spec.env),
            stdin=subprocess.DEVNULL if theirs is None else theirs.fileno(),
            pass_fds=self.spec.fds,
            start_new_session=True,  # the terminal's Ctrl-C reaches the parent alone, which stops the children in order
            preexec_fn=bind_to_parent,  # noqa: PLW1509  the parent has one thread
        )
        if theirs is not None:
            theirs.close()
        if self._words is not None:
            self.tell(self._words)

    def tell(self, words: bytes) -> None:
        """Lets a child that waits go on; one that is started again hears the same at once."""
        self._words = words
        if self._line is not None:
            with contextlib.suppress(OSError):  # it died meanwhile: `supervise` sees to that
                self._line.sendall(words)
                self._line.shutdown(socket.SHUT_WR)

    def exit_status(self) -> int | None:
        """None while it runs; else what it exited with (negative: the signal that ended it)."""
        status = self._process.poll() if self._process else None
        if status is not None:
            self._hang_up()
        return status

    def supervise(self) -> str | None:
        """Call often: notices a death, restarts after a pause. What happened, for people, or None."""
        if self._restart_at is not None:
            if self._now() >= self._restart_at:
                self.start()
            return None
        status = self.exit_status()
        if status is None:
            return None
        if self._process and self.spec.ended:
            self.spec.ended(self._process.pid)
        if self._now() - self._started_at >= _STEADY_S:
            self._pause_s = _FIRST_PAUSE_S
            self.start()
            return f"{self.spec.name} {describe_exit(status)}; started again"
        pause = self._pause_s
        self._pause_s = min(pause * 2, _LONGEST_PAUSE_S)
        self._restart_at = self._now() + pause
        return f"{self.spec.name} {describe_exit(status)}; starting it again in {pause:g} s"

    def leave(self) -> None:
        """Asks one that has a successor to take nothing new, answer what it has, and end."""
        self._restart_at = None
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        self._restart_at = None
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to the child's whole session group: what it started in its own group goes with it."""
        if self._process and self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self._process.kill()

    def _hang_up(self) -> None:
        self._ready = False
        if self._line is not None:
            self._line.close()
            self._line = None


def stop_all(children: list[Child], harsh: Callable[[], bool] = lambda: False) -> list[str]:
    """SIGTERM to all, wait each one's grace, SIGKILL to the rest (at once where `harsh` becomes true). Names of the killed."""
    for child in children:
        child.terminate()
    began = time.monotonic()
    killed: list[str] = []
    waiting = [child for child in children if child.pid is not None]
    while waiting:
        waited = time.monotonic() - began
        for child in waiting:
            if harsh() or waited >= child.spec.grace_s:
                if child.spec.name not in killed and child.exit_status() is None:
                    killed.append(child.spec.name)  # noted first: a killed process may be gone before anybody looks again
                child.kill()
        waiting = [child for child in waiting if child.exit_status() is None]
        if waiting:
            time.sleep(0.01)
    return killed


def describe_exit(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
