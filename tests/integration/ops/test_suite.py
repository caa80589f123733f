"""What the test suite itself relies on: two processes run it, and they share a checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import ROOT

pytestmark = pytest.mark.integration

GROUPED = """
import os, pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(8))
def test_where(number):
    with open("workers", "a") as workers:
        workers.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""
INSTALL = """
import sys
from pathlib import Path
from tools.npm import install

install(Path(sys.argv[1]))
assert (Path(sys.argv[1]) / "node_modules" / "near").is_dir()
"""


def without_pytest():
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


def test_tests_of_one_group_run_in_one_process_one_after_the_other(tmp_path: Path):
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = subprocess.run(command, cwd=tmp_path, env=without_pytest(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 8
    assert len(set(workers)) == 1


def test_packages_that_four_processes_ask_for_at_once_are_installed_once(tmp_path: Path):
    near = {"name": "far", "version": "1.0.0", "dependencies": {"near": "file:near"}}
    packages = {"": near, "near": {"version": "1.0.0"}, "node_modules/near": {"resolved": "near", "link": True}}
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "package.json").write_text(json.dumps({"name": "near", "version": "1.0.0"}))
    (tmp_path / "package.json").write_text(json.dumps(near))
    (tmp_path / "package-lock.json").write_text(json.dumps({"name": "far", "lockfileVersion": 3, "packages": packages}))
    command = [sys.executable, "-c", INSTALL, str(tmp_path)]
    environ = {**os.environ, "npm_config_logs_dir": str(tmp_path / "runs")}  # npm writes a log of each run
    asking = [subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    told = [process.communicate(timeout=60)[1] for process in asking]
    assert [process.returncode for process in asking] == [0] * 4, told
    assert len(list((tmp_path / "runs").iterdir())) == 1
