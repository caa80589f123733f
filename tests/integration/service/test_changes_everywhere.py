"""A change that was answered is in force at every serving process: waited for, and told of where it is not; a dead process holds nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.service.test_replicas import PROMOTE, WITHDRAW, answering_pid, pids, two_versions, wait_for
from tests.support.service import own_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.service import Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("replicas")]

UPDATE = "mutation($model: String!) { updateModel(name: $model, input: { cacheSeconds: 0 }) { name } }"
CREATE = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }"
VARIANTS = [{"name": "a", "version": 1, "control": True}, {"name": "b", "version": 2}]
PLAN = {"key": "e", "model": "m", "variants": VARIANTS, "primaryMetric": {"name": "clicked", "kind": "PROPORTION"}}
SUSPEND = 'mutation($tenant: String!) { suspendTenant(tenant: $tenant, reason: "unpaid") { status } }'
NEW_TENANT = 'mutation { createTenant(input: { id: "unsaid-new", name: "New" }) { id } }'

FOR_ALL = 'mutation { registerPlatformDocuments(documents: [{ id: "unsaid", text: "{ viewer { tenant } }" }]) { id } }'


@pytest.fixture(scope="module")
def pair() -> Iterator[Service]:
    """A service of two serving processes."""
    with own_service("--workers", "2") as running:
        yield running


def test_a_change_whose_answer_cannot_say_who_serves_it_names_in_the_log_who_was_not_heard(pair: Service) -> None:
    admin = two_versions(pair, "unsaid")
    numbers = count(1)
    quiet(pair, lambda: pair.new_tenant(f"unsaid-{next(numbers)}"))  # while everybody hears, of a new tenant too
    quiet(pair, lambda: admin.ask(UPDATE, model="m"))
    name, pid = min(pids(admin.ask(PROMOTE, model="m", version=1)["promote"]).items())
    others = httpx.Client(base_url=pair.url, timeout=30)
    while answering_pid(pair, others) == pid:  # a kept connection stays with its process
        others.close()
        others = httpx.Client(base_url=pair.url, timeout=30)
    operator = pair.client("platform", "OPERATOR").headers
    changes: list[tuple[dict[str, str], str, dict[str, Any]]] = [
        (admin.headers, UPDATE, {"model": "m"}),
        (admin.headers, CREATE, {"input": PLAN}),
        (admin.headers, WITHDRAW, {"model": "m", "version": 2}),  # no alias steps back
        (operator, SUSPEND, {"tenant": "unsaid"}),
        (operator, NEW_TENANT, {}),
        (operator, FOR_ALL, {}),
    ]
    os.kill(pid, signal.SIGSTOP)
    try:
        for headers, query, variables in changes:
            before = len(unheard(pair))
            answer = others.post("/graphql", json={"query": query, "variables": variables}, headers=headers).json()
            assert "errors" not in answer, answer
            assert [line["replicas"] for line in unheard(pair)[before:]] == [[name]], query
    finally:
        os.kill(pid, signal.SIGCONT)
        others.close()


def test_a_killed_process_is_waited_for_by_nobody_and_counted_by_none(pair: Service) -> None:
    admin = two_versions(pair, "killed")
    before = wait_for(lambda: admin.ask(PROMOTE, model="m", version=1)["promote"], "appliedEverywhere")
    name, pid = min(pids(before).items())
    os.kill(pid, signal.SIGKILL)
    after = wait_for(lambda: admin.ask(PROMOTE, model="m", version=2)["promote"], "appliedEverywhere")
    assert name not in pids(after)  # while nobody would have been told of it for ten minutes
    assert wait_for(lambda: standing(pair), "successor")["silent"] == 0
    quiet(pair, lambda: admin.ask(UPDATE, model="m"))


def test_an_upload_that_lasts_longer_than_its_tenant_is_served_is_refused_and_nothing_of_it_is_kept(pair: Service) -> None:
    admin, operator = pair.new_tenant("uploading"), pair.client("platform", "OPERATOR")

    def pieces() -> Iterator[bytes]:
        yield bytes(3_000_000)
        operator.ask(SUSPEND, tenant="uploading")
        yield b"the rest"

    def upload(content: Any) -> httpx.Response:
        return httpx.post(f"{pair.url}/artifacts", content=content, headers=admin.headers, timeout=60)

    answer = upload(pieces())
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (403, "TENANT_SUSPENDED")
    operator.ask('mutation { resumeTenant(tenant: "uploading") { status } }')
    assert upload(b"something else").status_code == 201
    audited = admin.ask("{ auditLog { edges { node { action } } } }")["auditLog"]["edges"]
    assert [edge["node"]["action"] for edge in audited].count("uploadArtifact") == 1


def standing(service: Service) -> dict[str, Any]:
    """Of the two replicas, and whether there are two again that are heard of, of which alone the machine's folder tells."""
    told = httpx.get(f"{service.url}/health", timeout=10).json()["replicas"]
    two = told["listed"] == 2 == len(list((service.home / "run" / "replicas").iterdir()))
    return {**told, "successor": two and told["status"] == "ok"}


def quiet(service: Service, change: Callable[[], object]) -> None:
    """Returns when the change was made and the log said nothing of it: the two seconds are not always enough on a crowded machine."""
    end = time.monotonic() + 60
    while True:
        said = len(unheard(service))
        change()
        if len(unheard(service)) == said:
            return
        assert time.monotonic() < end


def unheard(service: Service) -> list[dict[str, Any]]:
    """Lines of the log about changes that not every replica has said that it serves."""
    lines = [line for line in service.log.read_text().splitlines() if "is not heard of by every replica" in line]
    return [json.loads(line) for line in lines]
