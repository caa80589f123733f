"""What is another tenant's does not exist: every field of the schema, called as one tenant with the other's names, ids and cursors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    build_schema,
)
from sklearn.dummy import DummyClassifier

from app.graphql.export import sdl
from tests.support.service import PROMOTE

if TYPE_CHECKING:
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

SCHEMA = build_schema(sdl())
SECRET = "zebra-secret"
ROOTS = [(kind, name) for kind, root in (("query", SCHEMA.query_type), ("mutation", SCHEMA.mutation_type)) for name in root.fields]
# Fields that answer about the caller alone, or about the platform for operators alone; each is held to that below.
OWN = {
    "viewer",
    "unitHash",
    "eraseUnit",  # a unit of the same name is another one
    "serviceLevel",
    "declareMetric",
    "registerDocuments",
    "removeDocuments",
}  # a metric or document of the same name is another one
OPERATORS = {
    "tenants", "tenant", "createTenant", "updateTenantLimits", "updateTenantSettings", "suspendTenant", "resumeTenant", "eraseTenant",
    "mapTenantName", "unmapTenantName", "platformDocuments", "registerPlatformDocuments", "removePlatformDocuments",
}  # fmt: skip
PROOF = {"publishModelVersion"}  # names the other tenant, and wants proof first
LISTS = {"models", "auditLog", "experiments", "documents", "usage", "capturedInput"}

EXPERIMENT = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }"
REGISTER = "mutation($documents: [DocumentInput!]!) { registerDocuments(documents: $documents) { id } }"
DOCUMENT = "query Zebra { viewer { tenant } }"
VARIANTS = [{"name": SECRET, "version": 1, "control": True}, {"name": "other", "version": 1}]
# An experiment of the victim's whose every name is recognisable.
WHOLE = {
    "model": SECRET, "hypothesis": SECRET, "layer": SECRET, "primaryMetric": {"name": SECRET, "kind": "MEAN"}, "variants": VARIANTS,
    "targeting": [{"attribute": SECRET, "operator": "IN", "values": [SECRET]}], "overrides": [{"unit": SECRET, "variant": SECRET}],
}  # fmt: skip


@pytest.fixture(scope="module")
def victim(service: Service) -> Client:
    """A tenant whose every name, text and value is recognisable."""
    admin = service.new_tenant("isolated-victim")
    estimator = DummyClassifier(strategy="constant", constant=SECRET).fit([[0], [1]], [SECRET, "other"])
    more = {"description": SECRET, "metrics": {SECRET: 1}, "tags": {SECRET: SECRET}}
    admin.serve(SECRET, "CLASSIFICATION", estimator, **more)
    admin.ask(PROMOTE, model=SECRET, version=1, alias=SECRET, reason=SECRET)
    admin.ask(EXPERIMENT, input={"key": SECRET, **WHOLE})
    admin.ask("mutation($key: String!) { startExperiment(key: $key) { key } }", key=SECRET)
    admin.ask(EXPERIMENT, input={"key": f"{SECRET}-draft", **WHOLE})
    admin.ask(REGISTER, documents=[{"id": SECRET, "text": DOCUMENT}])
    admin.predict(SECRET, [1])  # so that there is usage
    return admin


@pytest.fixture(scope="module")
def stranger(service: Service) -> Client:
    return service.new_tenant("isolated-stranger")


@pytest.fixture(scope="module")
def foreign(victim: Client) -> dict[str, Any]:
    """The victim's values by argument name."""
    listed = victim.ask(
        "{ models { pageInfo { endCursor } edges { node { version(number: 1) { artifactDigest } } } } auditLog { pageInfo { endCursor } }"
        " experiments { pageInfo { endCursor } } documents { pageInfo { endCursor } } }"
    )
    digest = listed["models"]["edges"][0]["node"]["version"]["artifactDigest"]
    now = datetime.now(UTC)
    around = {"from": (now - timedelta(days=9)).isoformat(), "to": (now + timedelta(days=9)).isoformat()}
    return {
        **around,
        "actor": "tester",
        "action": "promote",
        "models.after": listed["models"]["pageInfo"]["endCursor"],
        "auditLog.after": listed["auditLog"]["pageInfo"]["endCursor"],
        "experiments.after": listed["experiments"]["pageInfo"]["endCursor"],
        "documents.after": listed["documents"]["pageInfo"]["endCursor"],
        "documents": [{"text": DOCUMENT}],
        "ids": [SECRET],
        "artifactDigest": digest,
        "subject": f"alias:{SECRET}/production",
        "variants": VARIANTS,
        "plannedUnits": 100,
        "eraseUnit.reason": "for a test",
        "features": [1],
        "rows": [[1]],
    }


def value_for(root: str, name: str, kind: Any, foreign: dict[str, Any]) -> Any:
    """Something of the victim's that fits this argument."""
    if f"{root}.{name}" in foreign:
        return foreign[f"{root}.{name}"]
    if isinstance(kind, GraphQLNonNull):
        return value_for(root, name, kind.of_type, foreign)
    if name in foreign:
        return foreign[name]
    if isinstance(kind, GraphQLList):
        return None
    if isinstance(kind, GraphQLInputObjectType):
        fields = {
            n: value_for(root, n, f.type, foreign) for n, f in kind.fields.items() if n not in ("signature", "sample", "cacheSeconds")
        }
        return {n: v for n, v in fields.items() if v is not None}
    if isinstance(kind, GraphQLEnumType):
        return "NONE" if "NONE" in kind.values else next(iter(kind.values))
    assert isinstance(kind, GraphQLScalarType)
    plain = {"Int": 1, "BigInt": 1, "Boolean": False, "Float": 1.0, "JSON": None, "FeatureMatrix": None, "Attributes": None}
    return plain.get(kind.name, SECRET)


def selection(kind: Any, depth: int = 4) -> str:
    """Every field of a type that needs no argument, to a depth."""
    while isinstance(kind, GraphQLNonNull | GraphQLList):
        kind = kind.of_type
    if not isinstance(kind, GraphQLObjectType):
        return ""
    parts = []
    for name, field in kind.fields.items():
        arguments = "(number: 1)" if any(isinstance(a.type, GraphQLNonNull) for a in field.args.values()) else ""
        inner = selection(field.type, depth - 1)
        leaf = not isinstance(_named(field.type), GraphQLObjectType)
        if leaf or (depth > 1 and inner):
            parts.append(f"{name}{arguments} {inner}")
    return "{ " + " ".join(parts) + " }" if parts else ""


def _named(kind: Any) -> Any:
    while isinstance(kind, GraphQLNonNull | GraphQLList):
        kind = kind.of_type
    return kind


def call(root_kind: str, name: str, foreign: dict[str, Any], without: frozenset[str]) -> tuple[str, dict[str, Any]]:
    root = SCHEMA.query_type if root_kind == "query" else SCHEMA.mutation_type
    assert root is not None
    field = root.fields[name]
    arguments = {n: a for n, a in field.args.items() if n not in without}
    variables = {n: value_for(name, n, a.type, foreign) for n, a in arguments.items()}
    declared = ", ".join(f"${n}: {a.type}" for n, a in arguments.items())
    passed = ", ".join(f"{n}: ${n}" for n in arguments)
    head = f"{root_kind}({declared}) {{ {name}({passed})" if arguments else f"{root_kind} {{ {name}"
    return f"{head} {selection(field.type)} }}", variables


def everything_of(victim: Client) -> list[dict[str, Any]]:
    """The victim's model, experiments and documents, but for the time of asking."""
    experiments = selection(SCHEMA.type_map["ExperimentConnection"], 3).replace("computedAt", "")
    model = selection(SCHEMA.type_map["Model"])
    documents = selection(SCHEMA.type_map["RegisteredDocumentConnection"], 3)
    whole = f"{{ experiments {experiments} documents {documents} }}"
    return [victim.ask(f'{{ model(name: "{SECRET}") {model} }}'), victim.ask(whole)]


# predict takes alias or version, and matrix or rows: each is tried.
WAYS = [frozenset({"version", "matrix"}), frozenset({"alias", "matrix"}), frozenset({"alias", "version", "matrix"})]


@pytest.mark.parametrize(("kind", "name"), ROOTS, ids=[name for _, name in ROOTS])
def test_no_field_with_any_argument_shows_or_changes_what_is_another_tenants(
    victim: Client, stranger: Client, foreign: dict[str, Any], kind: str, name: str
) -> None:
    before = everything_of(victim)
    for without in WAYS if name.startswith("predict") else [frozenset()]:
        query, variables = call(kind, name, foreign, without)
        answer = stranger.post(query, **variables).json()
        data, errors = answer.get("data"), answer.get("errors", [])
        codes = {e["extensions"]["code"] for e in errors}
        if name in OWN:
            assert not errors
        elif name in LISTS:
            assert SECRET not in str(data)
            assert codes <= {"BAD_USER_INPUT"}
        elif name in OPERATORS | PROOF:
            assert codes == {"FORBIDDEN"}
        else:
            assert codes <= {"NOT_FOUND", "BAD_USER_INPUT"}, answer
            assert codes, answer
    assert everything_of(victim) == before


@pytest.mark.parametrize(
    "query",
    [
        "{ model(name: NAME) { name } }",
        "{ predict(model: NAME, features: [1]) { id } }",
        "{ predict(model: NAME, features: [1], version: 1) { id } }",
        "{ predictBatch(model: NAME, rows: [[1]]) { id } }",
        "{ promotionBlockers(model: NAME, version: 1) { code } }",
        "{ compareModelVersions(model: NAME, a: 1, b: 1) { classesEqual } }",
        "mutation { promote(model: NAME, version: 1) { revision } }",
        "mutation { rollback(model: NAME) { revision } }",
        'mutation { updateModel(name: NAME, input: {description: "x"}) { name } }',
        'mutation { withdrawModelVersion(model: NAME, version: 1, reason: "x") { status } }',
        "mutation { archiveModelVersion(model: NAME, version: 1) { status } }",
        "{ experiment(key: NAME) { key } }",
        'mutation { updateExperiment(key: NAME, input: {hypothesis: "x"}) { key } }',
        "mutation { startExperiment(key: NAME) { key } }",
        "mutation { rampExperiment(key: NAME, rollout: 5) { key } }",
        "mutation { stopExperiment(key: NAME) { key } }",
        "mutation { concludeExperiment(key: NAME) { key } }",
        'mutation { concludeExperiment(key: NAME, promoteVariant: "x") { key } }',
    ],
)
def test_the_answer_is_word_for_word_that_for_a_thing_that_does_not_exist(victim: Client, stranger: Client, query: str) -> None:
    def errors(name: str) -> str:
        error = stranger.refused(query.replace("NAME", f'"{name}"'))
        error["extensions"].pop("requestId")
        error.pop("locations")
        return str(error).replace(name, "NAME")

    assert victim.ask(f'{{ model(name: "{SECRET}") {{ name }} }}') == {"model": {"name": SECRET}}
    assert errors(SECRET) == errors("never-there")


def test_tokens_of_another_tenant_cannot_be_revoked_and_the_refusal_does_not_tell_whether_it_is_there(
    victim: Client, stranger: Client
) -> None:
    def error(tenant: str) -> tuple[str, str]:
        found = stranger.refused(f'mutation {{ revokeTokens(tenant: "{tenant}", subject: "tester", reason: "x") }}')
        return found["extensions"]["code"], found["message"]

    assert error("isolated-victim") == error("never-there") == ("NOT_FOUND", "There is no such tenant.")
    assert victim.ask("{ viewer { tenant } }") == {"viewer": {"tenant": "isolated-victim"}}


def test_a_foreign_artifact_is_not_there(victim: Client, stranger: Client, foreign: dict[str, Any]) -> None:
    register = "mutation($i: RegisterModelVersionInput!) { registerModelVersion(input: $i) { number } }"

    def message(digest: str) -> str:
        error = stranger.refused(register, i={"model": "mine", "task": "CLASSIFICATION", "artifactDigest": digest})
        return error["extensions"]["code"] + error["message"].replace(digest, "DIGEST")

    assert message(foreign["artifactDigest"]) == message("f" * 64)


def test_two_tenants_pseudonyms_of_one_unit_differ(victim: Client, stranger: Client) -> None:
    query = '{ unitHash(unit: "user-1") }'
    assert victim.ask(query) == victim.ask(query)
    assert victim.ask(query) != stranger.ask(query)
