"""Registered documents from outside: pushed, run by id in every process at once, held to, pruned."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.service import ROOT, environment, own_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("documents")]

REGISTER = "mutation($documents: [DocumentInput!]!, $replace: Boolean! = false) {\
 registerDocuments(documents: $documents, replace: $replace) { id text operations createdAt createdBy } }"
REGISTER_FOR_ALL = REGISTER.replace("registerDocuments", "registerPlatformDocuments")
REMOVE = "mutation($ids: [String!]!) { removeDocuments(ids: $ids) }"
REMOVE_FOR_ALL = REMOVE.replace("removeDocuments", "removePlatformDocuments")
LIST = "query($first: Int, $after: String) { documents(first: $first, after: $after) {\
 edges { cursor node { id } } pageInfo { hasNextPage endCursor } } }"
WHO = "query Who { viewer { tenant } }"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Two serving processes, and PREDICTORs that run registered documents alone. A thousand documents take a busy machine its time."""
    with own_service("--workers", "2", TURNOUT_DOCUMENTS_ONLY='["PREDICTOR"]', TURNOUT_REQUEST_TIMEOUT_S="60") as running:
        yield running


def send(client: Client, **body: Any) -> dict[str, Any]:
    """On a connection of its own, so that either process may answer."""
    return httpx.post(f"{client.service.url}/graphql", json=body, headers=client.headers, timeout=30).json()


def data_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Of an answer without errors."""
    assert "errors" not in answer, answer
    return answer["data"]


def code_of(answer: dict[str, Any]) -> str:
    (error,) = answer["errors"]
    return error["extensions"]["code"]


def ids_of(client: Client) -> set[str]:
    return {edge["node"]["id"] for edge in client.ask(LIST, first=100)["documents"]["edges"]}


def test_what_is_registered_runs_by_its_id_in_every_process_when_the_call_returns(service: Service) -> None:
    admin = service.new_tenant("docs-run")
    for number in range(10):
        text = f"query Who{number} {{ viewer {{ tenant }} }}"
        (made,) = admin.ask(REGISTER, documents=[{"text": text}])["registerDocuments"]
        assert (made["id"], made["text"], made["operations"], made["createdBy"]) == (sha(text), text, [f"Who{number}"], "tester")
        for _ in range(8):
            assert data_of(send(admin, documentId=sha(text))) == {"viewer": {"tenant": "docs-run"}}
        assert admin.ask(REMOVE, ids=[sha(text)]) == {"removeDocuments": [sha(text)]}
        for _ in range(8):
            assert code_of(send(admin, documentId=sha(text))) == "PERSISTED_QUERY_NOT_FOUND"


def test_a_predictor_may_send_ids_and_registered_texts_and_is_told_what_to_do_about_others(service: Service) -> None:
    admin = service.new_tenant("docs-only")
    admin.ask(REGISTER, documents=[{"text": WHO, "id": "who.v1"}])
    predictor = service.client("docs-only", "PREDICTOR")
    for body in ({"documentId": "who.v1"}, {"query": WHO}, {"documentId": f"sha256:{sha(WHO)}"}):
        assert data_of(send(predictor, **body)) == {"viewer": {"tenant": "docs-only"}}
    refused = send(predictor, query="{ viewer { subject } }")
    assert code_of(refused) == "PERSISTED_QUERY_NOT_SUPPORTED"
    assert "turnout documents push" in refused["errors"][0]["message"]
    assert code_of(send(predictor, query=REMOVE, variables={"ids": ["who.v1"]})) == "PERSISTED_QUERY_NOT_SUPPORTED"
    assert send(service.client("docs-only", "PREDICTOR", "READER"), query="{ viewer { subject } }")["data"]


def test_an_id_of_another_tenants_is_one_that_nobody_has(service: Service) -> None:
    admin, stranger = service.new_tenant("docs-owner"), service.new_tenant("docs-stranger")
    admin.ask(REGISTER, documents=[{"text": WHO, "id": "mine"}])
    told = [send(stranger, documentId=name)["errors"][0] for name in ("mine", "none")]
    for error, name in zip(told, ("mine", "none"), strict=True):
        error["extensions"].pop("requestId")
        error["message"] = error["message"].replace(name, "NAME")
    assert told[0] == told[1]
    assert ids_of(stranger) == set()
    assert stranger.ask(REMOVE, ids=["mine"]) == {"removeDocuments": []}
    assert ids_of(admin) == {"mine"}


def test_all_are_registered_or_none_and_each_fault_is_told(service: Service) -> None:
    admin = service.new_tenant("docs-faults")
    bad, worse, curious = "{ viewer { age } nothing }", "{ viewer {", "{ __schema { queryType { name } } }"
    error = admin.refused(REGISTER, documents=[{"text": text} for text in (WHO, bad, worse, curious)])
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["extensions"]["problems"] == [
        {"name": sha(bad), "problem": "Cannot query field 'age' on type 'Viewer'."},
        {"name": sha(bad), "problem": "Cannot query field 'nothing' on type 'Query'."},
        {"name": sha(worse), "problem": "Syntax Error: Expected Name, found <EOF>."},
        {"name": sha(curious), "problem": "It asks for the schema, which is for operators alone: such a document is not registered."},
    ]
    assert ids_of(admin) == set()


def test_a_repeat_changes_nothing_and_an_id_keeps_its_text_unless_it_is_replaced(service: Service) -> None:
    admin = service.new_tenant("docs-repeat")
    first = admin.ask(REGISTER, documents=[{"text": WHO, "id": "who"}])
    assert admin.ask(REGISTER, documents=[{"text": WHO, "id": "who"}]) == first
    other = "{ viewer { subject } }"
    assert admin.refused(REGISTER, documents=[{"text": other, "id": "who"}])["extensions"]["code"] == "CONFLICT"
    assert send(admin, documentId="who")["data"] == {"viewer": {"tenant": "docs-repeat"}}
    admin.ask(REGISTER, documents=[{"text": other, "id": "who"}], replace=True)
    assert send(admin, documentId="who")["data"] == {"viewer": {"subject": "tester"}}
    entries = admin.ask('{ auditLog(subject: "documents") { edges { node { action before after } } } }')["auditLog"]["edges"]
    told = {"action": "registerDocuments", "before": None, "after": {"ids": ["who"]}}
    assert [edge["node"] for edge in entries] == [told, told]


def test_operators_register_for_all_tenants_and_a_tenants_own_goes_first(service: Service) -> None:
    operator, one, two = service.client("platform", "OPERATOR"), service.new_tenant("docs-one"), service.new_tenant("docs-two")
    operator.ask(REGISTER_FOR_ALL, documents=[{"text": WHO, "id": "shared"}])
    one.ask(REGISTER, documents=[{"text": "{ viewer { subject } }", "id": "shared"}])
    predictors = [service.client(tenant, "PREDICTOR") for tenant in ("docs-one", "docs-two")]
    assert [send(each, documentId="shared")["data"] for each in predictors] == [
        {"viewer": {"subject": "tester"}}, {"viewer": {"tenant": "docs-two"}},
    ]  # fmt: skip
    assert ids_of(two) == set()
    listed = operator.ask("{ platformDocuments { edges { node { id } } } }")
    assert listed == {"platformDocuments": {"edges": [{"node": {"id": "shared"}}]}}
    assert operator.ask('mutation { removePlatformDocuments(ids: ["shared"]) }') == {"removePlatformDocuments": ["shared"]}


def test_documents_for_all_are_known_to_every_process_when_the_call_returns_and_gone_from_every_one(service: Service) -> None:
    operator, admin = service.client("platform", "OPERATOR"), service.new_tenant("docs-everywhere")
    for number in range(5):
        name = f"everywhere-{number}"
        operator.ask(REGISTER_FOR_ALL, documents=[{"text": WHO, "id": name}])
        for _ in range(8):
            assert data_of(send(admin, documentId=name)) == {"viewer": {"tenant": "docs-everywhere"}}
        assert operator.ask(REMOVE_FOR_ALL, ids=[name]) == {"removePlatformDocuments": [name]}
        for _ in range(8):
            assert code_of(send(admin, documentId=name)) == "PERSISTED_QUERY_NOT_FOUND"


def test_documents_are_listed_in_pages_newest_first(service: Service) -> None:
    admin = service.new_tenant("docs-pages")
    for names in (("a", "b"), ("c",)):
        admin.ask(REGISTER, documents=[{"text": f"query {name} {{ viewer {{ tenant }} }}", "id": name} for name in names])
    page = admin.ask(LIST, first=2)["documents"]
    assert [edge["node"]["id"] for edge in page["edges"]] == ["c", "b"]
    rest = admin.ask(LIST, first=2, after=page["pageInfo"]["endCursor"])["documents"]
    assert ([edge["node"]["id"] for edge in rest["edges"]], rest["pageInfo"]["hasNextPage"]) == (["a"], False)
    assert admin.refused(LIST, first=2, after="bm9uZQ")["extensions"]["code"] == "BAD_USER_INPUT"


def turnout(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", "documents", *arguments, "--url", service.url]
    return subprocess.run(command, cwd=ROOT, env=environment(service.home), capture_output=True, text=True, check=False)


def test_a_folder_is_pushed_listed_pruned_and_removed_from_a_terminal(service: Service, tmp_path: Path) -> None:
    admin = service.new_tenant("docs-cli")
    (tmp_path / "who.graphql").write_text(WHO)
    (tmp_path / "subject.graphql").write_text("query Subject { viewer { subject } }\n")
    pushed = turnout(service, "push", str(tmp_path), "--tenant", "docs-cli", "--json")
    assert pushed.returncode == 0, pushed.stderr
    assert [(each["operations"], each["state"]) for each in json.loads(pushed.stdout)] == [
        (["Subject"], "registered"),
        (["Who"], "registered"),
    ]
    assert json.loads(turnout(service, "push", str(tmp_path), "--tenant", "docs-cli", "--json").stdout)[0]["state"] == "there already"
    assert {each["id"] for each in json.loads(turnout(service, "list", "--tenant", "docs-cli", "--json").stdout)} == ids_of(admin)

    (tmp_path / "subject.graphql").unlink()
    pruned = turnout(service, "push", str(tmp_path), "--tenant", "docs-cli", "--prune")
    assert [line.split()[-1] for line in pruned.stdout.splitlines()[1:]] == ["already", "removed"]
    assert ids_of(admin) == {sha(WHO)}
    assert turnout(service, "remove", sha(WHO), "--tenant", "docs-cli").returncode == 0
    assert ids_of(admin) == set()


def test_what_does_not_fit_is_told_with_its_file_and_nothing_is_pruned(service: Service, tmp_path: Path) -> None:
    admin = service.new_tenant("docs-cli-bad")
    admin.ask(REGISTER, documents=[{"text": WHO}])
    (tmp_path / "bad.graphql").write_text("{ viewer { age } }")
    pushed = turnout(service, "push", str(tmp_path), "--tenant", "docs-cli-bad", "--prune")
    assert pushed.returncode == 1
    assert "bad.graphql: Cannot query field 'age' on type 'Viewer'." in pushed.stderr
    assert ids_of(admin) == {sha(WHO)}


def test_operators_push_for_all_tenants_from_a_terminal(service: Service, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"from-a-terminal": WHO}))
    pushed = turnout(service, "push", str(tmp_path / "manifest.json"), "--all-tenants", "--json")
    assert json.loads(pushed.stdout) == [{"id": "from-a-terminal", "operations": ["Who"], "state": "registered"}]
    assert json.loads(turnout(service, "remove", "from-a-terminal", "--all-tenants", "--json").stdout)[0]["state"] == "removed"


def test_256_kib_in_a_thousand_documents_are_registered_in_one_call(service: Service) -> None:
    admin = service.new_tenant("docs-many")
    texts = [f"query Q{number} {{ viewer {{ {' '.join(['tenant'] * 33)} }} }}" for number in range(1_000)]
    assert 254_000 < sum(map(len, texts)) < 256 * 1024
    answer = httpx.post(
        f"{service.url}/graphql",
        json={"query": REGISTER, "variables": {"documents": [{"text": text} for text in texts]}}, headers=admin.headers, timeout=90,
    )  # fmt: skip
    made = data_of(answer.json())["registerDocuments"]
    assert [each["id"] for each in made] == [sha(text) for text in texts]
    assert send(admin, documentId=sha(texts[-1]))["data"] == {"viewer": {"tenant": "docs-many"}}
    assert admin.refused(REGISTER, documents=[{"text": WHO}])["extensions"]["code"] == "QUOTA_EXCEEDED"
