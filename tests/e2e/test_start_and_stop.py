"""From an empty folder to a service, and back to nothing: as root and as an ordinary user, by Ctrl-C and by kill -9."""

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.e2e.harness import GONE_S, TURNOUT, Run, left_of, python_for, user_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

MAKE_RUN = ["make", "--no-print-directory", "run", "PORT=0"]
NOBODY = 65534


@pytest.fixture
def home():
    with tempfile.TemporaryDirectory(prefix="turnout-e2e-") as folder:
        yield Path(folder) / "home"


@pytest.fixture
def started(home):
    """Starts runs in this home and sees to it that none stays."""
    runs = []

    def start(command, **options):
        runs.append(Run(command, home, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def expected_answer(run):
    """What scikit-learn says in this process about the row in the banner."""
    pandas = pytest.importorskip("pandas")
    from app.cli.demo_models import tumour_logistic

    row = json.loads(run.curl[run.curl.index("{") : run.curl.rindex("}") + 1])["variables"]["row"]
    model, _, _ = tumour_logistic()
    frame = pandas.DataFrame([row])
    return str(model.predict(frame)[0]), float(model.predict_proba(frame)[0].max())


def test_make_run_ends_with_a_line_that_answers_as_scikit_learn_does(started):
    run = started(MAKE_RUN)
    answer = json.loads(run.paste())["data"]["predict"]
    label, probability = expected_answer(run)
    assert (answer["label"], answer["version"]) == (label, 1)
    assert abs(answer["probability"] - probability) < 1e-9


def test_a_second_start_serves_at_once_and_trains_nothing(started):
    run = started(MAKE_RUN)
    first = run.paste()
    run.interrupt()
    run.close()
    again = started(MAKE_RUN)
    print(f"the second start took {again.started_in_s:.2f} s to its banner; the first {run.started_in_s:.2f} s")
    assert not [line for line in again.lines if line.startswith(("demo: training", "turnout: migrating", "turnout: making"))]
    both = [json.loads(text)["data"]["predict"] for text in (first, again.paste())]
    assert both[0]["probability"] == both[1]["probability"]
    assert both[0]["id"] != both[1]["id"]


def test_ctrl_c_ends_every_process_and_the_database_cleanly(started):
    run = started(MAKE_RUN)
    run.paste()
    tree = run.tree()
    assert len(tree) >= 8  # make, parent, host and a model, drain, serving, postgres and its own
    run.interrupt()
    run.process.wait(GONE_S)
    assert left_of(tree) == {}
    run.close()
    assert run.lines[-1] == "turnout: stopped"
    assert not [line for line in run.lines if "was killed" in line]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_alone_ends_every_process(started, how):
    run = started([TURNOUT, "serve", "--demo", "--port", "0"])
    tree = run.tree()
    run.process.send_signal(how)
    assert run.process.wait(GONE_S) == 0
    assert left_of(tree) == {}


@pytest.mark.parametrize("command", [[TURNOUT, "serve", "--demo", "--port", "0"], MAKE_RUN])
def test_kill_9_of_what_was_started_leaves_nothing_and_loses_nothing(started, command):
    run = started(command)
    run.paste()
    tree = run.tree()
    run.process.kill()
    run.process.wait()
    assert left_of(tree) == {}
    again = started([TURNOUT, "serve", "--demo", "--port", "0"])
    assert json.loads(again.paste())["data"]["predict"]["version"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="already an ordinary user")
def test_it_all_works_as_an_ordinary_user(home, started):
    home.parent.chmod(0o755)
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    python = python_for(NOBODY, home.parent / "venv")
    if python is None:
        pytest.skip("no Python of this version that an ordinary user may run")
    run = started([python, "-P", "-m", "app.cli.main", "serve", "--demo", "--port", "0"], user=NOBODY)
    assert json.loads(run.paste())["data"]["predict"]["version"] == 1
    tree = run.tree()
    assert {user_of(pid) for pid, _ in tree} - {None} == {NOBODY}
    run.interrupt()
    run.process.wait(GONE_S)
    assert left_of(tree) == {}


def test_a_second_parent_on_the_same_folder_is_told_who_holds_it(started):
    run = started([TURNOUT, "serve", "--port", "0"])
    refused = run.turnout("serve", "--port", "0")
    assert refused.returncode == 1
    assert f"is already served by process {run.process.pid}." in refused.stderr


def test_a_taken_port_is_told_before_anything_starts(started, tmp_path):
    run = started([TURNOUT, "serve", "--port", "0"])
    port = run.url.rpartition(":")[2]
    refused = run.turnout("serve", "--port", port, TURNOUT_HOME=str(tmp_path / "other"))
    assert refused.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use by another program" in refused.stderr
    assert not (tmp_path / "other" / "pg").exists()
