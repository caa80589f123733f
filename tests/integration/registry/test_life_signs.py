"""Who is dead on this machine, as its kernel says: never one that lives, is stopped, or is only like one that was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from app.registry.life_signs import LifeSigns
from tests.support.service import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

SHOWS = """
import sys
from pathlib import Path
from uuid import UUID
from app.registry.life_signs import LifeSigns
signs = LifeSigns(Path(sys.argv[1]), UUID(sys.argv[2]))
signs.show()
print("shown", flush=True)
sys.stdin.read()
"""


@contextmanager
def shown(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], UUID]]:
    """A process that shows that it lives; killed in the end."""
    replica = uuid4()
    command = [sys.executable, "-c", SHOWS, str(folder), str(replica)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"shown\n"
        try:
            yield process, replica
        finally:
            process.kill()
            process.wait()


def test_a_process_is_dead_when_it_was_killed_and_not_while_it_is_stopped(tmp_path: Path) -> None:
    signs = LifeSigns(tmp_path, uuid4())
    signs.show()
    with shown(tmp_path) as (process, replica), shown(tmp_path):
        assert signs.dead() == frozenset()
        os.kill(process.pid, signal.SIGSTOP)
        assert signs.dead() == frozenset()
        process.kill()
        process.wait()
        assert signs.dead() == {replica}
        signs.forget(signs.dead())
        assert signs.dead() == frozenset()


def test_a_copied_folder_says_nothing_of_those_who_live_elsewhere(tmp_path: Path) -> None:
    with shown(tmp_path / "one"):
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        assert LifeSigns(tmp_path / "two", uuid4()).dead() == frozenset()


def test_who_said_goodbye_leaves_nothing_behind(tmp_path: Path) -> None:
    signs = LifeSigns(tmp_path, uuid4())
    signs.show()
    signs.end()
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_written_nobody_shows_anything_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    signs = LifeSigns(tmp_path / "file" / "folder", uuid4())
    signs.show()
    assert signs.dead() == frozenset()
    signs.end()
