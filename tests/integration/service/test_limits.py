"""Limits from outside: four serving processes, a real Valkey that comes and goes, and one tenant that asks too much."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tests.integration.service.test_registry import constant
from tests.support.service import BATCH, PREDICT, ROOT, environment, own_service
from tests.support.valkey import own_valkey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service
    from tests.support.valkey import Valkey

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("limits")]

VIEWER = "{ viewer { tenant quota { requestsAvailable rowsLeftToday } limits { burst } } }"
LIMITS = "mutation($id: String!, $limits: TenantLimitsInput!) { updateTenantLimits(tenant: $id, limits: $limits) { limits { burst } } }"


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with own_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def running(valkey: Valkey) -> Iterator[Service]:
    with own_service("--workers", "4", TURNOUT_REDIS_URL=valkey.url) as service:
        yield service


def limits_of(service: Service) -> dict[str, Any]:
    return dict(httpx.get(f"{service.url}/health", timeout=5).json()["limits"])


def until(what: Any) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def doctor(service: Service, valkey: Valkey) -> list[str]:
    said = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "doctor", "--json"],
        cwd=ROOT, env=environment(service.home, TURNOUT_REDIS_URL=valkey.url), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    import json

    return [finding["level"] for finding in json.loads(said.stdout)["findings"] if finding["area"] == "limits"]


async def together(client: Client, query: str, count: int, **variables: Any) -> list[httpx.Response]:
    """So many at once, each over a connection of its own: all serving processes have some."""

    async def one() -> httpx.Response:
        async with httpx.AsyncClient(headers={**client.headers, "Connection": "close"}, timeout=60) as http:
            return await http.post(f"{client.service.url}/graphql", json={"query": query, "variables": variables})

    return await asyncio.gather(*(one() for _ in range(count)))


def tokens_of(answers: list[httpx.Response]) -> int:
    return sum(answer.json()["extensions"]["cost"]["requested"] for answer in answers if answer.status_code == 200)


def test_four_processes_accept_one_limit_and_a_refusal_says_when_to_come_back(running: Service) -> None:
    client = running.new_tenant("metered", requestsPerSecond=1, burst=60)
    until(lambda: limits_of(running)["held"] == "with others")
    began = time.monotonic()
    answers = [answer for _ in range(5) for answer in asyncio.run(together(client, VIEWER, 30))]
    took_s = time.monotonic() - began
    assert set(Counter(answer.status_code for answer in answers)) == {200, 429}
    assert 60 - 5 <= tokens_of(answers) <= 60 + took_s + 1  # a new document at the end may not be affordable whole
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert refused.headers["ratelimit-policy"] == '"requests";q=60'


def test_the_viewer_reads_what_all_processes_have_left(running: Service) -> None:
    client = running.new_tenant("reader", requestsPerSecond=1, burst=1_000)
    answers = asyncio.run(together(client, VIEWER, 40))
    last = client.post(VIEWER)
    left = last.json()["data"]["viewer"]["quota"]["requestsAvailable"]
    assert left == last.json()["extensions"]["cost"]["remaining"]
    spent = tokens_of([*answers, last])
    assert 1_000 - spent <= left <= 1_000 - spent + 20


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_store_that_goes_away_fails_no_request(running: Service, valkey: Valkey, how: str) -> None:
    client = running.new_tenant(f"calm-{how}", requestsPerSecond=10_000, burst=10_000)
    until(lambda: limits_of(running)["held"] == "with others")
    before = asyncio.run(together(client, VIEWER, 40))
    valkey.freeze() if how == "frozen" else valkey.kill()
    away = [answer for _ in range(5) for answer in asyncio.run(together(client, VIEWER, 40))]
    assert Counter(answer.status_code for answer in [*before, *away]) == {200: 240}
    until(lambda: limits_of(running)["held"] == "by this machine's share")
    assert doctor(running, valkey) == ["unreachable"]
    valkey.thaw() if how == "frozen" else valkey.start()
    until(
        lambda: (
            limits_of(running) | {"lastAnswerSeconds": 0} == {"status": "ok", "held": "with others", "machines": 1, "lastAnswerSeconds": 0}
        )
    )
    assert doctor(running, valkey) == ["ok"]
    assert Counter(answer.status_code for answer in asyncio.run(together(client, VIEWER, 40))) == {200: 40}


def test_a_limit_that_changes_holds_at_every_process_when_the_call_returns(running: Service) -> None:
    client, operator = running.new_tenant("changing", requestsPerSecond=10_000, burst=10_000), running.client("platform", "OPERATOR")
    asyncio.run(together(client, VIEWER, 20))
    operator.ask(LIMITS, id="changing", limits={"burst": 5, "requestsPerSecond": 1})
    answers = [answer for answer in asyncio.run(together(client, VIEWER, 40)) if answer.status_code == 200]
    assert {answer.json()["data"]["viewer"]["limits"]["burst"] for answer in answers} <= {5}
    assert tokens_of(answers) <= 8


def test_a_batch_costs_its_rows_of_the_day_and_one_request(running: Service) -> None:
    client = running.new_tenant("batches", rowsPerDay=1_000)
    client.serve("risk", "CLASSIFICATION", constant(1))
    rows = [[1.0, 2.0]] * 600
    first = client.post(BATCH, model="risk", rows=rows)
    assert first.json()["data"]["predictBatch"]["rowCount"] == 600
    assert client.post(BATCH, model="risk", rows=rows[:1]).json()["extensions"]["cost"]["requested"] in {1, 5}  # 5: a new process
    refused = client.refused(BATCH, model="risk", rows=rows)
    assert refused["extensions"]["code"] == "QUOTA_EXCEEDED"
    assert "399 are left" in refused["message"]
    assert client.ask(VIEWER)["viewer"]["quota"]["rowsLeftToday"] in {399, "399"}


def test_more_predictions_at_once_than_a_tenant_may_are_told_to_wait_and_others_are_served(running: Service) -> None:
    client, other = running.new_tenant("greedy", concurrency=2), running.new_tenant("bystander")
    rng = np.random.default_rng(1)
    slow = KNeighborsClassifier(algorithm="brute").fit(rng.normal(size=(30_000, 10)), rng.integers(0, 2, 30_000))
    client.serve("slow", "CLASSIFICATION", slow)
    other.serve("quick", "CLASSIFICATION", constant(1))
    matrix = {"columns": [f"x{number}" for number in range(10)], "data": rng.normal(size=(5_000, 10)).tolist()}

    async def both() -> tuple[list[httpx.Response], list[httpx.Response]]:
        hog = asyncio.create_task(together(client, BATCH, 6, model="slow", matrix=matrix))
        await asyncio.sleep(0)
        return await hog, await together(other, PREDICT, 10, model="quick", row=[1.0, 2.0])

    hog, quick = asyncio.run(both())
    codes = Counter((answer.json().get("errors") or [{"extensions": {"code": "OK"}}])[0]["extensions"]["code"] for answer in hog)
    assert codes == {"OK": 2, "RATE_LIMITED": 4}
    refused = next(answer.json()["errors"][0]["extensions"] for answer in hog if answer.json().get("errors"))
    assert (refused["retryable"], refused["retryAfterMs"]) == (True, 100)
    assert all(answer.json()["data"]["predict"] for answer in quick)
