"""One server, really started and asked: what is counted is what was sent, by either generator."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tools.bench import machine, measuring, models, processes, servers
from tools.bench.load import Loader, NoFiguresError, OwnClients, Wrk
from tools.bench.measuring import Bench
from tools.bench.processes import Cores

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # they bind processes to cores, which a busy suite needs itself
GENERATORS = [OwnClients(), *([Wrk()] if shutil.which("wrk") else [])]


@pytest.fixture
def bench(tmp_path, request):
    cores = Cores.of_this_machine()
    (tmp_path / "models").mkdir()
    return Bench(cores, Loader(request.param, tmp_path, cores.beside), 1.0, tmp_path, tmp_path / "models")


def test_a_generator_goes_before_others_of_its_cores_where_it_may_and_nobody_else_does():
    policy = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
    with processes.first() as goes_first:
        started = int(subprocess.run(policy, check=True, capture_output=True, text=True).stdout)
    assert goes_first is (started == os.SCHED_RR)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert int(subprocess.run(policy, check=True, capture_output=True, text=True).stdout) == os.SCHED_OTHER


@pytest.mark.parametrize("bench", GENERATORS, indirect=True, ids=lambda kind: kind.name)
def test_a_cell_has_what_came_back_and_what_it_cost(bench):
    (cell,) = measuring.measure_other(servers.ECHO, bench, [(models.BOOSTED, 4, 1)])
    assert (cell.server, cell.connections, cell.rows, cell.refused, cell.bad, cell.trouble) == ("echo", 4, 1, 0, 0, "")
    assert cell.requests > 0
    assert cell.checked > 0
    assert cell.p50_ms <= cell.p99_ms
    assert cell.cpu_us > 0
    assert cell.memory_mib > 5


@pytest.mark.parametrize("bench", GENERATORS, indirect=True, ids=lambda kind: kind.name)
def test_an_answer_that_does_not_hold_what_it_should_is_counted(bench):
    with measuring.started(servers.ECHO, bench, models.BOOSTED) as (_, place):
        target = measuring.target_of(servers.ECHO, place, models.BOOSTED, 1)
        right = bench.loader.checked(target, 2, 1.0)
        wrong = bench.loader.checked(type(target)(target.port, target.path, target.headers, target.bodies, "no such text"), 2, 1.0)
    assert (right.bad, right.sample) == (0, "")
    assert wrong.bad == wrong.requests
    assert "0.731" in wrong.sample


@pytest.mark.parametrize("bench", GENERATORS, indirect=True, ids=lambda kind: kind.name)
def test_refusals_are_counted_apart(bench, tmp_path):
    (tmp_path / "refuse.py").write_text(
        "import http.server, sys\n"
        "class Refuse(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(503)\n"
        "        self.send_header('Content-Length', '4')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(b'busy')\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Refuse)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    process = subprocess.Popen([sys.executable, str(tmp_path / "refuse.py")], stdout=subprocess.PIPE, text=True)
    try:
        target = measuring.Target(int(process.stdout.readline()), "/", servers.JSON_HEADERS, [b"{}"], "x")
        load = bench.loader.run(target, 2, 1.0)
    finally:
        processes.stop(process)
        process.stdout.close()
    assert (load.refused, load.bad, load.per_second) == (load.requests, 0, 0.0)


@pytest.mark.parametrize("bench", [OwnClients()], indirect=True, ids=["any"])
def test_a_server_that_ends_says_its_last_words(bench):
    broken = servers.Server(
        "broken", "Broken", lambda *_: [sys.executable, "-c", "raise SystemExit('no such luck')"], lambda _: "/", lambda *_: {}, ""
    )
    with pytest.raises(NoFiguresError, match=r"ended with 1 .*no such luck"), measuring.started(broken, bench, models.BOOSTED):
        pass


def test_a_tree_is_bound_with_all_its_children_and_stopped_with_them():
    inner = "import time; print('up', flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "up\n"
        members = [member.pid for member in processes.tree(process.pid)]
        assert len(members) == 2
        core = {max(os.sched_getaffinity(0))}
        processes.pin(members, frozenset(core))
        assert [os.sched_getaffinity(pid) for pid in members] == [core, core]
        assert processes.memory_mib(members) > processes.memory_mib(members[:1]) > 1
    finally:
        processes.stop(process, signal.SIGTERM)
        process.stdout.close()
    assert [member.pid for member in processes.processes() if member.pid in members] == []


def test_what_a_child_took_is_ours_and_not_other_programs():
    before = processes.own_cpu_s()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert processes.own_cpu_s() > before
    assert 0.0 <= machine.Others().share() < 2.0
