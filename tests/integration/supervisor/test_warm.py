"""A serving process that cannot be configured, as the person who started it sees it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def test_a_serving_process_says_what_is_misconfigured_in_one_line_and_without_a_traceback(tmp_path):
    words = {
        "TURNOUT_HOME": str(tmp_path),
        "TURNOUT_DATABASE_URL": "postgresql://runtime@127.0.0.1/turnout",
        "TURNOUT_DATABASE_SYNC_URL": "postgresql://sync@127.0.0.1/turnout",
    }
    (tmp_path / "run" / "metrics").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "app.supervisor.warm", "app.main", "--fd", "0"],
        input=json.dumps(words), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"Error: The master key file {tmp_path}/master.key cannot be read: No such file or directory.\n"
