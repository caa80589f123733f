"""A copy of a version in another tenant: by an ADMIN of both alone, within the other's limits, and told in both audit logs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.support.service import STATUS, dumped

if TYPE_CHECKING:
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

PUBLISH = """mutation($model: String!, $version: Int!, $toTenant: String!, $toModel: String!, $targetToken: String!) {
  publishModelVersion(model: $model, version: $version, toTenant: $toTenant, toModel: $toModel, targetToken: $targetToken) {
    number status artifactDigest metrics tags description lineage { gitCommit parentVersion } signature { name type minimum }
    origin { tenant model version artifactDigest } } }"""
AUDIT = "{ auditLog { edges { node { actor action subject after } } } }"
X, Y = np.arange(40, dtype=float).reshape(20, 2), np.array([0, 1] * 10)
COLUMNS = [{"name": "age", "type": "NUMBER", "minimum": 0}, {"name": "size", "type": "NUMBER"}]
MADE = {
    "signature": COLUMNS, "sample": X[:5].tolist(), "metrics": {"auc": 0.9}, "tags": {"team": "x"}, "description": "the good one",
    "lineage": {"gitCommit": "abc", "parentVersion": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def source(service: Service) -> Client:
    """A tenant with two READY versions of `risk`; the second comes from the first."""
    admin = service.new_tenant("publish-from")
    model = LogisticRegression().fit(X, Y)
    admin.ready("risk", "CLASSIFICATION", model, description="first", signature=COLUMNS)
    admin.ready("risk", "CLASSIFICATION", model, **MADE)
    return admin


def asked(target: Client, **changes: Any) -> dict[str, Any]:
    return {"model": "risk", "version": 2, "toTenant": "publish-to", "toModel": "theirs", "targetToken": target.token} | changes


def actions(admin: Client) -> list[tuple[str, str]]:
    return [(edge["node"]["action"], edge["node"]["subject"]) for edge in admin.ask(AUDIT)["auditLog"]["edges"]]


def settled(admin: Client, model: str, number: int) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (version := admin.ask(STATUS, model=model, number=number)["model"]["version"])["status"] == "VALIDATING":
        assert time.monotonic() < end
    return version


def test_the_copy_has_the_same_digest_and_record_and_its_origin_and_answers_the_same(service: Service, source: Client) -> None:
    target = service.new_tenant("publish-to")
    copy = source.ask(PUBLISH, **asked(target))["publishModelVersion"]
    digest = source.ask(STATUS, model="risk", number=2)["model"]["version"]["artifactDigest"]
    assert copy == {
        "number": 1, "status": "VALIDATING", "artifactDigest": digest, "metrics": {"auc": 0.9}, "tags": {"team": "x"},
        "description": "the good one", "lineage": {"gitCommit": "abc", "parentVersion": None},
        "signature": [{"name": "age", "type": "NUMBER", "minimum": 0}, {"name": "size", "type": "NUMBER", "minimum": None}],
        "origin": {"tenant": "publish-from", "model": "risk", "version": 2, "artifactDigest": digest},
    }  # fmt: skip
    assert settled(target, "theirs", 1)["status"] == "READY"
    row = {"age": 3.0, "size": 4.0}
    theirs, ours = (admin.predict(name, row, version=n) for admin, name, n in ((target, "theirs", 1), (source, "risk", 2)))
    assert theirs["probabilities"] == ours["probabilities"]


def test_both_tenants_logs_tell_of_it_and_the_same_again_is_the_same_version_and_no_further_entry(service: Service, source: Client) -> None:
    target = service.new_tenant("publish-twice")
    first = source.ask(PUBLISH, **asked(target, toTenant="publish-twice"))["publishModelVersion"]
    settled(target, "theirs", 1)
    told = source.ask(AUDIT)["auditLog"]["edges"][0]["node"]
    assert told == {
        "actor": "tester", "action": "publishModelVersion", "subject": "version:risk/2",
        "after": {"toTenant": "publish-twice", "toModel": "theirs", "artifactDigest": first["artifactDigest"]},
    }  # fmt: skip
    there = {edge["node"]["action"]: edge["node"] for edge in target.ask(AUDIT)["auditLog"]["edges"]}
    assert there["registerModelVersion"]["after"]["origin"] == first["origin"]
    assert there["uploadArtifact"]["subject"] == f"artifact:{first['artifactDigest']}"
    before = actions(source), actions(target)
    again = source.ask(PUBLISH, **asked(target, toTenant="publish-twice"))["publishModelVersion"]
    assert (again["number"], again["origin"]) == (1, first["origin"])
    assert (actions(source), actions(target)) == before


def test_without_proof_of_an_admin_of_the_other_tenant_nothing_is_copied_and_one_text_tells_so(service: Service, source: Client) -> None:
    target = service.new_tenant("publish-unproved")
    suspended = service.new_tenant("publish-suspended")
    operator = service.client("platform", "OPERATOR")
    operator.ask('mutation { suspendTenant(tenant: "publish-suspended", reason: "test") { id } }')
    good = asked(target, toTenant="publish-unproved")
    proofs = [
        {"targetToken": ""},
        {"targetToken": target.token[:-4] + "AAAA"},
        {"targetToken": source.token},
        {"targetToken": service.token("publish-unproved", "PUBLISHER")},
        {"targetToken": operator.token},
        {"toTenant": "never-there"},
        {"toTenant": "publish-suspended", "targetToken": suspended.token},
    ]
    refusals = [source.refused(PUBLISH, **{**good, **proof}) for proof in proofs]
    assert {(r["extensions"]["code"], r["message"]) for r in refusals} == {
        ("FORBIDDEN", "targetToken must be a valid token of an ADMIN of the tenant that toTenant names.")
    }
    publisher = service.client("publish-from", "PUBLISHER")
    assert publisher.refused(PUBLISH, **good)["extensions"]["code"] == "FORBIDDEN"
    assert [name for name, _ in actions(target)] == ["createTenant"]
    assert target.ask("{ models { edges { cursor } } }") == {"models": {"edges": []}}


def test_a_published_token_is_in_no_log_line(service: Service, source: Client) -> None:
    token = service.token("publish-from", "READER")  # good, and of no use here: refused
    signature = token.rsplit(".", 1)[1]
    source.refused(PUBLISH, **asked(source, targetToken=token))
    literal = PUBLISH.replace("$targetToken: String!", "").replace("targetToken: $targetToken", f'targetToken: "{token}"')
    values = asked(source)
    values.pop("targetToken")
    source.refused(literal, **values)
    assert signature not in service.log.read_text()


def test_the_other_tenants_limits_are_held_and_only_what_is_ready_is_published(service: Service, source: Client) -> None:
    size = len(dumped(LogisticRegression().fit(X, Y)))
    for name, limit, code in [
        ("publish-no-models", {"maxModels": 0}, "CONFLICT"),
        ("publish-small", {"maxArtifactBytes": size - 100}, "PAYLOAD_TOO_LARGE"),
        ("publish-full", {"maxStoredBytes": size - 100}, "QUOTA_EXCEEDED"),
    ]:
        target = service.new_tenant(name, **limit)
        assert source.refused(PUBLISH, **asked(target, toTenant=name))["extensions"]["code"] == code
        assert target.ask("{ models { edges { cursor } } }") == {"models": {"edges": []}}
    target = service.new_tenant("publish-ready-only")
    source.register("broken", "CLASSIFICATION", b"no model")
    good = asked(target, toTenant="publish-ready-only")
    assert source.refused(PUBLISH, **{**good, "model": "broken", "version": 1})["extensions"]["code"] == "CONFLICT"
    assert source.refused(PUBLISH, **{**good, "version": 9})["extensions"]["code"] == "NOT_FOUND"
    own = source.refused(PUBLISH, **{**good, "toTenant": "publish-from", "targetToken": source.token})
    assert own["extensions"]["code"] == "BAD_USER_INPUT"
