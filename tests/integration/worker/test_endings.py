"""Whose doing a child's end was: what it died of is told apart from what the host did to it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from app.prediction.worker.zygote import _is_ending

pytestmark = pytest.mark.integration


def test_a_child_that_was_killed_from_outside_and_is_not_reaped_yet_is_ending_by_itself() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        assert not _is_ending(child.pid)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert _is_ending(child.pid)
    assert not _is_ending(child.pid)
