from __future__ import annotations

from typing import Any

import pytest

from app.errors import Unauthenticated
from app.kernel.context import Role
from app.tenancy.identity.claims import claim_at, roles_of, tenant_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("claims", "path", "tenant"),
    [
        ({"org_id": "acme"}, "org_id", "acme"),
        ({"o": {"id": "acme"}}, "o.id", "acme"),
        ({"firebase": {"tenant": "acme"}}, "firebase.tenant", "acme"),
        ({"custom:tenant": "acme"}, "custom:tenant", "acme"),
        ({"https://api.example.io/tenant": "acme"}, "https://api.example.io/tenant", "acme"),
        ({"https://x.io/jwt/claims": {"x-tenant-id": "acme"}}, "https://x.io/jwt/claims.x-tenant-id", "acme"),
        ({"o.id": "acme", "o": {"id": "other"}}, "o.id", "acme"),
        ({"organization": {"acme": {}}}, "organization", "acme"),
        ({"organization": {"acme": {"id": "42c3"}}}, "organization", "acme"),
        ({"organization": ["acme"]}, "organization", "acme"),
    ],
)
def test_the_tenant_is_found_where_issuers_put_it(claims: dict[str, Any], path: str, tenant: str) -> None:
    assert tenant_of(claims, path) == tenant


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        True,
        "",
        " acme",
        "ac\nme",
        "x" * 201,
        [],
        ["a", "b"],
        [["a"]],
        [7],
        {},
        {"a": {}, "b": {}},
        {"id": "acme"},
        {"": {}},
        "\ud800",
    ],
)
def test_a_tenant_that_is_missing_or_ambiguous_is_refused(value: Any) -> None:
    with pytest.raises(Unauthenticated) as caught:
        tenant_of({"tenant": value}, "tenant")
    assert caught.value.reason == "tenant"


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        ("openid READER PUBLISHER", {Role.READER, Role.PUBLISHER}),
        (["READER", "reader", "X", None, ["ADMIN"]], {Role.READER}),
        ({"ADMIN": True}, set()),
        (None, set()),
        (7, set()),
    ],
)
def test_roles_come_from_a_list_or_a_scope_and_strange_words_are_passed_over(value: Any, roles: set[Role]) -> None:
    assert roles_of({"roles": value}, "roles", {}) == roles


def test_a_path_through_something_that_is_no_object_finds_nothing() -> None:
    assert claim_at({"a": ["b"], "c": "d"}, "a.b") is None
    assert claim_at({"a": {"b": None}}, "a.b") is None
    assert claim_at([], "a") is None
