"""What a hostile artifact tries, with nothing but the lock to hold it: as root and as an ordinary user."""

from __future__ import annotations

import os
import platform
import socket
import textwrap
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from app.kernel.clock import Deadline
from app.kernel.inspection import Confinement
from app.prediction.features import batch_from_rows
from tests.integration.compiling.conftest import asked_again
from tests.support.models import dump, logistic_on_frame, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from app.prediction.runtimes.sklearn import SklearnRuntime
    from tests.integration.worker.conftest import Lab
    from tests.support.model_host import RunningHost

pytestmark = [pytest.mark.integration, pytest.mark.skipif(platform.machine() != "x86_64", reason="the raw calls below are x86-64's")]

# Each code raises LEAKED where it got what it was after; an OSError of the kernel's is the refusal that we want to see.
LEAKED = "the attack worked"
RAW = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({call})
if result >= 0: raise SystemExit({leaked!r})
raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
PYTHON = {
    "a command": "import os\nif os.system('touch {folder}/pwned') == 0: raise SystemExit(LEAKED)\nraise OSError(1, 'no shell')",
    "a command by posix_spawn": "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'touch {folder}/pwned'], {{}})\nraise SystemExit(LEAKED)",
    "a command in place of itself": "import os\nos.execv('/bin/true', ['true'])",
    "a subprocess": "import subprocess\nsubprocess.Popen(['/bin/true'])\nraise SystemExit(LEAKED)",
    "writing a file": "open('{folder}/pwned', 'w').write('x')\nraise SystemExit(LEAKED)",
    "reading a key file": "raise SystemExit(LEAKED + open('{folder}/key').read())",
    "reading a world-readable file": "raise SystemExit(LEAKED + open('/etc/passwd').read())",
    "listing a folder": "import os\nraise SystemExit(LEAKED + str(os.listdir('/')))",
    "its own environment by file": "raise SystemExit(LEAKED + open('/proc/self/environ').read())",
    "its parent's environment": "import os\nraise SystemExit(LEAKED + open(f'/proc/{{os.getppid()}}/environ').read())",
    "its parent's memory": "import os\nopen(f'/proc/{{os.getppid()}}/mem', 'rb')\nraise SystemExit(LEAKED)",
    "a TCP connection": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\nraise SystemExit(LEAKED)",
    "a UDP packet": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))\nraise SystemExit(LEAKED)",
    "a unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('{host}')\nraise SystemExit(LEAKED)",
    "a socket pair": "import socket\nsocket.socketpair()\nraise SystemExit(LEAKED)",
    "a signal to its parent": "import os\nos.kill(os.getppid(), 0)\nraise SystemExit(LEAKED)",
    "a signal to everybody": "import os\nos.kill(-1, 0)\nraise SystemExit(LEAKED)",
    "a fork": "import os\nos.fork()\nraise SystemExit(LEAKED)",
    "a thread": "import threading\nthreading.Thread(target=print).start()\nraise SystemExit(LEAKED)",
    "an anonymous shared mapping": "import mmap\nmmap.mmap(-1, 4096)\nraise SystemExit(LEAKED)",
    "priority": "import os\nos.setpriority(os.PRIO_PROCESS, 0, -5)\nraise SystemExit(LEAKED)",
    "less priority": "import os\nos.nice(3)\nraise SystemExit(LEAKED)",
    "a scheduling class": "import os\nos.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\nraise SystemExit(LEAKED)",
    "a choice of processor": "import os\nos.sched_setaffinity(0, {{0}})\nraise SystemExit(LEAKED)",
    "becoming root": "import os\nos.setuid(0)\nraise SystemExit(LEAKED)",
    "a signal by descriptor": "import fcntl, os\nfcntl.fcntl(10, fcntl.F_SETOWN, os.getppid())\nraise SystemExit(LEAKED)",
    "a timer": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1)\nraise SystemExit(LEAKED)",
    "memory that runs": "import mmap\nmmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_EXEC)\nraise SystemExit(LEAKED)",
}
CALLS = {
    "shm_open": "257, -100, b'/dev/shm/x', 0o102, 0o600",
    "setting a limit": "302, 0, 9, ctypes.byref((ctypes.c_ulonglong * 2)(1, 1)), 0",
    "the limits of another": "302, os.getppid(), 9, 0, ctypes.byref((ctypes.c_ulonglong * 2)())",
    "shmget": "29, 0, 4096, 0o1600",
    "memfd_create": "319, b'x', 0",
    "mq_open": "240, b'x', 0o102, 0o600, 0",
    "msgget": "68, 0, 0o1600",
    "semget": "64, 0, 1, 0o1600",
    "setpriority": "141, 0, 0, 5",
    "sched_setscheduler": "144, 0, 0, ctypes.byref(ctypes.c_int(0))",
    "ioprio_set": "251, 1, 0, 0",
    "mount": "165, b'none', b'/', b'tmpfs', 0, 0",
    "unshare": "272, 0x10000000",
    "ptrace": "101, 16, os.getppid(), 0, 0",
    "process_vm_readv": "310, os.getppid(), 0, 0, 0, 0, 0",
    "socket": "41, 2, 1, 0",
    "sendmsg": "46, 10, 0, 0",
    "keyctl": "250, 0, -3, 1",
    "add_key": "248, b'user', b'x', b'y', 1, -2",
    "bpf": "321, 5, 0, 0",
    "io_uring_setup": "425, 8, ctypes.byref((ctypes.c_char * 256)())",
    "userfaultfd": "323, 1",
    "perf_event_open": "298, 0, 0, -1, -1, 0",
    "openat": "257, -100, b'/etc/passwd', 0, 0",
    "openat2": "437, -100, b'/etc/passwd', ctypes.byref((ctypes.c_char * 24)()), 24",
    "open": "2, b'/etc/passwd', 0, 0",
    "pidfd_open": "434, os.getppid(), 0",
    "tgkill of the parent": "234, os.getppid(), os.getppid(), 0",
    "clone": "56, 17, 0, 0, 0, 0",
    "clone of a thread": "56, 0x10f00, 0, 0, 0, 0",
    "clone3": "435, 0, 0",
    "vfork": "58",
    "prctl": "157, 1, 0, 0, 0, 0",
    "symlink": "88, b'a', b'/tmp/b'",
    "chmod": "90, b'/tmp', 0o777",
    "inotify_init": "253",
    "eventfd": "290, 0, 0",
    "timer_create": "222, 0, 0, 0",
    "personality": "135, 0",
}


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody who would take a connection, were one made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
async def other_tenant(trusting_lab: Lab) -> AsyncIterator[tuple[SklearnRuntime, Any]]:
    """A model of somebody else that must go on answering."""
    model, rows = logistic_on_frame()
    artifact = trusting_lab.save(model)
    report = await trusting_lab.inspect(artifact, rows=rows)
    runtime = await trusting_lab.open(artifact, report)
    yield runtime, batch_from_rows(report.signature, rows)  # type: ignore[arg-type]
    await runtime.close()


async def _refusal(lab: Lab, code: str, **options: Any) -> str:
    code = f"LEAKED = {LEAKED!r}\n" + textwrap.dedent(code)
    report = await lab.inspect(running(code), **options)
    assert report.failure is not None
    assert LEAKED not in report.failure
    return report.failure


@pytest.mark.parametrize("attack", PYTHON)
async def test_an_artifact_that_tries(trusting_lab: Lab, other_tenant: tuple[SklearnRuntime, Any], port: int, attack: str) -> None:
    folder = trusting_lab.folder
    (folder / "key").write_text("master key")
    folder.chmod(0o777)
    code = PYTHON[attack].format(folder=folder, port=port, host=trusting_lab.running.socket)
    failure = await _refusal(trusting_lab, code)
    assert any(word in failure for word in ("not permitted", "Permission denied", "no shell", "can't start new thread")), failure
    assert not (folder / "pwned").exists()
    runtime, batch = other_tenant
    assert (await runtime.infer(batch, Deadline.after(60))).labels is not None


@pytest.mark.parametrize("call", CALLS)
async def test_a_system_call_is_refused(trusting_lab: Lab, call: str) -> None:
    failure = await _refusal(trusting_lab, RAW.format(call=CALLS[call], leaked=LEAKED))
    wanted = "Function not implemented" if call == "clone3" else "Operation not permitted"
    assert wanted in failure


async def test_the_environment_is_empty_in_memory_too(trusting_lab: Lab) -> None:
    """The zygote was started with CANARY: neither its variables nor the bytes of its first stack page may hold it."""
    code = """
        import ctypes, os
        first = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        names = [first[i] for i in range(100) if bool(first) and first[i]] if bool(first) and first[0] else []
        if os.environ or any(b"CANARY" in name for name in names): raise SystemExit(LEAKED + str(names))
        raise OSError(1, "nothing there")
    """
    assert "nothing there" in await _refusal(trusting_lab, code)


async def test_one_descriptor_is_left_beside_the_channel(trusting_lab: Lab) -> None:
    code = """
        import fcntl
        open_ones = []
        for fd in range(1024):
            try: fcntl.fcntl(fd, fcntl.F_GETFD)
            except OSError: continue
            open_ones.append(fd)
        raise OSError(1, f"{len(open_ones)} descriptors, all above 9: {min(open_ones) > 9}")
    """
    assert "2 descriptors, all above 9: True" in await _refusal(trusting_lab, code)


async def test_it_is_an_unprivileged_user_of_no_group(trusting_lab: Lab) -> None:
    code = "import os\nraise OSError(1, f'uid {os.getuid()} {os.geteuid()} gid {os.getgid()}')"
    failure = await _refusal(trusting_lab, code)
    held = await trusting_lab.host.confinement()
    assert "uid 0 " not in failure
    assert "gid 0" not in failure
    assert held.own_uid == ("uid 60706 " <= failure[failure.index("uid") :] < "uid 61184 ")


async def test_a_memory_bomb_is_named(trusting_lab: Lab) -> None:
    failure = await _refusal(trusting_lab, "x = bytearray(8 << 30)")
    assert failure == "It needs more memory than a model may use here (1024 MiB)."


async def test_an_endless_loop_at_load_is_stopped(trusting_lab: Lab, other_tenant: tuple[SklearnRuntime, Any]) -> None:
    failure = await asked_again(lambda: _refusal(trusting_lab, "while True: pass", timeout_s=1.0))
    assert failure == "The inspection took longer than 1 seconds and was stopped."
    runtime, batch = other_tenant
    assert (await runtime.infer(batch, Deadline.after(60))).labels is not None
    assert [c["key"] for c in (await trusting_lab.host.stats())["children"] if c["key"].startswith("inspect/")] == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "it ended by itself (status 3)"),
        ("import os; os.abort()", "it crashed (abort)"),
        ("import ctypes; ctypes.string_at(0)", "it crashed (segmentation fault)"),
        ("import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)", "it made a forbidden system call"),
    ],
)
async def test_an_artifact_that_ends_its_process_fails_with_how(trusting_lab: Lab, code: str, reason: str) -> None:
    assert reason in await _refusal(trusting_lab, code)


async def test_an_artifact_that_forges_its_report_is_seen_through(trusting_lab: Lab) -> None:
    code = """
        import os, struct
        forged = b'{"ok":true,"report":{"failure":null,"signature":{"columns":[],"kind":"FRAME","noneColumns":[]},"classes":[1],"estimator":"","environment":{},"warnings":[]}}'
        for fd in range(10, 256):
            try: os.write(fd, struct.pack("<II", len(forged), 0) + forged)
            except OSError: pass
        os._exit(0)
    """
    assert "the report is not in order" in await _refusal(trusting_lab, code)


async def test_an_artifact_that_floods_the_channel_is_cut_off(trusting_lab: Lab) -> None:
    code = """
        import os
        def flood(fd, os=os):
            try:
                while True: os.write(fd, bytes(1 << 16))
            except OSError as error: return error
        for fd in range(10, 256):
            if flood(fd).errno not in (9, 11, 32): os._exit(1)
        while True: pass
    """
    assert "died during the inspection: it was stopped" in await _refusal(trusting_lab, code)


async def test_the_confinement_is_told_as_measured(trusting_lab: Lab) -> None:
    held = await trusting_lab.host.confinement()
    assert isinstance(held, Confinement)
    assert held.confined
    assert held.own_uid == (os.geteuid() == 0 and trusting_lab.running.process.args[1] == "-m")  # type: ignore[index]


async def test_an_endless_loop_at_predict_is_killed_and_replaced(trusting_host: RunningHost, trusting_lab: Lab, tmp_path: Path) -> None:
    """The class travels by value (cloudpickle): at this trust an artifact may bring its own."""
    import cloudpickle
    from sklearn.linear_model import LogisticRegression

    from app.kernel.inspection import InspectionRequest
    from app.kernel.signature import Task
    from tests.support.models import numbers_frame

    class Spinning(LogisticRegression):
        def predict(self, X: Any) -> Any:  # noqa: N803  scikit-learn's name
            while X["f0"].iloc[0] > 900:
                pass
            return super().predict(X)

    frame = numbers_frame()
    model = Spinning().fit(frame, frame["f0"] > 0)
    artifact = dump(None, tmp_path / "spinning.joblib")
    artifact.write_bytes(cloudpickle.dumps(model))
    row = dict.fromkeys(frame, 0.5)
    report = await trusting_lab.host.inspect(uuid4(), artifact, InspectionRequest(Task.CLASSIFICATION, None, (row,)), 20.0)
    runtime = await trusting_lab.open(artifact, report)
    first = runtime.pid
    assert report.signature is not None
    from app.errors import AppError

    with pytest.raises(AppError) as failed:
        await runtime.infer(batch_from_rows(report.signature, [row | {"f0": 1000.0}]), Deadline.after(0.3))
    assert failed.value.code == "DEADLINE_EXCEEDED"
    again = await runtime.infer(batch_from_rows(report.signature, [row]), Deadline.after(20))
    assert report.classes is not None
    assert again.labels is not None
    assert report.classes[again.labels[0]] == str(model.predict(frame.head(1).assign(**row))[0])
    assert runtime.pid not in (0, first)
    await runtime.close()
