"""Writers and drains as real processes, and what the table holds afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.database import execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from tests.support.database import DatabaseUrls

QUICK = {"PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def process(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m ...`; killed at the end if it still runs."""
    running = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUICK | environ,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@contextmanager
def drain(home: Path, urls: DatabaseUrls) -> Iterator[subprocess.Popen[str]]:
    with process("app.journal", "--home", str(home), "--last-effort", "30", TURNOUT_DATABASE_LOG_URL=urls.log) as running:
        yield running


@contextmanager
def writer(home: Path, tenant_id: UUID, durability: str, *limit: str) -> Iterator[subprocess.Popen[str]]:
    with process("tests.integration.journal.writer", str(home / "spool"), str(tenant_id), durability, *limit) as running:
        yield running


def until(running: subprocess.Popen[str], count: int, word: str = "ok") -> list[str]:
    """Lines of `running` up to the `count`-th that begins with `word`."""
    assert running.stdout
    lines: list[str] = []
    while count:
        line = running.stdout.readline()
        assert line, running.stderr.read() if running.stderr else ""
        lines.append(line.strip())
        count -= line.startswith(word)
    return lines


def killed(running: subprocess.Popen[str]) -> list[str]:
    """The lines that `running` had still said when it was killed."""
    assert running.stdout
    running.kill()
    return running.stdout.read().splitlines()


def ids_of(lines: list[str], word: str) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith(word + " ")}


def logged(urls: DatabaseUrls, tenant_id: UUID) -> list[str]:
    return [str(row["id"]) for row in execute(urls.runtime, "select id from predictions", tenant_id=tenant_id)]


def eventually(true: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    """Returns when `true()`; fails when the process that should bring it about has ended first, or after a minute."""
    import time

    until_s = time.monotonic() + 60
    while not true():
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        assert time.monotonic() < until_s, "it never came about"
        time.sleep(0.02)
