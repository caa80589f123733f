"""How firmly an answer is kept, at a running service whose drain stands still: what is in the database was put there before the answer."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from sklearn.dummy import DummyRegressor

from app.db.embedded.server import EmbeddedPostgres
from tests.support.database import execute
from tests.support.service import PREDICT, own_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]
CREATE = "mutation($input: CreateTenantInput!) { createTenant(input: $input) { settings { durability } } }"
LOGGED = "select count(*)::int from predictions where id = $1"


@pytest.fixture(scope="module")
def diskless() -> Iterator[Service]:
    with own_service(TURNOUT_DISKLESS="on") as running:
        yield running


@pytest.fixture(scope="module")
def url(diskless: Service) -> str:
    server = EmbeddedPostgres(diskless.home)
    assert server.join()
    return server._superuser_url("turnout")


def tenant(service: Service, durability: str, name: str = "", **settings: object) -> Client:
    name = name or durability.lower().replace("_", "-")
    made = service.client("platform", "OPERATOR").ask(
        CREATE, input={"id": name, "name": name.title(), "settings": {"durability": durability, **settings}}
    )
    assert made["createTenant"]["settings"] == {"durability": durability}
    admin = service.client(name)
    admin.serve("price", "REGRESSION", DummyRegressor(strategy="constant", constant=2.0).fit([[0.0]], [2.0]))
    return admin


@contextmanager
def drain_stands_still(service: Service) -> Iterator[None]:
    (pid,) = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_drain(entry, service)]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_drain(process: Path, service: Service) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"app.journal" in words and str(service.home).encode() in words


def in_database(url: str, prediction: str) -> int:
    return int(execute(url, LOGGED, prediction)[0][0])


@pytest.mark.parametrize("durability", ["DATABASE", "DURABLE", "DURABLE_FSYNC"])
def test_where_the_disk_does_not_outlive_the_machine_an_answer_is_in_the_database_before_it_is_given(
    diskless: Service, url: str, durability: str
) -> None:
    admin = tenant(diskless, durability, captureInputs=True)
    with drain_stands_still(diskless):
        answers = [admin.predict("price", {"x0": 1.0}) for _ in range(3)]
        found = [in_database(url, answer["id"]) for answer in answers]
        kept = execute(url, "select count(*)::int from captured_inputs where prediction_id = any($1)", [answer["id"] for answer in answers])

    assert (found, kept) == ([1, 1, 1], [(3,)])
    assert "turnout_journal_committed_records_total" in httpx.get(f"{diskless.url}/metrics", timeout=10).text


def test_buffered_answers_go_by_the_spool_on_such_a_machine_too(diskless: Service, url: str) -> None:
    admin = tenant(diskless, "BUFFERED")
    with drain_stands_still(diskless):
        answer = admin.predict("price", {"x0": 1.0})
        assert in_database(url, answer["id"]) == 0
    end = time.monotonic() + 30
    while not in_database(url, answer["id"]):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_while_the_database_takes_nothing_such_answers_are_refused_and_on_its_return_given_again(diskless: Service, url: str) -> None:
    admin = tenant(diskless, "DATABASE", name="away")
    owner = "alter role turnout_log in database turnout"
    execute(url, f"{owner} set default_transaction_read_only = on")
    leave = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'turnout-answers'"
    execute(url, leave)
    try:
        codes = {admin.refused(PREDICT, model="price", row={"x0": 1.0})["extensions"]["code"] for _ in range(3)}
    finally:
        execute(url, f"{owner} reset default_transaction_read_only")
    end = time.monotonic() + 30
    while "errors" in (answer := admin.post(PREDICT, model="price", row={"x0": 1.0}).json()):
        assert time.monotonic() < end, answer
        time.sleep(0.1)

    assert codes == {"LOG_UNAVAILABLE"}
    assert in_database(url, answer["data"]["predict"]["id"]) == 1
