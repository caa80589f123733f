"""A promotion at every serving process at once: who serves it, who does not, and what is answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.service.test_registry import constant
from tests.support.service import PREDICT, ROOT, environment, own_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("replicas")]

WORKERS = 4
EFFECT = "version revision at appliedEverywhere appliedBy { replica appliedAt } stillServedBy"
PROMOTE = f"mutation($model: String!, $version: Int!) {{ promote(model: $model, version: $version) {{ {EFFECT} }} }}"
ROLLBACK = f"mutation($model: String!) {{ rollback(model: $model) {{ {EFFECT} }} }}"
HISTORY = f"query($model: String!) {{ model(name: $model) {{ aliases {{ history {{ edges {{ node {{ {EFFECT} }} }} }} }} }} }}"
WITHDRAW = 'mutation($model: String!, $version: Int!) { withdrawModelVersion(model: $model, version: $version, reason: "bad") { status } }'
PLENTY = {"requestsPerSecond": 1_000_000, "burst": 1_000_000, "concurrency": 10_000}


@pytest.fixture(scope="module")
def replicated() -> Iterator[Service]:
    """A service of four serving processes."""
    with own_service("--workers", str(WORKERS)) as running:
        yield running


def two_versions(service: Service, tenant: str) -> Client:
    """An ADMIN of a tenant whose model `m` answers "1" by version 1, which serves, and "0" by version 2."""
    admin = service.new_tenant(tenant, **PLENTY)
    admin.ready("m", "CLASSIFICATION", constant(1))
    admin.ready("m", "CLASSIFICATION", constant(2))
    return admin


def promoted(admin: Client, version: int) -> dict[str, Any]:
    """The promotion, once it is everywhere: a call waits two seconds for that, and said again it changes nothing and waits again."""
    end = time.monotonic() + 60
    while not (done := admin.ask(PROMOTE, model="m", version=version)["promote"])["appliedEverywhere"] and time.monotonic() < end:
        time.sleep(0.05)
    return done


def pids(effect: dict[str, Any]) -> dict[str, int]:
    """Process ids by replica."""
    return {ack["replica"]: int(ack["replica"].rpartition("/")[2].partition("-")[0]) for ack in effect["appliedBy"]}


def test_promote_and_rollback_name_every_replica_and_when_it_began_to_serve(replicated: Service) -> None:
    admin = two_versions(replicated, "named")
    for version, revision in ((1, 1), (2, 2)):
        done = promoted(admin, version)
        assert (done["version"], done["revision"], done["appliedEverywhere"], done["stillServedBy"]) == (version, revision, True, [])
        assert len(done["appliedBy"]) == len({ack["replica"] for ack in done["appliedBy"]}) == WORKERS
        assert all(ack["appliedAt"] > done["at"] for ack in done["appliedBy"])
    back = admin.ask(ROLLBACK, model="m")["rollback"]
    back = back if back["appliedEverywhere"] else promoted(admin, 1)
    assert (back["version"], back["appliedEverywhere"], len(back["appliedBy"])) == (1, True, WORKERS)
    edges = admin.ask(HISTORY, model="m")["model"]["aliases"][0]["history"]["edges"]
    assert [edge["node"] for edge in edges][:2] == [back, done]


def test_promoting_what_serves_says_again_who_serves_it(replicated: Service) -> None:
    admin = two_versions(replicated, "again")
    first = promoted(admin, 1)
    assert admin.ask(PROMOTE, model="m", version=1)["promote"] == first


def test_what_was_answered_is_served_by_every_process_from_then_on(replicated: Service) -> None:
    admin = two_versions(replicated, "from-then-on")
    for version in (1, 2, 1, 2):
        assert promoted(admin, version)["appliedEverywhere"] is True
        assert {admin.predict("m", [1, 2])["version"] for _ in range(20)} == {version}  # a connection each: any process may answer


def test_operators_see_how_many_replicas_there_are_and_when_each_was_heard(replicated: Service) -> None:
    # the service answers as soon as one process serves, and whichever test comes first sees the others join
    replicas = wait_for(lambda: httpx.get(f"{replicated.url}/health", timeout=10).json()["replicas"], "listed", WORKERS)
    assert (replicas["status"], replicas["silent"]) == ("ok", 0)
    assert 0 <= replicas["oldestHeartbeatSeconds"] < 6
    command = [sys.executable, "-m", "app.cli.main", "doctor", "--json"]
    told = subprocess.run(command, cwd=ROOT, env=environment(replicated.home), capture_output=True, text=True, check=False).stdout
    (finding,) = [f for f in json.loads(told)["findings"] if f["area"] == "replicas"]
    assert finding["text"].startswith(f"{WORKERS} serving, the oldest heartbeat ")


def test_a_stopped_replica_is_not_claimed_and_serves_no_withdrawn_version_once_it_has_heard(replicated: Service) -> None:
    admin = two_versions(replicated, "stopped")
    names = pids(promoted(admin, 1))
    name, pid = min(names.items())
    others = httpx.Client(base_url=replicated.url, headers=admin.headers, timeout=30)
    while answering_pid(replicated, others) == pid:  # a kept connection stays with its process
        others.close()
        others = httpx.Client(base_url=replicated.url, headers=admin.headers, timeout=30)

    def ask(query: str, **variables: Any) -> dict[str, Any]:
        answer = others.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer
        return answer["data"]

    os.kill(pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + 30
        while True:  # what the others need for it on a crowded machine may be more than a call waits
            done = ask(PROMOTE, model="m", version=2)["promote"]
            applied = {ack["replica"]: ack["appliedAt"] for ack in done["appliedBy"]}
            if [*applied.values()].count(None) <= 1 or time.monotonic() > end:
                break
        assert done["appliedEverywhere"] is False
        assert {replica for replica, at in applied.items() if at is None} == {name}
        assert applied.keys() == names.keys()
        ask(WITHDRAW, model="m", version=1)
    finally:
        os.kill(pid, signal.SIGCONT)
    heard = wait_for(lambda: ask(HISTORY, model="m")["model"]["aliases"][0]["history"]["edges"][0]["node"], "appliedEverywhere")
    assert {ack["replica"] for ack in heard["appliedBy"] if ack["appliedAt"] is not None} == names.keys()
    assert {admin.predict("m", [1, 2])["version"] for _ in range(40)} == {2}
    pinned = [admin.refused(PREDICT, model="m", row=[1, 2], version=1)["extensions"]["code"] for _ in range(40)]
    assert set(pinned) == {"NOT_FOUND"}
    others.close()


def answering_pid(service: Service, client: httpx.Client) -> int:
    """The serving process at the other end of the client's one connection."""
    client.get("/livez")
    (connection,) = client._transport._pool.connections
    port = connection._connection._network_stream.get_extra_info("client_addr")[1]
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[2].endswith(f":{port:04X}")}
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    for child in children:
        for handle in Path(f"/proc/{child}/fd").iterdir():
            if handle.is_symlink() and str(handle.readlink()).removeprefix("socket:[").removesuffix("]") in inodes:
                return int(child)
    raise AssertionError("nobody holds the connection")


def wait_for(ask: Any, key: str, wanted: Any = True) -> Any:
    value, end = ask(), time.monotonic() + 30
    while value.get(key) != wanted and time.monotonic() < end:
        value = ask()
    if value.get(key) == wanted:
        return value
    raise AssertionError(f"{key} did not become {wanted}: {value}")


@dataclass
class Period:
    """A promotion: from `began` the version may answer; when it is known to be everywhere, nothing else may."""

    version: int
    began: float
    everywhere: float = float("inf")


@dataclass
class Load:
    """Clients that ask without a pause, and what they were told."""

    url: str
    headers: dict[str, str]
    answers: list[tuple[float, float, int, str]] = field(default_factory=list)  # sent, received, version, label
    errors: list[Any] = field(default_factory=list)
    stopped: bool = False

    async def one(self) -> None:
        body = {"query": PREDICT, "variables": {"model": "m", "row": [1, 2]}}
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=30) as client:
            while not self.stopped:
                sent = time.monotonic()
                answer = (await client.post("/graphql", json=body)).json()
                if answer.get("errors"):
                    self.errors.append(answer["errors"])
                else:
                    told = answer["data"]["predict"]
                    self.answers.append((sent, time.monotonic(), told["version"], told["label"]))


async def alternate(admin: Client, times: int, clients: int) -> tuple[Load, list[Period]]:
    """Promote 2 and roll back to 1 by turns, under load."""
    load = Load(admin.service.url, admin.headers)
    periods = [Period(1, 0.0, 0.0)]
    asking = [asyncio.create_task(load.one()) for _ in range(clients)]
    try:
        async with httpx.AsyncClient(base_url=load.url, headers=admin.headers, timeout=30) as client:
            for turn in range(times):
                query, variables = (PROMOTE, {"model": "m", "version": 2}) if turn % 2 == 0 else (ROLLBACK, {"model": "m"})
                periods.append(Period(2 - turn % 2, time.monotonic()))
                answer = (await client.post("/graphql", json={"query": query, "variables": variables})).json()
                assert "errors" not in answer, answer
                (done,) = answer["data"].values()
                assert done["version"] == periods[-1].version
                if not done["appliedEverywhere"]:
                    done = await asyncio.to_thread(promoted, admin, periods[-1].version)
                if done["appliedEverywhere"]:
                    periods[-1].everywhere = time.monotonic()
    finally:
        load.stopped = True
        await asyncio.gather(*asking)
    return load, periods


def right(periods: list[Period], sent: float, received: float) -> set[int]:
    """Versions that a request may have been answered by: what was everywhere when it was sent, and all that came since."""
    settled = max(i for i, period in enumerate(periods) if period.everywhere <= sent)
    return {period.version for period in periods[settled:] if period.began <= received}


@pytest.mark.parametrize("times", [12, pytest.param(200, marks=pytest.mark.slow)])
async def test_under_load_each_answer_is_by_a_version_that_was_right_at_its_time(replicated: Service, times: int) -> None:
    admin = two_versions(replicated, f"load-{times}")
    admin.ask(PROMOTE, model="m", version=1)
    load, periods = await alternate(admin, times, clients=16)
    assert load.errors == []
    wrong = [answer for answer in load.answers if answer[2] not in right(periods, *answer[:2]) or answer[3] != str(answer[2] % 2)]
    assert wrong == []
    assert {version for _, _, version, _ in load.answers} == {1, 2}
    settled = [period for period in periods if period.everywhere < float("inf")]
    assert len(settled) == len(periods)
