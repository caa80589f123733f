"""Trusted token issuers as the settings name them: what each provider calls its claims, and what must be right before a start.

Sources: the providers' own documentation of their tokens, as docs/identity.md quotes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

TENANT_PLACE = "{tenant}"  # in an issuer: the tenant's name stands here


@dataclass(frozen=True, slots=True)
class Issuer:
    """One trusted token issuer. The claims are dotted paths; an exact name wins over a path."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks_url: str | None
    key_file: Path | None
    tenant_claim: str
    subject_claim: str
    roles_claim: str
    unit_claim: str | None
    role_map: Mapping[str, str]  # the issuer's word for a role -> ours; empty: the words are ours
    own_tenant_names: bool = True  # a name that is not mapped may be one of our tenants' ids
    creates_tenants: bool = False  # a good token of a tenant that is not there makes it
    audience_claim: str = "aud"
    required_claims: Mapping[str, Any] = field(default_factory=dict)  # path -> the one value that it must have
    allowed_tenants: frozenset[str] | None = None  # by the issuer's names; None: all

    def trusts(self, issuer: str) -> bool:
        """Whether a token's `iss` is this issuer's."""
        return issuer == self.issuer or (self.is_template and self.tenant_in(issuer) is not None)

    @property
    def is_template(self) -> bool:
        return TENANT_PLACE in self.issuer

    def tenant_in(self, issuer: str) -> str | None:
        """The tenant that a token's `iss` names by standing where the template has its place; None where it does not fit."""
        head, _, tail = self.issuer.partition(TENANT_PLACE)
        inner = issuer[len(head) : len(issuer) - len(tail)]
        return inner if issuer == f"{head}{inner}{tail}" and inner and "/" not in inner else None


# What a preset says of a provider; each may be overruled. `jwks`: where its keys are, from the issuer.
PRESETS: dict[str, dict[str, Any]] = {
    "auth0": {"tenantClaim": "org_id", "rolesClaim": "permissions", "jwks": "{issuer}/.well-known/jwks.json"},
    "keycloak": {"tenantClaim": "organization", "rolesClaim": "realm_access.roles", "jwks": "{issuer}/protocol/openid-connect/certs"},
    "entra": {
        "issuer": "https://login.microsoftonline.com/{tenant}/v2.0",
        "tenantClaim": "tid",
        "subjectClaim": "oid",
        "rolesClaim": "roles",
        "jwks": "https://login.microsoftonline.com/common/discovery/v2.0/keys",
    },
    "cognito": {
        "tenantClaim": "custom:tenant",
        "rolesClaim": "cognito:groups",
        "audienceClaim": "client_id",
        "requiredClaims": {"token_use": "access"},
        "jwks": "{issuer}/.well-known/jwks.json",
    },
    "clerk": {"tenantClaim": "o.id", "rolesClaim": "o.rol", "audienceClaim": "azp", "jwks": "{issuer}/.well-known/jwks.json"},
    "firebase": {
        "tenantClaim": "firebase.tenant",
        "jwks": "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
    },
    "hasura": {
        "tenantClaim": "https://hasura.io/jwt/claims.x-hasura-tenant-id",
        "subjectClaim": "https://hasura.io/jwt/claims.x-hasura-user-id",
        "rolesClaim": "https://hasura.io/jwt/claims.x-hasura-allowed-roles",
    },
}
_FIELDS = {
    "issuer", "audience", "algorithms", "jwksUrl", "keyFile", "tenantClaim", "subjectClaim", "rolesClaim", "unitClaim", "roleMap",
    "tenantNames", "createTenants", "preset", "audienceClaim", "requiredClaims", "allowedTenants",
}  # fmt: skip
_CLAIMS = ("tenantClaim", "subjectClaim", "rolesClaim", "unitClaim", "audienceClaim")
_ALGORITHMS = {"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512"}


def read_issuer(where: str, data: Any) -> Issuer:
    """One entry of TURNOUT_JWT_ISSUERS; raises ConfigurationError that names `where` and what would be right."""
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where} must be a JSON object; docs/settings.md shows one.")
    if unknown := sorted(set(data) - _FIELDS):
        raise ConfigurationError(f"{where} has no field {unknown[0]!r}; it has {', '.join(sorted(_FIELDS))}.")
    data = _with_preset(where, data)
    _check_texts(where, data)
    _check_keys(where, data)
    _check_maps(where, data)
    _check_tenants(where, data)
    allowed = data.get("allowedTenants")
    return Issuer(
        issuer=data["issuer"],
        audience=data["audience"],
        algorithms=tuple(data.get("algorithms", ["RS256"])),
        jwks_url=data.get("jwksUrl"),
        key_file=Path(data["keyFile"]).absolute() if "keyFile" in data else None,
        tenant_claim=data.get("tenantClaim", "tenant"),
        subject_claim=data.get("subjectClaim", "sub"),
        roles_claim=data.get("rolesClaim", "roles"),
        unit_claim=data.get("unitClaim"),
        role_map=data.get("roleMap", {}),
        own_tenant_names=data.get("tenantNames", "own") == "own",
        creates_tenants=data.get("createTenants", False),
        audience_claim=data.get("audienceClaim", "aud"),
        required_claims=data.get("requiredClaims", {}),
        allowed_tenants=None if allowed is None else frozenset(allowed),
    )


def _with_preset(where: str, data: dict[str, Any]) -> dict[str, Any]:
    name = data.get("preset")
    if name is None:
        return data
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigurationError(f"{where}.preset must be one of {', '.join(sorted(PRESETS))}.")
    preset = dict(PRESETS[name])
    keys = preset.pop("jwks", None)
    whole = {**preset, **data}
    if keys is not None and "jwksUrl" not in data and "keyFile" not in data:
        whole["jwksUrl"] = keys.replace("{issuer}", str(whole.get("issuer", "")).rstrip("/"))
    return whole


def _check_texts(where: str, data: Mapping[str, Any]) -> None:
    for name in ("issuer", "audience"):
        if not isinstance(data.get(name), str) or not data[name]:
            raise ConfigurationError(f"{where}.{name} must be a text that is not empty.")
    for name in _CLAIMS:
        if name in data and not (isinstance(data[name], str) and data[name]) and not (name == "unitClaim" and data[name] is None):
            raise ConfigurationError(f"{where}.{name} must be the dotted path of a claim, like 'org.id'.")


def _check_keys(where: str, data: Mapping[str, Any]) -> None:
    algorithms = data.get("algorithms", ["RS256"])
    if not isinstance(algorithms, list) or not algorithms or not set(map(str, algorithms)) <= _ALGORITHMS:
        raise ConfigurationError(f"{where}.algorithms must be a list out of {', '.join(sorted(_ALGORITHMS))}.")
    if len({str(name)[:2] == "HS" for name in algorithms}) > 1:
        raise ConfigurationError(f"{where}.algorithms mixes HS* with RS* or ES*: a public key would pass for a shared secret.")
    if ("jwksUrl" in data) == ("keyFile" in data):
        raise ConfigurationError(f"{where} must have exactly one of jwksUrl and keyFile.")
    if "jwksUrl" in data and str(algorithms[0]).startswith("HS"):
        raise ConfigurationError(f"{where} takes HS* from a jwksUrl: a shared secret is never public; use keyFile.")


def _check_maps(where: str, data: Mapping[str, Any]) -> None:
    if not isinstance(data.get("roleMap", {}), dict):
        raise ConfigurationError(f"{where}.roleMap must be an object: the issuer's word to one of our roles.")
    required = data.get("requiredClaims", {})
    if not isinstance(required, dict) or not all(isinstance(value, str | bool | int) for value in required.values()):
        raise ConfigurationError(f'{where}.requiredClaims must be an object of claims and their values, like {{"token_use": "access"}}.')


def _check_tenants(where: str, data: Mapping[str, Any]) -> None:
    if data.get("tenantNames", "own") not in ("own", "mapped"):
        raise ConfigurationError(f"{where}.tenantNames must be 'own' or 'mapped'.")
    if not isinstance(data.get("createTenants", False), bool):
        raise ConfigurationError(f"{where}.createTenants must be true or false.")
    allowed = data.get("allowedTenants")
    if allowed is not None and not (isinstance(allowed, list) and allowed and all(isinstance(name, str) and name for name in allowed)):
        raise ConfigurationError(f"{where}.allowedTenants must be a list of the issuer's names for tenants, at least one.")
    if data["issuer"].count(TENANT_PLACE) > 1:
        raise ConfigurationError(f"{where}.issuer has {TENANT_PLACE} more than once.")
    mapped_only = data.get("tenantNames", "own") == "mapped" and not data.get("createTenants", False)
    if TENANT_PLACE in data["issuer"] and allowed is None and not mapped_only:
        raise ConfigurationError(
            f"{where}.issuer stands for every tenant of that provider, strangers' too: name yours in allowedTenants, or set tenantNames "
            "to 'mapped', so that only names that an operator mapped get in."
        )
