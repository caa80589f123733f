"""A PostgreSQL of a test's own that somebody else might run: stopped, frozen and started while a service uses it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from app.db import migrate
from app.db.privileges import DatabaseRole
from tests.support.database import temporary_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.db.embedded.server import EmbeddedPostgres


class OtherPostgres:
    """Migrated; its addresses stay the same when it is started again."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server

    @property
    def settings(self) -> dict[str, str]:
        """By which a service finds it."""
        named = {"": DatabaseRole.RUNTIME, "LOG_": DatabaseRole.LOG, "SYNC_": DatabaseRole.SYNC, "OWNER_": DatabaseRole.OWNER}
        return {f"TURNOUT_DATABASE_{name}URL": self.server.url(role) for name, role in named.items()}

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        assert self.server.start()

    def freeze(self) -> None:
        """Each of its processes stands still: connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        process = self.server._process
        assert process is not None
        for pid in [process.pid, *_children(process.pid)]:  # the parent first: it makes no child any more
            os.kill(pid, which)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent:
            found.append(int(stat.parent.name))
    return found


@contextmanager
def other_postgres() -> Iterator[OtherPostgres]:
    """Running; gone afterwards, whatever state a test left it in."""
    with temporary_server() as server:
        migrate.upgrade(server.url(DatabaseRole.OWNER))
        other = OtherPostgres(server)
        try:
            yield other
        finally:
            if server._process is not None:
                other.thaw()
