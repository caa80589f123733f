"""A service one of whose processes is killed: replaced, and answering again. Of its own, since others would meet the moment between."""

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.e2e.harness import TURNOUT, Run, commands

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def run():
    with tempfile.TemporaryDirectory(prefix="turnout-e2e-") as folder:
        run = Run([TURNOUT, "serve", "--demo", "--port", "0", "--workers", "2"], Path(folder) / "home")
        assert not run.demo_failed, run.lines
        yield run
        run.close()


def answers(run):
    try:
        return json.loads(run.paste())["data"]["predict"] is not None
    except (subprocess.CalledProcessError, KeyError, TypeError, ValueError):
        return False


@pytest.mark.parametrize("words", ["app.main", "app.journal", "app.prediction.worker", "bin/postgres"])
def test_a_killed_process_is_replaced_and_answers_come_again(run, words):
    def now():
        return {pid for pid, command in commands(run.tree()).items() if words in command}

    before = now()
    os.kill(min(before), signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while not (now() - before and answers(run)):
        assert time.monotonic() < end, run.lines[-20:]
