"""What each provider's tokens look like, as its documentation shows them, and whom they name here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigurationError, Unauthenticated
from app.kernel.clock import SystemClock
from app.kernel.context import Role
from app.kernel.issuers import PRESETS, Issuer, read_issuer
from app.tenancy.identity.keysets import StaticKeys
from app.tenancy.identity.refusals import Refusal
from app.tenancy.identity.verifier import TrustedIssuer, Verifier, build_key
from tests.support import tokens

pytestmark = pytest.mark.unit

DIRECTORY, OTHER = "72f988bf-86f1-41af-91ab-2d7cd011db47", "00000000-0000-0000-0000-000000000666"
HASURA = "https://hasura.io/jwt/claims"


@dataclass(frozen=True)
class Provider:
    """`entry` as docs/identity.md has it, `claims` of a good token, `bad`: changes that each make it a bad one."""

    entry: dict[str, Any]
    claims: dict[str, Any]
    tenant: str
    subject: str
    roles: frozenset[Role]
    bad: dict[str, tuple[dict[str, Any], Refusal]] = field(default_factory=dict)


def _entra(tid: str, **more: Any) -> dict[str, Any]:
    return {"iss": f"https://login.microsoftonline.com/{tid}/v2.0", "tid": tid, **more}


PROVIDERS = {
    "auth0": Provider(
        {
            "preset": "auth0",
            "issuer": "https://example.eu.auth0.com/",
            "audience": "https://turnout.example.org",
            "roleMap": {"turnout:predict": "PREDICTOR", "turnout:admin": "ADMIN"},
        },
        {
            "iss": "https://example.eu.auth0.com/",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://turnout.example.org", "https://example.eu.auth0.com/userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile",
            "org_id": "org_9ybsU1dN2dKfDkBi",
            "permissions": ["turnout:predict", "read:else"],
        },
        "org_9ybsU1dN2dKfDkBi",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        frozenset({Role.PREDICTOR}),
        {
            "logged in without an organization": ({"org_id": tokens.MISSING}, Refusal.TENANT),
            "for another API": ({"aud": ["https://example.eu.auth0.com/userinfo"]}, Refusal.AUDIENCE),
            "issuer without its slash": ({"iss": "https://example.eu.auth0.com"}, Refusal.ISSUER),
        },
    ),
    "keycloak map": Provider(
        {
            "preset": "keycloak",
            "issuer": "https://id.example.org/realms/main",
            "audience": "turnout",
            "roleMap": {"ml-admin": "ADMIN", "ml-app": "PREDICTOR"},
        },
        {
            "iss": "https://id.example.org/realms/main",
            "sub": "f1c7e1c3-6d2a-4d6e-8a55-8c9a5b1f3c11",
            "aud": ["turnout", "account"],
            "typ": "Bearer",
            "azp": "app",
            "realm_access": {"roles": ["default-roles-main", "ml-admin"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "organization": {"clinic": {"id": "d2f2"}},
        },
        "clinic",
        "f1c7e1c3-6d2a-4d6e-8a55-8c9a5b1f3c11",
        frozenset({Role.ADMIN}),
        {
            "a user of two organizations": ({"organization": {"clinic": {}, "bank": {}}}, Refusal.TENANT),
            "for Keycloak's own account console": ({"aud": "account"}, Refusal.AUDIENCE),
            "of another realm": ({"iss": "https://id.example.org/realms/other"}, Refusal.ISSUER),
        },
    ),
    "keycloak list": Provider(
        {
            "preset": "keycloak",
            "issuer": "https://id.example.org/realms/main",
            "audience": "turnout",
            "rolesClaim": "resource_access.turnout.roles",
        },
        {
            "iss": "https://id.example.org/realms/main",
            "sub": "u1",
            "aud": "turnout",
            "resource_access": {"turnout": {"roles": ["READER"]}},
            "organization": ["clinic"],
        },
        "clinic",
        "u1",
        frozenset({Role.READER}),
        {"two organizations": ({"organization": ["clinic", "bank"]}, Refusal.TENANT)},
    ),
    "entra": Provider(
        {
            "preset": "entra",
            "audience": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "allowedTenants": [DIRECTORY],
            "roleMap": {"Turnout.Admin": "ADMIN"},
        },
        _entra(
            DIRECTORY,
            aud="6e74172b-be56-4843-9ff4-e66a39bb12e3",
            oid="690222be-ff1a-4d56-abd1-7e4f7d38e474",
            sub="HKZpfaHyWadeOouYlitjrI",
            ver="2.0",
            scp="access_as_user",
            roles=["Turnout.Admin"],
        ),
        DIRECTORY,
        "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        frozenset({Role.ADMIN}),
        {
            "of another directory, which anybody can make": (_entra(OTHER), Refusal.TENANT),
            "of another directory that claims to be ours": ({**_entra(OTHER), "tid": DIRECTORY}, Refusal.TENANT),
            "ours that claims another directory": ({"tid": OTHER}, Refusal.TENANT),
            "the template itself": ({"iss": "https://login.microsoftonline.com/{tenant}/v2.0"}, Refusal.ISSUER),
            "a directory with a path": ({"iss": f"https://login.microsoftonline.com/{DIRECTORY}/x/v2.0"}, Refusal.ISSUER),
            "of version 1": ({"iss": f"https://sts.windows.net/{DIRECTORY}/"}, Refusal.ISSUER),
        },
    ),
    "cognito": Provider(
        {
            "preset": "cognito",
            "issuer": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_example",
            "audience": "1example23456789",
            "roleMap": {"turnout-apps": "PREDICTOR"},
        },
        {
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_example",
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "aud": tokens.MISSING,
            "client_id": "1example23456789",
            "token_use": "access",
            "scope": "openid",
            "cognito:groups": ["turnout-apps"],
            "custom:tenant": "clinic",
        },
        "clinic",
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        frozenset({Role.PREDICTOR}),
        {
            "an ID token": ({"token_use": "id", "aud": "1example23456789"}, Refusal.CLAIM),
            "of another app client": ({"client_id": "2other"}, Refusal.AUDIENCE),
            "of no tenant": ({"custom:tenant": tokens.MISSING}, Refusal.TENANT),
        },
    ),
    "cognito ID token": Provider(
        {
            "preset": "cognito",
            "issuer": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_example",
            "audience": "1example23456789",
            "audienceClaim": "aud",
            "requiredClaims": {"token_use": "id"},
            "roleMap": {"turnout-admins": "ADMIN"},
        },
        {
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_example",
            "sub": "u1",
            "aud": "1example23456789",
            "token_use": "id",
            "cognito:groups": ["turnout-admins"],
            "custom:tenant": "clinic",
        },
        "clinic",
        "u1",
        frozenset({Role.ADMIN}),
        {"an access token": ({"token_use": "access"}, Refusal.CLAIM)},
    ),
    "clerk": Provider(
        {
            "preset": "clerk",
            "issuer": "https://clerk.example.org",
            "audience": "https://app.example.org",
            "roleMap": {"admin": "ADMIN", "member": "PREDICTOR"},
        },
        {
            "iss": "https://clerk.example.org",
            "sub": "user_123",
            "aud": tokens.MISSING,
            "azp": "https://app.example.org",
            "sid": "sess_123",
            "v": 2,
            "o": {"id": "org_123", "slg": "clinic", "rol": "admin"},
        },
        "org_123",
        "user_123",
        frozenset({Role.ADMIN}),
        {
            "without an active organization": ({"o": tokens.MISSING}, Refusal.TENANT),
            "for another origin": ({"azp": "https://evil.example"}, Refusal.AUDIENCE),
        },
    ),
    "clerk version 1": Provider(
        {
            "preset": "clerk",
            "issuer": "https://clerk.example.org",
            "audience": "https://app.example.org",
            "tenantClaim": "org_id",
            "rolesClaim": "org_role",
            "roleMap": {"org:admin": "ADMIN", "org:member": "PREDICTOR"},
        },
        {
            "iss": "https://clerk.example.org",
            "sub": "user_123",
            "aud": tokens.MISSING,
            "azp": "https://app.example.org",
            "org_id": "org_123",
            "org_role": "org:member",
        },
        "org_123",
        "user_123",
        frozenset({Role.PREDICTOR}),
    ),
    "firebase": Provider(
        {"preset": "firebase", "issuer": "https://securetoken.google.com/example-project", "audience": "example-project"},
        {
            "iss": "https://securetoken.google.com/example-project",
            "sub": "7aBcD",
            "aud": "example-project",
            "user_id": "7aBcD",
            "roles": ["PREDICTOR"],
            "firebase": {"identities": {}, "sign_in_provider": "password", "tenant": "clinic-x1y2z"},
        },
        "clinic-x1y2z",
        "7aBcD",
        frozenset({Role.PREDICTOR}),
        {"of no tenant of the project": ({"firebase": {"sign_in_provider": "password"}}, Refusal.TENANT)},
    ),
    "hasura": Provider(
        {
            "preset": "hasura",
            "issuer": "https://auth.example.org",
            "audience": "turnout",
            "jwksUrl": "https://auth.example.org/jwks",
            "roleMap": {"admin": "ADMIN", "user": "PREDICTOR"},
        },
        {
            "iss": "https://auth.example.org",
            "sub": "1234567890",
            "aud": "turnout",
            HASURA: {
                "x-hasura-allowed-roles": ["user"],
                "x-hasura-default-role": "user",
                "x-hasura-user-id": "1234",
                "x-hasura-tenant-id": "clinic",
            },
        },
        "clinic",
        "1234",
        frozenset({Role.PREDICTOR}),
        {"its map as a text": ({HASURA: json.dumps({"x-hasura-tenant-id": "clinic"})}, Refusal.TENANT)},
    ),
}
GOOD = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
BAD = pytest.mark.parametrize(
    ("provider", "changes", "reason"),
    [pytest.param(it, *case, id=f"{name}: {what}") for name, it in PROVIDERS.items() for what, case in it.bad.items()],
)


def trusted(issuer: Issuer) -> Verifier:
    keys = StaticKeys({"RS256": build_key(tokens.public_pem().decode(), "RS256")})
    return Verifier([TrustedIssuer(issuer, keys)], SystemClock())


def token_of(provider: Provider, **changes: Any) -> str:
    return tokens.token(tokens.HEADER, tokens.claims(**{"org_id": tokens.MISSING, "roles": tokens.MISSING, **provider.claims, **changes}))


@GOOD
async def test_a_providers_token_names_tenant_subject_and_roles(provider: Provider) -> None:
    principal = await trusted(read_issuer("it", provider.entry)).verify(token_of(provider))
    assert (principal.tenant, principal.subject, principal.roles) == (provider.tenant, provider.subject, provider.roles)


@BAD
async def test_a_providers_token_for_somebody_else_is_refused(provider: Provider, changes: dict[str, Any], reason: Refusal) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await trusted(read_issuer("it", provider.entry)).verify(token_of(provider, **changes))
    assert caught.value.reason == reason


@GOOD
async def test_with_a_unit_claim_a_providers_token_speaks_for_one_unit(provider: Provider) -> None:
    pinned = trusted(read_issuer("it", {**provider.entry, "unitClaim": "sub"}))
    assert (await pinned.verify(token_of(provider))).unit == provider.claims["sub"]


def test_every_preset_is_proved_and_documented_with_an_entry_to_copy() -> None:
    text = (Path(__file__).parents[3] / "docs" / "identity.md").read_text()
    documented = [json.loads(block.partition("```")[0]) for block in text.split("```json\n")[1:]]
    entries = [entry for block in documented for entry in block]
    assert sorted(entry["preset"] for entry in entries) == sorted(PRESETS)
    for entry in entries:
        assert read_issuer("it", entry).jwks_url is not None
    assert {provider.entry["preset"] for provider in PROVIDERS.values()} == set(PRESETS)


@pytest.mark.parametrize(
    ("preset", "issuer", "jwks"),
    [
        ("auth0", "https://x.auth0.com/", "https://x.auth0.com/.well-known/jwks.json"),
        ("keycloak", "https://id/realms/m", "https://id/realms/m/protocol/openid-connect/certs"),
        ("cognito", "https://cognito/pool", "https://cognito/pool/.well-known/jwks.json"),
        ("clerk", "https://clerk.x", "https://clerk.x/.well-known/jwks.json"),
    ],
)
def test_a_preset_knows_where_the_keys_are(preset: str, issuer: str, jwks: str) -> None:
    assert read_issuer("it", {"preset": preset, "issuer": issuer, "audience": "a"}).jwks_url == jwks
    own = read_issuer("it", {"preset": preset, "issuer": issuer, "audience": "a", "jwksUrl": "https://mirror/keys"})
    assert own.jwks_url == "https://mirror/keys"


GOOD_ENTRY = {"issuer": "https://id/{tenant}/v2", "audience": "a", "jwksUrl": "https://id/keys", "allowedTenants": ["t"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allowedTenants": None}, "strangers' too"),
        ({"allowedTenants": None, "tenantNames": "mapped", "createTenants": True}, "strangers' too"),
        ({"allowedTenants": []}, "allowedTenants"),
        ({"allowedTenants": ["t", 7]}, "allowedTenants"),
        ({"issuer": "https://{tenant}/{tenant}"}, "more than once"),
        ({"preset": "okta"}, "preset must be one of auth0"),
        ({"requiredClaims": ["token_use"]}, "requiredClaims"),
        ({"requiredClaims": {"token_use": None}}, "requiredClaims"),
        ({"audienceClaim": ""}, "audienceClaim"),
        ({"tenantClaim": 7}, "tenantClaim"),
        ({"issuer": ""}, "issuer"),
    ],
)
def test_an_entry_that_would_let_strangers_in_or_means_nothing_stops_the_start(changes: dict[str, Any], words: str) -> None:
    entry = {name: value for name, value in {**GOOD_ENTRY, **changes}.items() if value is not None}
    read_issuer("TURNOUT_JWT_ISSUERS[0]", GOOD_ENTRY)
    with pytest.raises(ConfigurationError, match=words):
        read_issuer("TURNOUT_JWT_ISSUERS[0]", entry)


async def test_a_template_without_a_list_is_taken_where_only_mapped_names_get_in() -> None:
    issuer = read_issuer("it", {"preset": "entra", "audience": "app", "tenantNames": "mapped"})
    claims = _entra(OTHER, aud="app", oid="u", org_id=tokens.MISSING)
    principal = await trusted(issuer).verify(tokens.token(tokens.HEADER, tokens.claims(**claims)))
    assert (principal.tenant, principal.own_names, principal.issuer) == (OTHER, False, "https://login.microsoftonline.com/{tenant}/v2.0")


async def test_a_required_claim_has_exactly_its_value_and_type() -> None:
    verifier = trusted(tokens.issuer(required_claims={"email_verified": True, "acr.level": 2}))
    good = {"email_verified": True, "acr": {"level": 2}}
    assert (await verifier.verify(tokens.good_token(**good))).tenant == "acme"
    for bad in (
        {"email_verified": 1},
        {"email_verified": "true"},
        {"acr": {"level": 2.0}},
        {"acr": {"level": True}},
        {"acr": tokens.MISSING},
    ):
        with pytest.raises(Unauthenticated) as caught:
            await verifier.verify(tokens.good_token(**{**good, **bad}))
        assert caught.value.reason == Refusal.CLAIM
