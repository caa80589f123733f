"""From a verified token's claims to tenant, subject, roles and unit: each issuer names the claims by dotted paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.errors import InvalidInput
from app.kernel.context import Role
from app.kernel.names import check_unit
from app.tenancy.identity.refusals import Refusal, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_NAME = 200


def claim_at(claims: Any, path: str) -> Any:
    """The claim that `path` names, or None. An exact name wins over a path, at each level: URLs with dots are names too."""
    if not isinstance(claims, dict):
        return None
    if path in claims:
        return claims[path]
    for index, letter in enumerate(path):
        if letter == "." and (found := claim_at(claims.get(path[:index]), path[index + 1 :])) is not None:
            return found
    return None


def has_value(claims: Mapping[str, Any], path: str, value: object) -> bool:
    """Whether the claim is there with exactly this value; 1 is not true."""
    found = claim_at(claims, path)
    return type(found) is type(value) and found == value


def tenant_of(claims: Mapping[str, Any], path: str) -> str:
    """The one tenant that the claim names: a text, a list of one text, or an organisation map of one, {"acme": {...}}.

    Raises Unauthenticated where there is none or more than one: we never choose between tenants.
    """
    value = claim_at(claims, path)
    if isinstance(value, dict) and len(value) == 1 and all(isinstance(inner, dict) for inner in value.values()):
        value = next(iter(value))
    elif isinstance(value, list) and len(value) == 1:
        value = value[0]
    if _is_name(value):
        return str(value)
    raise refused(Refusal.TENANT)


def subject_of(claims: Mapping[str, Any], path: str) -> str:
    """Who calls, as the audit log will name them; raises Unauthenticated where the claim is no printable text."""
    value = claim_at(claims, path)
    if _is_name(value):
        return str(value)
    raise refused(Refusal.SUBJECT)


def token_id_of(claims: Mapping[str, Any]) -> str | None:
    """The token's own id (jti), by which it alone can be revoked; None where it has none that a text column could hold."""
    value = claims.get("jti")
    return str(value) if _is_name(value) else None


def roles_of(claims: Mapping[str, Any], path: str, role_map: Mapping[str, str]) -> frozenset[Role]:
    """Our roles out of a list of texts or a space-separated text (a scope). Words that mean nothing here are passed over."""
    value = claim_at(claims, path)
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
    return frozenset(role for word in words if isinstance(word, str) and (role := _role(word, role_map)) is not None)


def unit_of(claims: Mapping[str, Any], path: str) -> str | None:
    """The unit that the token is pinned to, None where the claim is absent; raises Unauthenticated where it is no unit."""
    value = claim_at(claims, path)
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return check_unit(value)
    except InvalidInput:
        pass
    raise refused(Refusal.UNIT)


def _role(word: str, role_map: Mapping[str, str]) -> Role | None:
    ours = role_map.get(word) if role_map else word
    try:
        return None if ours is None else Role(ours)
    except ValueError:
        return None


def _is_name(value: object) -> bool:
    # isprintable is False for lone surrogates and control characters, NUL among them.
    return isinstance(value, str) and 1 <= len(value) <= _LONGEST_NAME and value.isprintable() and value == value.strip()
