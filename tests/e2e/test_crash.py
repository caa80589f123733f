"""Kill -9 of everything of ours while clients predict: what was answered is in the log once, and nothing else is.

Experiments run meanwhile: who was exposed is what the log says, each answer counted once.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from sklearn.dummy import DummyClassifier

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from tests.support.database import execute, remove_home
from tests.support.service import PREDICT, Client, Service, free_port, start_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CLIENTS = 50
ENOUGH = 1_000
ENOUGH_WITHIN_S = 240.0


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="turnout-crash-"))
    folder.chmod(0o711)
    yield folder / "home"
    remove_home(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


class History:
    """What clients were told: `answered` ids, and how many requests nobody knows the end of."""

    def __init__(self) -> None:
        self.answered: dict[str, str] = {}  # id -> tenant
        self.unknown = 0
        self.stop = False
        self.enough = asyncio.Event()

    async def predict_until_stopped(self, service: Service, tenants: list[Client]) -> None:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=20) as http:
            await asyncio.gather(*(self._one(http, tenants[n % len(tenants)], n) for n in range(CLIENTS)))

    async def _one(self, http: httpx.AsyncClient, tenant: Client, number: int) -> None:
        body = {"query": PREDICT, "variables": {"model": "model", "row": [number], "unit": f"u{number}"}}
        while not self.stop:
            try:
                answer = (await http.post("/graphql", json=body, headers=tenant.headers)).json()
            except (httpx.TransportError, ValueError):
                self.unknown += 1
                return
            if answer.get("errors"):  # the second process has not seen the newest promotion yet
                assert answer["errors"][0]["extensions"]["code"] == "NOT_FOUND", answer
                continue
            self.answered[answer["data"]["predict"]["id"]] = tenant.token
            if len(self.answered) >= ENOUGH:
                self.enough.set()


def kill_everything(service: Service) -> None:
    """Kill -9, the database's processes too, the parent first so that it repairs nothing."""
    parent = psutil.Process(service.process.pid)
    victims = [parent, *parent.children(recursive=True)]
    for victim in victims:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    service.process.wait(60)
    psutil.wait_procs(victims, timeout=60)


def logged(server: EmbeddedPostgres, tenant_id: UUID) -> list[str]:
    rows = execute(server.url(DatabaseRole.RUNTIME), "select id from predictions", tenant_id=tenant_id)
    return [str(row["id"]) for row in rows]


def tenant_ids(server: EmbeddedPostgres) -> dict[str, UUID]:
    return {row["id"]: row["tenant_id"] for row in execute(server.url(DatabaseRole.SYNC), "select id, tenant_id from tenants")}


def experiment(tenant: Client) -> None:
    """A running experiment of two arms and a shadow."""
    for number in (2, 3):
        assert tenant.ready("model", "CLASSIFICATION", DummyClassifier().fit([[0], [1]], [0, 1]), description=f"v{number}") == number
    variants = [
        {"name": "control", "version": 1, "control": True},
        {"name": "treatment", "version": 2},
        {"name": "candidate", "version": 3, "shadow": True},
    ]
    plan = {"key": "e", "model": "model", "variants": variants, "primaryMetric": {"name": "bought", "kind": "PROPORTION"}}
    tenant.ask("mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }", input=plan)
    tenant.ask('mutation { startExperiment(key: "e") { key } }')


def check_experiment(server: EmbeddedPostgres, tenant_id: UUID) -> None:
    """Exposures, counted or queued, are the log's answers by the experiment; shadows spoke once, and of answers that are there."""
    answered, counted, shadows, strays = execute(
        server.url(DatabaseRole.RUNTIME),
        """select (select count(*) from predictions where reason = 'EXPERIMENT'),
          (select count(*) from exposure_queue) + coalesce((select sum(requests) from exposures), 0)::bigint,
          (select count(*) from shadow_answers where kind = 'SHADOW'),
          (select count(*) from shadow_answers s where not exists (select from predictions p where p.id = s.prediction_id))""",
        tenant_id=tenant_id,
    )[0]
    assert answered == counted > 0
    assert 0 < shadows <= answered
    assert strays == 0


def check_usage(server: EmbeddedPostgres, tenant_id: UUID) -> None:
    """Usage is the log's rows, added up: by day, model and version, each row of the one being a row of the other."""
    logged_rows, used_rows = (
        execute(server.url(DatabaseRole.RUNTIME), query, tenant_id=tenant_id)
        for query in (
            """select (at at time zone 'UTC')::date as day, model, version, count(*) as requests, sum(rows)::bigint as rows,
              sum(compute_us)::bigint as compute_us from predictions group by 1, 2, 3 order by 1, 2, 3""",
            """select day, model, version, sum(requests)::bigint as requests, sum(rows)::bigint as rows,
              sum(compute_us)::bigint as compute_us from (
                select day, model, version, requests, rows, compute_us from usage_days
                union all select day, model, version, requests, rows, compute_us from usage_deltas) both_
              group by 1, 2, 3 order by 1, 2, 3""",
        )
    )
    assert [tuple(row) for row in used_rows] == [tuple(row) for row in logged_rows]
    assert used_rows


def test_an_answered_prediction_is_in_the_log_exactly_once_after_kill_9_of_everything(home: Path) -> None:
    service = start_service(home, free_port(), "--workers", "2")
    tenants = [service.new_tenant(f"crash-{n}", requestsPerSecond=100_000, burst=1_000_000) for n in range(4)]
    for tenant in tenants:
        tenant.serve("model", "CLASSIFICATION", DummyClassifier().fit([[0], [1]], [0, 1]))
        experiment(tenant)
    history = History()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        predicting = asyncio.create_task(history.predict_until_stopped(service, tenants))
        await asyncio.wait_for(history.enough.wait(), ENOUGH_WITHIN_S)
        await loop.run_in_executor(None, kill_everything, service)
        history.stop = True
        await predicting

    asyncio.run(run())

    again = start_service(home, free_port(), "--workers", "2")
    try:
        server = EmbeddedPostgres(home)
        assert server.start() is False  # joined: it is the service's
        ids = tenant_ids(server)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            rows = {n: logged(server, ids[f"crash-{n}"]) for n in range(4)}
            together = [one for each in rows.values() for one in each]
            if set(history.answered) <= set(together):
                break
            time.sleep(0.2)
        token_of = {tenant.token: n for n, tenant in enumerate(tenants)}
        foreign = [i for i, token in history.answered.items() if i in together and i not in rows[token_of[token]]]
        lost = set(history.answered) - set(together)
        ghosts = set(together) - set(history.answered)
        assert (lost, len(together) - len(set(together)), foreign) == (set(), 0, [])
        assert len(ghosts) <= history.unknown  # answered to nobody: made, and cut off on the way
        for n in range(4):
            check_experiment(server, ids[f"crash-{n}"])
            check_usage(server, ids[f"crash-{n}"])
    finally:
        assert again.stop() == 0
