"""`make unleash`: a real server by one command, and nothing left behind after Ctrl-C or a kill."""

import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.harness import stat_of
from tests.support.database import remove_home
from tests.support.service import ROOT, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("unleash")]


def gone(pid):
    return stat_of(pid) is None


def children(pid):
    return [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()]


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_it_prints_how_to_reach_it_and_leaves_no_process_behind(tmp_path, how, status):
    port, home = free_port(), tmp_path / "unleash"
    command = [sys.executable, "-m", "tools.unleash", "--port", str(port), "--home", str(home)]
    tmp_path.chmod(0o711)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = ""
        while "make run" not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        assert f"export TURNOUT_UNLEASH_URL=http://127.0.0.1:{port}/api" in told
        token = told.partition("TURNOUT_UNLEASH_TOKEN='")[2].partition("'")[0]
        features = urllib.request.Request(f"http://127.0.0.1:{port}/api/client/features", headers={"Authorization": token})
        with urllib.request.urlopen(features, timeout=60) as answer:
            assert answer.status == 200
        started = children(process.pid)
        assert len(started) == 2  # PostgreSQL and Node
        process.send_signal(how)
        assert process.wait(60) == status
        end = time.monotonic() + 60
        while not all(map(gone, started)):
            assert time.monotonic() < end, started
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        remove_home(home)
