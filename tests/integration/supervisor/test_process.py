"""Children of the parent: real processes, no sleeps; what is waited for is an end of file or an exit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.supervisor.process import Child, ChildSpec, describe_exit, stop_all

pytestmark = pytest.mark.integration

ENV = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


def spec(code: str, grace_s: float = 5.0, fds: tuple[int, ...] = (), **env: str) -> ChildSpec:
    return ChildSpec("a child", (sys.executable, "-c", code), {**ENV, **env}, grace_s, fds)


def test_a_child_has_a_session_of_its_own_and_only_the_environment_it_was_given(monkeypatch):
    reader, writer = os.pipe()
    code = f"import os, json; os.write({writer}, json.dumps([os.getsid(0) == os.getpid(), os.environ.get('SECRET'), os.environ.get('GIVEN')]).encode())"
    monkeypatch.setenv("SECRET", "the parent's")
    child = Child(spec(code, fds=(writer,), GIVEN="yes"))
    child.start()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == '[true, null, "yes"]'
    child._process.wait()


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace():
    reader, writer = os.pipe()
    code = f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write({writer}, b'x'); time.sleep(600)"
    child = Child(spec(code, grace_s=0.05, fds=(writer,)))
    child.start()
    assert os.read(reader, 1) == b"x"
    assert stop_all([child]) == ["a child"]
    assert child.exit_status() == -signal.SIGKILL
    os.close(reader)
    os.close(writer)


def test_an_impatient_stop_does_not_wait_for_the_grace():
    reader, writer = os.pipe()
    code = f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write({writer}, b'x'); time.sleep(600)"
    child = Child(spec(code, grace_s=600.0, fds=(writer,)))
    child.start()
    assert os.read(reader, 1) == b"x"
    stop_all([child], harsh=lambda: True)
    assert child.exit_status() == -signal.SIGKILL
    os.close(reader)
    os.close(writer)


def test_children_die_with_a_parent_that_was_killed():
    """The grandchild holds the pipe's only writing end: its death is the end of file."""
    reader, writer = os.pipe()
    inner = f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write({writer}, b'x'); time.sleep(600)"
    outer = (
        "import sys, time; from app.supervisor.process import Child, ChildSpec\n"
        f"Child(ChildSpec('inner', (sys.executable, '-c', {inner!r}), {ENV!r}, 5.0, ({writer},))).start()\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer], env=ENV, pass_fds=(writer,))
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    parent.kill()
    parent.wait()
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_dead_child_is_started_again_after_growing_pauses():
    now = [100.0]
    child = Child(spec("raise SystemExit(3)"), now=lambda: now[0])
    news = []
    for pause in (0.1, 0.2, 0.4):
        child.start() if child.pid is None else None
        child._process.wait()
        news.append(child.supervise())
        first = child.pid
        assert child.supervise() is None
        assert child.pid == first  # the pause is not over
        now[0] += pause
        assert child.supervise() is None
        assert child.pid != first
    child._process.wait()
    assert news == [f"a child exited with status 3; starting it again in {pause} s" for pause in (0.1, 0.2, 0.4)]


def test_a_child_that_lived_long_is_started_again_at_once_and_then_with_the_short_pause():
    now = [0.0]
    child = Child(spec("raise SystemExit(1)"), now=lambda: now[0])
    child.start()
    child._process.wait()
    assert child.supervise().endswith("in 0.1 s")
    now[0] += 0.1
    child.supervise()
    child._process.wait()
    assert child.supervise().endswith("in 0.2 s")
    now[0] += 0.2
    child.supervise()
    first = child.pid
    child._process.wait()
    now[0] += 30
    assert child.supervise() == "a child exited with status 1; started again"
    assert child.pid != first
    child._process.wait()
    assert child.supervise().endswith("in 0.1 s")


def test_exits_are_described_in_words():
    assert describe_exit(2) == "exited with status 2"
    assert describe_exit(-9) == "was ended by SIGKILL"
    assert describe_exit(-200) == "was ended by signal 200"


def test_a_child_that_waits_goes_on_when_told_and_hears_it_again_when_started_again():
    reader, writer = os.pipe()
    code = f"import os, sys; os.write({writer}, sys.stdin.buffer.read() or b'nothing')"
    now = [0.0]
    child = Child(ChildSpec("a child", (sys.executable, "-c", code), ENV, 5.0, (writer,), waits=True), now=lambda: now[0])
    child.start()
    child.tell(b"go")
    child._process.wait()
    child.supervise()
    now[0] += 1
    child.supervise()
    child._process.wait()
    assert os.read(reader, 64) == b"gogo"
    assert child.exit_status() == 0
    os.close(reader)
    os.close(writer)


def test_a_warm_process_imports_first_and_gives_up_with_its_parent(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, sys\nprint('imported', flush=True)\ndef main():\n    print(sys.argv, os.environ['TOLD'], flush=True)\n"
    )
    command = [sys.executable, "-P", "-m", "app.supervisor.warm", "program", "--fd", "7"]
    environment = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}:{tmp_path}"}
    for words, printed, status in ((b'{"TOLD": "yes"}', "['program', '--fd', '7'] yes\n", 0), (b"", "", 0)):
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"imported\n"
            rest, _ = process.communicate(words)
            assert (rest.decode(), process.returncode) == (printed, status)
