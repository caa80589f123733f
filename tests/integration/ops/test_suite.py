"""What the test suite itself relies on: two processes run it, and they share a checkout."""

import contextlib
import fcntl
import json
import os
import signal
import socket
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


def lock_of(folder: Path, **packages: dict[str, object]) -> None:
    """A package whose lock file names these others."""
    ours = {"name": "ours", "version": "1.0.0", "dependencies": {name.rpartition("/")[2]: "*" for name in packages}}
    (folder / "package.json").write_text(json.dumps(ours))
    (folder / "package-lock.json").write_text(json.dumps({"name": "ours", "lockfileVersion": 3, "packages": {"": ours, **packages}}))


@pytest.fixture
def installing(tmp_path: Path):
    """Starts a process that installs; `settings` are npm's."""
    started = []

    def start(**settings: str):
        command = [sys.executable, "-c", INSTALL, str(tmp_path)]
        environ = {**os.environ, **{f"npm_config_{name}": value for name, value in settings.items()}}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def test_packages_that_four_processes_ask_for_at_once_are_installed_once(tmp_path: Path, installing):
    near = {"near": {"version": "1.0.0"}, "node_modules/near": {"resolved": "near", "link": True}}
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "package.json").write_text(json.dumps({"name": "near", "version": "1.0.0"}))
    lock_of(tmp_path, **near)
    asking = [installing(logs_dir=str(tmp_path / "runs")) for _ in range(4)]  # npm writes a log of each run
    told = [process.communicate(timeout=60)[1] for process in asking]
    assert [process.returncode for process in asking] == [0] * 4, told
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_who_dies_while_packages_are_installed_leaves_the_lock_to_the_npm_that_it_started(tmp_path: Path, installing):
    with socket.create_server(("127.0.0.1", 0)) as registry:  # that says nothing
        registry.settimeout(60)
        far = f"http://127.0.0.1:{registry.getsockname()[1]}/far.tgz"
        lock_of(tmp_path, **{"node_modules/far": {"version": "1.0.0", "resolved": far}})
        process = installing(cache=str(tmp_path / "cache"), noproxy="127.0.0.1")
        with registry.accept()[0]:
            process.kill()
            process.wait()
            with (tmp_path / "package-lock.json").open() as another, pytest.raises(BlockingIOError):
                fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
