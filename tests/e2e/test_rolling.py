"""New serving processes, new schemas, killed processes and a stop: under load, from outside."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from sklearn.linear_model import LogisticRegression

from app.db import migrate
from app.db.embedded.server import EmbeddedPostgres
from app.db.engine import run_blocking
from app.db.privileges import DatabaseRole
from app.supervisor import revision
from app.supervisor.revision import Standing
from tests.e2e.harness import command_of, stat_of
from tests.support.database import execute, remove_home
from tests.support.models import numbers_frame
from tests.support.service import PREDICT, free_port, own_service, start_service
from tests.support.steady_load import SteadyLoad

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

PATIENCE_S = 90.0
ROW = {f"f{number}": 0.5 for number in range(4)}
WORKERS = 2


@pytest.fixture
def service():
    with own_service("--workers", str(WORKERS)) as running:
        yield running


def loaded(service, **options):
    """Steady load on a model of a new tenant."""
    client = service.new_tenant("roller", requestsPerSecond=10_000)
    frame = numbers_frame()
    estimator = LogisticRegression().fit(frame, frame.f0 > 0)
    client.serve("steady", "CLASSIFICATION", estimator, sample=frame.to_dict("records")[:5])
    body = json.dumps({"query": PREDICT, "variables": {"model": "steady", "row": ROW}}).encode()
    return SteadyLoad(service.port, client.token, body, **options)


def children(service, words):
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (state := stat_of(int(entry.name))) and state[0] == service.process.pid:
            command = command_of(entry.name)
            if words in command:
                found[int(entry.name)] = command
    return set(found)


def until(true):
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def roll(service, before):
    times = service.log.read_text().count("all serving processes are new")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: service.log.read_text().count("all serving processes are new") > times)
    after = children(service, "app.main")
    assert len(after) == WORKERS
    assert not after & before


def test_a_rolling_restart_and_an_additive_migration_under_load_fail_no_request(service, tmp_path, monkeypatch):
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = revision.newest_revision()
    (folder / "versions" / "9999_next.py").write_text(
        f"from alembic import op\nrevision = '9999'\ndown_revision = oldest_code = {head!r}\nbranch_labels = depends_on = None\n"
        "def upgrade():\n"
        + "".join(
            f"    op.execute('alter table {table} add column rolled integer not null default 0')\n"
            for table in ("models", "model_versions", "tenants", "predictions")
        )
    )
    server = EmbeddedPostgres(service.home)
    server.start()  # joins the service's
    owner = server.url(DatabaseRole.OWNER)
    with loaded(service) as load:
        until(lambda: len(load.answered) > 200)
        monkeypatch.setattr(migrate, "MIGRATIONS", folder)
        migrate.upgrade(owner)
        assert run_blocking(revision.standing(owner)) is Standing.AHEAD
        before = children(service, "app.main")
        roll(service, before)
        roll(service, children(service, "app.main"))
        count = len(load.answered)
        until(lambda: len(load.answered) > count + 200)
    assert load.failures == {}


def test_processes_that_were_killed_are_replaced_while_the_others_answer(service):
    with loaded(service, clients=4) as load:
        until(lambda: len(load.answered) > 100)
        for served in (WORKERS, WORKERS + 1):
            until(lambda served=served: service.log.read_text().count('"event":"first_picture"') == served)
            before = children(service, "app.main")
            os.kill(min(before), signal.SIGKILL)
            killed_at = time.monotonic()
            alone_until = killed_at
            while service.log.read_text().count('"event":"first_picture"') == served and alone_until < killed_at + PATIENCE_S:
                alone_until = time.monotonic()
                time.sleep(0.01)
            until(lambda at=killed_at: sum(each > at for each in list(load.answered)) > 100)
            alone = sum(killed_at < at < alone_until for at in list(load.answered))
            # The other process went on: more was answered than can have been on its way, or at once.
            assert alone > 4 or min(at for at in load.answered if at > killed_at) - killed_at < 2.0
        until(lambda: service.log.read_text().count('"event":"first_picture"') == WORKERS + 2)
    assert load.failures.total() <= 2 * 4  # what was under way in the killed ones


def test_a_stop_says_not_ready_first_and_answers_what_comes_until_then():
    with own_service("--workers", str(WORKERS), TURNOUT_STOP_GRACE_S="8") as service, httpx.Client(base_url=service.url) as client:
        assert client.get("/readyz").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
        answer = client.get("/livez")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert service.process.wait(PATIENCE_S) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/livez")


def test_a_stop_that_cannot_empty_the_spool_says_how_much_is_left_and_fails_and_the_next_start_takes_it_up():
    folder = Path(tempfile.mkdtemp(prefix="turnout-e2e-"))
    folder.chmod(0o711)
    service = start_service(folder / "home", free_port())
    try:
        with loaded(service) as load:
            until(lambda: len(load.answered) > 50)
            os.kill(min(children(service, "app.journal")), signal.SIGSTOP)
            count = len(load.answered)
            until(lambda: len(load.answered) > count + 50)
        assert load.failures == {}
        assert service.stop() == 1
        (said,) = [line for line in service.log.read_text().splitlines() if "are not in the database" in line]
        assert said.startswith("turnout: error: ")
        service = start_service(folder / "home", service.port)
        server = EmbeddedPostgres(service.home)
        server.start()  # joins the service's
        until(lambda: execute(server._superuser_url("turnout"), "select count(*) from predictions")[0][0] == len(load.answered))
        assert service.stop() == 0
    finally:
        service.stop(signal.SIGKILL)
        remove_home(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)
