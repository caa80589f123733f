"""A service that loses a process or its database: answering, or answering again. Of its own, since others would meet the moment between."""

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.harness import TURNOUT, Run, commands

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

PATIENCE_S = 120.0
WORKERS = 2


@pytest.fixture(scope="module")
def run():
    with tempfile.TemporaryDirectory(prefix="turnout-e2e-") as folder:
        run = Run([TURNOUT, "serve", "--demo", "--port", "0", "--workers", str(WORKERS)], Path(folder) / "home")
        assert not run.demo_failed, run.lines
        yield run
        run.close()


def answers(run):
    try:
        return json.loads(run.paste())["data"]["predict"] is not None
    except (subprocess.CalledProcessError, KeyError, TypeError, ValueError):
        return False


def health(run):
    with urllib.request.urlopen(f"{run.url}/health", timeout=30) as answer:
        return json.load(answer)


def is_well(run):
    """Whether every serving process has heard of the database and is heard of: whichever is asked answers."""
    told, shown = health(run), list((run.home / "run" / "replicas").iterdir())
    replicas = (told["replicas"].get("listed"), told["replicas"].get("silent"), len(shown))
    return (told["database"]["status"], replicas) == ("ok", (WORKERS, 0, WORKERS)) and all(answers(run) for _ in range(20))


@pytest.mark.parametrize("words", ["app.main", "app.journal", "app.prediction.worker", "bin/postgres"])
def test_a_killed_process_is_replaced_and_answers_come_again(run, words):
    def now():
        return {pid for pid, command in commands(run.tree()).items() if words in command}

    before = now()
    os.kill(min(before), signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while not (now() - before and answers(run)):
        assert time.monotonic() < end, run.lines[-20:]


def test_with_the_database_away_loaded_models_go_on_answering_and_the_log_catches_up(run):
    def servers():
        return [pid for pid, command in commands(run.tree()).items() if "postgres" in command.partition(" ")[0]]

    end = time.monotonic() + PATIENCE_S
    # It, its own workers and those that answer us; it may have been killed a moment ago, and so may a serving process.
    while len(stopped := servers()) < 4 or not is_well(run):
        assert time.monotonic() < end, (stopped, health(run))
        time.sleep(0.2)
    stopped = servers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(2.0)  # long enough for whatever reads the database each second
        assert [answers(run) for _ in range(20)] == [True] * 20
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + PATIENCE_S
    while health(run)["spool"].get("records") != 0:
        assert time.monotonic() < end, run.lines[-20:]
        time.sleep(0.2)
