import os
import socket
import subprocess
import sys

import pytest

from app.errors import ConfigurationError
from app.supervisor.listening import listen, url_of
from app.supervisor.lock import HomeLock, holder

pytestmark = pytest.mark.integration


def test_a_second_holder_hears_the_first_one_s_process_id(tmp_path):
    lock = HomeLock.acquire(tmp_path)
    code = f"from pathlib import Path; from app.supervisor.lock import HomeLock; HomeLock.acquire(Path({str(tmp_path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"is already served by process {os.getpid()}." in other.stderr
    assert holder(tmp_path) == os.getpid()
    lock.release()
    assert holder(tmp_path) is None
    HomeLock.acquire(tmp_path).release()


def test_a_killed_holder_leaves_no_lock_behind(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from app.supervisor.lock import HomeLock\n"
        f"lock = HomeLock.acquire(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        assert holder(tmp_path) == first.pid
        first.kill()
        first.wait()
    HomeLock.acquire(tmp_path).release()


def test_a_taken_port_is_named_with_the_command_that_moves_it():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} on 127.0.0.1 is in use by another program.*make run PORT="):
            listen("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine_is_named():
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1 is not an address of this machine"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_url_is_one_that_this_machine_can_open(host):
    with listen(host, 0) as listener:
        assert url_of(listener, host) == f"http://127.0.0.1:{listener.getsockname()[1]}"
