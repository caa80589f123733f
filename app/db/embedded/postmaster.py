"""One PostgreSQL server process: its command line, whether it answers, what an earlier one left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.db.embedded.place import Place

PORT = 5432  # only a part of the socket's name: nothing listens on TCP
_PR_SET_PDEATHSIG = 1
_LOG_ROTATES_AT_BYTES = 16 * 1024 * 1024

# A server for one machine that it shares with models: modest memory, no TCP, nothing of a row's content in its log.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "120",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def environment() -> dict[str, str]:
    """What PostgreSQL's programs see of our environment: the search path, and no setting or secret of ours."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def launch(place: Place, settings: Mapping[str, str], *, die_with_parent: bool) -> subprocess.Popen[bytes]:
    """A server process that begins to start. With `die_with_parent` it shuts down cleanly when the calling thread's process dies."""
    wanted = {**_SETTINGS, "port": str(PORT), "unix_socket_directories": _quoted(place.sockets), **settings}
    command = [str(place.binaries.folder / "postgres"), "-D", str(place.data)]
    for name, value in wanted.items():
        command += ["-c", f"{name}={value}"]
    if place.log.exists() and place.log.stat().st_size > _LOG_ROTATES_AT_BYTES:
        place.log.rename(place.log.with_suffix(".log.1"))
    with os.fdopen(os.open(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as log:
        return subprocess.Popen(
            command,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for the owner, who then stops the server in order
            # Only system calls, no lock that another thread could hold; the owner starts it before it has threads anyway.
            preexec_fn=_shut_down_with(os.getpid()) if die_with_parent and sys.platform == "linux" else None,  # noqa: PLW1509
            **place.as_account(),
        )


def answers(place: Place) -> bool | None:
    """True: a server takes logins; False: one is there, but starts or shuts down; None: none is there.

    Source: PostgreSQL documentation, "Message Formats": to StartupMessage a server that is ready replies with a request to
    authenticate ("R"), another one with an error ("E").
    """
    names = b"user\0postgres\0database\0postgres\0\0"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(place.sockets / f".s.PGSQL.{PORT}"))
        except TimeoutError:
            return False
        except OSError:
            return None
        try:
            probe.sendall(struct.pack("!ii", 8 + len(names), 196608) + names)
            return probe.recv(1) == b"R"
        except OSError:
            return False


def clear_stale_lock(data: Path) -> None:
    """Removes postmaster.pid where no process works in `data` any more.

    PostgreSQL itself believes the file while any process of that number exists: a zombie that nobody reaps, or a stranger after
    a restart of the machine. Every process of a server has its data folder as working directory, a zombie has none.
    """
    lock = data / "postmaster.pid"
    if sys.platform == "linux" and lock.exists() and not _works_in(data):
        lock.unlink(missing_ok=True)


def _works_in(data: Path) -> bool:
    resolved = str(data.resolve())
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if str((process / "cwd").readlink()) == resolved:
                    return True
            except OSError:  # gone, a zombie, or another user's: the server would be ours
                continue
    return False


def _shut_down_with(parent: int) -> Callable[[], None]:
    """For the child, between fork and exec: SIGINT (fast shutdown) when `parent` dies, at once if it died meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)

    def arm() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT) != 0 or os.getppid() != parent:
            os._exit(1)

    return arm


def _quoted(path: Path) -> str:
    """As one element of PostgreSQL's lists, whatever commas or blanks it has."""
    return '"' + str(path).replace('"', '""') + '"'
