"""Field by role: who may not, is told so; the side effect does not happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from graphql import ObjectTypeDefinitionNode, parse
from sklearn.dummy import DummyClassifier

from app.graphql.schema import build_schema
from app.kernel.context import Role

if TYPE_CHECKING:
    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("service")]

# Each root field, called so that a caller who may gets past the permission (to NOT_FOUND or an answer).
CALLS = {
    "viewer": "{ viewer { subject } }",
    "predict": '{ predict(model: "none", features: [1]) { id } }',
    "predictBatch": '{ predictBatch(model: "none", rows: [[1]]) { id } }',
    "model": '{ model(name: "none") { name } }',
    "models": "{ models { edges { cursor } } }",
    "promotionBlockers": '{ promotionBlockers(model: "none", version: 1) { code } }',
    "compareModelVersions": '{ compareModelVersions(model: "none", a: 1, b: 2) { classesEqual } }',
    "unitHash": '{ unitHash(unit: "u") }',
    "auditLog": "{ auditLog { edges { cursor } } }",
    "usage": '{ usage(from: "2026-01-01T00:00:00Z", to: "2026-01-02T00:00:00Z") { requests } }',
    "serviceLevel": "{ serviceLevel { requests } }",
    "tenants": "{ tenants { edges { cursor } } }",
    "tenant": '{ tenant(id: "none") { id } }',
    "registerModelVersion": 'mutation { registerModelVersion(input: {model: "none", task: REGRESSION, artifactDigest: "%s"}) { number } }'
    % ("0" * 64),
    "publishModelVersion": """mutation { publishModelVersion(model: "none", version: 1, toTenant: "none", toModel: "", targetToken: "x") {
        number } }""",
    "updateModel": 'mutation { updateModel(name: "none", input: {description: "x"}) { name } }',
    "promote": 'mutation { promote(model: "none", version: 1) { revision } }',
    "rollback": 'mutation { rollback(model: "none") { revision } }',
    "withdrawModelVersion": 'mutation { withdrawModelVersion(model: "none", version: 1, reason: "x") { status } }',
    "archiveModelVersion": 'mutation { archiveModelVersion(model: "none", version: 1) { status } }',
    "experiment": '{ experiment(key: "none") { key } }',
    "experiments": "{ experiments { edges { cursor } } }",
    "createExperiment": """mutation { createExperiment(input: {key: "x", model: "none", primaryMetric: {name: "m", kind: MEAN}, variants: [
        {name: "a", version: 1, control: true}, {name: "b", version: 2}]}) { key } }""",
    "updateExperiment": 'mutation { updateExperiment(key: "none", input: {hypothesis: "x"}) { key } }',
    "startExperiment": 'mutation { startExperiment(key: "none") { key } }',
    "rampExperiment": 'mutation { rampExperiment(key: "none", rollout: 5) { key } }',
    "stopExperiment": 'mutation { stopExperiment(key: "none") { key } }',
    "concludeExperiment": 'mutation { concludeExperiment(key: "none") { key } }',
    "experimentPower": '{ experimentPower(metric: "none", units: 100) { mean } }',
    "recordOutcome": 'mutation { recordOutcome(input: {metric: "none", value: 1, unit: "u", idempotencyKey: "k"}) { id } }',
    "recordOutcomes": "mutation { recordOutcomes(inputs: []) { recorded { id } } }",
    "declareMetric": 'mutation { declareMetric(input: {name: "NONE", kind: MEAN}) { name } }',
    "createTenant": 'mutation { createTenant(input: {id: "", name: "x"}) { id } }',
    "updateTenantLimits": 'mutation { updateTenantLimits(tenant: "none", limits: {burst: 1}) { id } }',
    "updateTenantSettings": 'mutation { updateTenantSettings(tenant: "none", settings: {retentionDays: 1}) { id } }',
    "suspendTenant": 'mutation { suspendTenant(tenant: "none", reason: "x") { id } }',
    "resumeTenant": 'mutation { resumeTenant(tenant: "none") { id } }',
    "eraseTenant": 'mutation { eraseTenant(tenant: "none", confirm: "none", reason: "x") { id } }',
    "mapTenantName": 'mutation { mapTenantName(tenant: "none", issuer: "i", externalId: "e") { id } }',
    "unmapTenantName": 'mutation { unmapTenantName(tenant: "none", issuer: "i", externalId: "e") { id } }',
    "revokeTokens": 'mutation { revokeTokens(reason: "x") }',
    "eraseUnit": 'mutation { eraseUnit(unit: "", reason: "x") { id } }',
    "capturedInput": '{ capturedInput(predictionId: "none") }',
    "documents": "{ documents { edges { cursor } } }",
    "registerDocuments": "mutation { registerDocuments(documents: []) { id } }",
    "removeDocuments": "mutation { removeDocuments(ids: []) }",
    "platformDocuments": "{ platformDocuments { edges { cursor } } }",
    "registerPlatformDocuments": "mutation { registerPlatformDocuments(documents: []) { id } }",
    "removePlatformDocuments": "mutation { removePlatformDocuments(ids: []) }",
}
# From the contract's table of roles, written out by hand: the permission table is held to it.
READ = {
    "model",
    "usage",
    "serviceLevel",
    "models",
    "promotionBlockers",
    "compareModelVersions",
    "unitHash",
    "experiment",
    "experiments",
    "experimentPower",
    "documents",
}
OUTCOMES = {"recordOutcome", "recordOutcomes"}
TENANTS = {
    "tenants", "tenant", "createTenant", "updateTenantLimits", "updateTenantSettings", "suspendTenant", "resumeTenant", "eraseTenant",
    "mapTenantName", "unmapTenantName", "platformDocuments", "registerPlatformDocuments", "removePlatformDocuments",
}  # fmt: skip
MAY = {
    "READER": READ | {"viewer"},
    "PREDICTOR": {"viewer", "predict", "predictBatch"} | OUTCOMES,
    "PUBLISHER": {"viewer", "registerModelVersion", "model", "models", "promotionBlockers", "compareModelVersions"},
    "EXPERIMENTER": READ
    | {name for name in CALLS if name.endswith("Experiment")}
    | {"viewer", "predict", "predictBatch", "declareMetric"}
    | OUTCOMES,
    "ADMIN": set(CALLS) - TENANTS,
    "OPERATOR": {"viewer", "revokeTokens"} | TENANTS,
}


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    client = service.new_tenant("roles-tests")
    client.serve("model", "CLASSIFICATION", DummyClassifier().fit([[0], [1]], [0, 1]))
    return client


def test_every_root_field_is_called_here() -> None:
    schema = build_schema()._schema
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert set(CALLS) == set(schema.query_type.fields) | set(schema.mutation_type.fields)


@pytest.mark.parametrize("role", [role.value for role in Role])
def test_a_role_may_exactly_what_the_contract_gives_it(service: Service, admin: Client, role: str) -> None:
    client = service.client("roles-tests", role)
    allowed = set()
    for name, query in CALLS.items():
        errors = client.post(query).json().get("errors", [])
        if not any(e["extensions"]["code"] == "FORBIDDEN" for e in errors):
            allowed.add(name)
    assert allowed == MAY[role]


def test_the_schema_shows_on_each_root_field_the_roles_of_the_permission_table() -> None:
    document = parse(build_schema().as_str())
    fields = [
        f
        for d in document.definitions
        if isinstance(d, ObjectTypeDefinitionNode) and d.name.value in ("Query", "Mutation")
        for f in d.fields
    ]
    shown = {}
    for field in fields:
        (requires,) = [d for d in field.directives if d.name.value == "requires"]
        shown[field.name.value] = {value.value for value in requires.arguments[0].value.values}
    assert shown == {name: {role for role, fields in MAY.items() if name in fields} for name in CALLS}


@pytest.mark.parametrize(
    ("role", "status"), [("PUBLISHER", 201), ("ADMIN", 201), ("READER", 403), ("PREDICTOR", 403), ("EXPERIMENTER", 403), ("OPERATOR", 403)]
)
def test_publishers_and_admins_upload_and_nobody_else(service: Service, admin: Client, role: str, status: int) -> None:
    client = service.client("roles-tests", role)
    answer = httpx.post(f"{service.url}/artifacts", content=b"some bytes", headers=client.headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize(
    ("roles", "may"), [(["PREDICTOR"], False), (["PREDICTOR", "PUBLISHER"], True), (["EXPERIMENTER"], True), (["ADMIN"], True)]
)
def test_naming_a_version_or_another_alias_needs_more_than_predict(service: Service, admin: Client, roles: list[str], may: bool) -> None:
    client = service.client("roles-tests", *roles)
    assert client.ask('{ predict(model: "model", features: [1]) { version } }') == {"predict": {"version": 1}}
    assert client.ask('{ predict(model: "model", features: [1], alias: "production") { version } }') == {"predict": {"version": 1}}
    for pin in ("version: 1", 'alias: "other"'):
        errors = client.post('{ predict(model: "model", features: [1], PIN) { version } }'.replace("PIN", pin)).json().get("errors", [])
        assert any(e["extensions"]["code"] == "FORBIDDEN" for e in errors) is not may


def test_concluding_with_a_promotion_needs_what_promoting_needs(service: Service, admin: Client) -> None:
    conclude = 'mutation { concludeExperiment(key: "none", promoteVariant: "x") { key } }'
    error = service.client("roles-tests", "EXPERIMENTER").refused(conclude)
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert "PROMOTE (ADMIN)" in error["message"]
    assert admin.refused(conclude)["extensions"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("path", ["/graphql", "/artifacts"])
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Basic eDp5", "Bearer a.b.c"])
def test_without_a_good_token_everything_is_401_in_one_text(service: Service, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.post(service.url + path, json={"query": "{ viewer { subject } }"}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json()["errors"][0]["message"] == "A valid bearer token is needed."
