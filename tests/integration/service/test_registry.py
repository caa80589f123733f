"""Versions, aliases, promotions and their history, from outside."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.support.service import PROMOTE, REGISTER, dumped

if TYPE_CHECKING:
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

X = np.arange(20, dtype=float).reshape(10, 2)
Y = np.array([0, 1] * 5)
ROLLBACK = """mutation($model: String!, $alias: String! = "production", $expected: Int) {
  rollback(model: $model, alias: $alias, expectedRevision: $expected) { version previousVersion revision } }"""
HISTORY = """query($model: String!) { model(name: $model) { aliases { name revision version { number }
  history { edges { node { version previousVersion revision by reason } } } } } }"""
BLOCKERS = "query($model: String!, $version: Int!) { promotionBlockers(model: $model, version: $version) { code overridable } }"


def constant(value: int) -> DummyClassifier:
    """A model that can be told from the others by its answer."""
    return DummyClassifier(strategy="constant", constant=value % 2).fit(X, Y)


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    return service.new_tenant("registry-tests")


def three_versions(admin: Client, model: str) -> None:
    for number in (1, 2, 3):
        assert admin.ready(model, "CLASSIFICATION", constant(number), description=f"v{number}") == number


def test_rollback_walks_down_the_history_and_then_is_a_conflict(admin: Client) -> None:
    three_versions(admin, "stack")
    for number in (1, 2, 3):
        assert admin.ask(PROMOTE, model="stack", version=number)["promote"]["revision"] == number
    assert admin.ask(ROLLBACK, model="stack")["rollback"] == {"version": 2, "previousVersion": 3, "revision": 4}
    assert admin.ask(ROLLBACK, model="stack")["rollback"] == {"version": 1, "previousVersion": 2, "revision": 5}
    assert admin.refused(ROLLBACK, model="stack")["extensions"]["code"] == "CONFLICT"
    assert admin.ask(PROMOTE, model="stack", version=3)["promote"]["revision"] == 6
    assert admin.ask(ROLLBACK, model="stack")["rollback"]["version"] == 1
    alias = admin.ask(HISTORY, model="stack")["model"]["aliases"][0]
    assert (alias["revision"], alias["version"]["number"]) == (7, 1)
    assert [edge["node"]["version"] for edge in alias["history"]["edges"]] == [1, 3, 1, 2, 3, 2, 1]


def test_promoting_what_serves_changes_nothing(admin: Client) -> None:
    admin.serve("same", "CLASSIFICATION", constant(1))
    again = admin.ask(PROMOTE, model="same", version=1)["promote"]
    assert (again["revision"], again["previousVersion"]) == (1, None)


def test_a_stale_revision_is_a_conflict_that_names_the_current_one(admin: Client) -> None:
    three_versions(admin, "cas")
    admin.ask(PROMOTE, model="cas", version=1, expected=0)
    error = admin.refused(PROMOTE, model="cas", version=2, expected=0)
    assert error["extensions"]["code"] == "CONFLICT"
    assert "revision 1, not 0" in error["message"]
    assert admin.ask(PROMOTE, model="cas", version=2, expected=1)["promote"]["revision"] == 2


def test_of_two_admins_at_once_with_the_same_expected_revision_one_wins(admin: Client) -> None:
    three_versions(admin, "race")
    admin.ask(PROMOTE, model="race", version=1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: admin.post(PROMOTE, model="race", version=2 + n % 2, expected=1).json(), range(8)))
    won = [a["data"]["promote"]["version"] for a in answers if not a.get("errors")]
    lost = {a["errors"][0]["extensions"]["code"] for a in answers if a.get("errors")}
    assert (len(won), lost) == (1, {"CONFLICT"})


def test_concurrent_registrations_get_numbers_of_their_own_and_a_repeat_the_same(admin: Client) -> None:
    digest = admin.upload(dumped(constant(1)))

    def register(n: int) -> int:
        given = {"model": "numbers", "task": "CLASSIFICATION", "artifactDigest": digest, "description": f"run {n % 6}"}
        return admin.ask(REGISTER, input=given)["registerModelVersion"]["number"]

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        numbers = list(pool.map(register, range(12)))
    assert sorted(set(numbers)) == [1, 2, 3, 4, 5, 6]
    assert numbers[:6] == numbers[6:]


def test_a_signature_that_breaks_callers_is_refused_with_every_blocker_named_and_an_admin_may_override(admin: Client) -> None:
    old = [{"name": "a", "type": "NUMBER"}, {"name": "b", "type": "NUMBER"}]
    new = [{"name": "a", "type": "NUMBER", "minimum": 0.0}, {"name": "c", "type": "NUMBER"}]
    admin.serve("breaking", "CLASSIFICATION", constant(1), signature=old)
    assert admin.ready("breaking", "CLASSIFICATION", constant(1), signature=new) == 2
    codes = [(b["code"], b["overridable"]) for b in admin.ask(BLOCKERS, model="breaking", version=2)["promotionBlockers"]]
    assert codes == [("COLUMN_REMOVED", True), ("RANGE_NARROWED", True), ("COLUMN_ADDED", True)]
    error = admin.refused(PROMOTE, model="breaking", version=2)
    assert error["extensions"]["code"] == "NOT_PROMOTABLE"
    assert [b["code"] for b in error["extensions"]["blockers"]] == [code for code, _ in codes]
    assert admin.refused(PROMOTE, model="breaking", version=2, breaking=True)["extensions"]["code"] == "BAD_USER_INPUT"
    done = admin.ask(PROMOTE, model="breaking", version=2, breaking=True, reason="all callers moved")["promote"]
    assert (done["revision"], done["reason"]) == (2, "all callers moved")


def test_the_same_artifact_under_two_signatures_is_two_versions_that_answer_by_their_own(admin: Client) -> None:
    model = LogisticRegression().fit(X, Y)
    first = admin.serve("twice", "CLASSIFICATION", model, signature=[{"name": n, "type": "NUMBER"} for n in ("a", "b")])
    second = admin.ready("twice", "CLASSIFICATION", model, signature=[{"name": n, "type": "NUMBER"} for n in ("p", "q")])
    one = admin.predict("twice", {"a": 3, "b": 4}, version=first)
    two = admin.predict("twice", {"p": 3, "q": 4}, version=second)
    assert one["probability"] == two["probability"] == pytest.approx(model.predict_proba([[3, 4]])[0].max(), abs=1e-12)


@pytest.mark.parametrize("made", ["FAILED", "missing", "archived", "withdrawn"])
def test_what_cannot_serve_cannot_be_promoted(admin: Client, made: str) -> None:
    model = f"not-{made.lower()}"
    admin.serve(model, "CLASSIFICATION", constant(1))
    if made == "FAILED":
        assert admin.register(model, "CLASSIFICATION", LinearRegression().fit(X, Y))["status"] == "FAILED"
    elif made != "missing":
        admin.ready(model, "CLASSIFICATION", constant(2))
        verb = {"archived": "archiveModelVersion", "withdrawn": "withdrawModelVersion"}[made]
        admin.ask(f'mutation {{ {verb}(model: "{model}", version: 2, reason: "test") {{ status }} }}')
    error = admin.refused(PROMOTE, model=model, version=2)
    assert error["extensions"]["code"] == ("NOT_FOUND" if made == "missing" else "NOT_PROMOTABLE")
    assert admin.predict(model, [1, 2])["version"] == 1


def test_a_withdrawn_version_leaves_every_route_and_its_alias_steps_back(admin: Client) -> None:
    three_versions(admin, "withdrawn")
    for number in (1, 2, 3):
        admin.ask(PROMOTE, model="withdrawn", version=number)
    admin.ask('mutation { withdrawModelVersion(model: "withdrawn", version: 2, reason: "bad data") { status } }')
    assert admin.predict("withdrawn", [1, 2])["version"] == 3
    admin.ask('mutation { withdrawModelVersion(model: "withdrawn", version: 3, reason: "worse data") { status } }')
    assert admin.predict("withdrawn", [1, 2])["version"] == 1
    pinned = admin.refused('{ predict(model: "withdrawn", features: [1, 2], version: 3) { version } }')
    assert pinned["extensions"]["code"] == "NOT_FOUND"


def test_a_version_in_use_cannot_be_archived(admin: Client) -> None:
    admin.serve("in-use", "CLASSIFICATION", constant(1))
    error = admin.refused('mutation { archiveModelVersion(model: "in-use", version: 1) { status } }')
    assert error["extensions"]["code"] == "CONFLICT"
    assert "serves production" in error["message"]


def test_names_that_differ_by_hyphens_alone_clash(admin: Client) -> None:
    admin.ready("credit-risk", "CLASSIFICATION", constant(1))
    digest = admin.upload(dumped(constant(1)))
    given = {"model": "creditrisk", "task": "CLASSIFICATION", "artifactDigest": digest}
    assert admin.refused(REGISTER, input=given)["extensions"]["code"] == "CONFLICT"


def test_a_model_keeps_its_task(admin: Client) -> None:
    admin.ready("task", "CLASSIFICATION", constant(1))
    digest = admin.upload(dumped(LinearRegression().fit(X, Y)))
    error = admin.refused(REGISTER, input={"model": "task", "task": "REGRESSION", "artifactDigest": digest})
    assert error["extensions"]["code"] == "CONFLICT"


def test_an_artifact_that_was_not_uploaded_is_not_found(admin: Client) -> None:
    error = admin.refused(REGISTER, input={"model": "nothing", "task": "CLASSIFICATION", "artifactDigest": "0" * 64})
    assert error["extensions"]["code"] == "NOT_FOUND"
    assert "POST /artifacts" in error["message"]


def test_the_same_bytes_have_the_same_digest(admin: Client) -> None:
    data = dumped(constant(1))
    assert admin.upload(data) == admin.upload(data)


def test_the_limits_of_a_tenant_hold_its_uploads_and_models(service: Service) -> None:
    small = service.new_tenant("small-limits", maxModels=1, maxArtifactBytes=100_000, maxStoredBytes=150_000)
    too_large = httpx.post(f"{service.url}/artifacts", content=b"x" * 100_001, headers=small.headers)
    assert (too_large.status_code, too_large.json()["errors"][0]["extensions"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    chunked = httpx.post(f"{service.url}/artifacts", content=iter([b"x" * 50_000] * 3), headers=small.headers)
    assert (chunked.status_code, chunked.json()["errors"][0]["extensions"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    small.upload(b"a" * 90_000)
    full = httpx.post(f"{service.url}/artifacts", content=b"b" * 90_000, headers=small.headers)
    assert full.json()["errors"][0]["extensions"]["code"] == "QUOTA_EXCEEDED"
    digest = small.upload(dumped(constant(1)))
    small.ask(REGISTER, input={"model": "one", "task": "CLASSIFICATION", "artifactDigest": digest})
    error = small.refused(REGISTER, input={"model": "two", "task": "CLASSIFICATION", "artifactDigest": digest})
    assert (error["extensions"]["code"], "1 models" in error["message"]) == ("CONFLICT", True)


def test_every_change_is_in_the_audit_log_with_who_what_and_why(service: Service) -> None:
    admin = service.new_tenant("audited")
    admin.serve("model", "CLASSIFICATION", constant(1))
    admin.ready("model", "CLASSIFICATION", constant(2), description="two")
    service.client("audited", subject="eva").ask(PROMOTE, model="model", version=2, reason="better")
    log = admin.ask("{ auditLog(first: 3) { edges { node { actor action subject before after reason } } pageInfo { hasNextPage } } }")
    assert log["auditLog"]["edges"][0]["node"] == {
        "actor": "eva",
        "action": "promote",
        "subject": "alias:model/production",
        "before": {"version": 1, "revision": 1},
        "after": {"version": 2, "revision": 2},
        "reason": "better",
    }
    assert log["auditLog"]["pageInfo"]["hasNextPage"] is True


def test_lists_page_in_their_order(service: Service) -> None:
    admin = service.new_tenant("paging")
    digest = admin.upload(dumped(constant(1)))
    for name in ("delta", "alpha", "charlie", "bravo"):
        admin.ask(REGISTER, input={"model": name, "task": "CLASSIFICATION", "artifactDigest": digest})
    query = "query($after: String) { models(first: 3, after: $after) { edges { node { name } } pageInfo { endCursor hasNextPage } } }"
    first = admin.ask(query)["models"]
    assert [e["node"]["name"] for e in first["edges"]] == ["alpha", "bravo", "charlie"]
    second = admin.ask(query, after=first["pageInfo"]["endCursor"])["models"]
    assert ([e["node"]["name"] for e in second["edges"]], second["pageInfo"]["hasNextPage"]) == (["delta"], False)
    assert admin.refused("{ models(first: 101) { edges { cursor } } }")["extensions"]["code"] == "BAD_USER_INPUT"


def test_a_model_can_be_changed_and_says_how(admin: Client) -> None:
    admin.ready("changed", "CLASSIFICATION", constant(1))
    update = 'mutation($input: UpdateModelInput!) { updateModel(name: "changed", input: $input) { description fallback { kind version } } }'
    changed = admin.ask(update, input={"description": "who leaves", "fallback": {"kind": "VERSION", "version": 1}})["updateModel"]
    assert changed == {"description": "who leaves", "fallback": {"kind": "VERSION", "version": 1}}
    assert admin.ask(update, input={"description": None})["updateModel"] == {
        "description": None,
        "fallback": {"kind": "VERSION", "version": 1},
    }
    assert admin.refused(update, input={"fallback": {"kind": "VERSION", "version": 9}})["extensions"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("name", ["a\0b", "\0", "no-such-model"])
def test_a_name_that_no_model_can_have_is_not_found_like_any_other(admin: Client, name: str) -> None:
    for document in (PROMOTE, BLOCKERS):
        error = admin.refused(document, model=name, version=1)
        assert (error["extensions"]["code"], error["message"]) == ("NOT_FOUND", f"There is no model named {name!r}.")
    for document in (ROLLBACK, HISTORY):
        assert admin.refused(document, model=name)["extensions"]["code"] == "NOT_FOUND"
