"""What the directory knows of names that issuers give and of tokens that are denied, and what the door makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError, Unauthenticated
from app.settings import Settings
from app.tenancy.directory import Denied, TenantDirectory
from app.tenancy.types import StoredTenant, TenantName, TenantStatus, TokenDenial
from tests.support import tokens
from tests.support.tokens import good_token
from tests.unit.tenancy.test_gatekeeper import ACME, MASTER, admit, gatekeeper, stored

pytestmark = pytest.mark.unit

SHOP = UUID(int=8)
ORG = TenantName(tokens.ISSUER, "org_1")


def named(tenant: StoredTenant, *names: TenantName) -> StoredTenant:
    return replace(tenant, tenant=replace(tenant.tenant, names=names))


def directory(*tenants: StoredTenant) -> TenantDirectory:
    made = TenantDirectory(MASTER)
    made.apply(tenants)
    return made


def slug_of(directory: TenantDirectory, name: TenantName) -> str | None:
    entry = directory.named(name.issuer, name.external_id)
    return None if entry is None else entry.tenant.id


def test_a_subjects_tokens_are_denied_that_were_issued_before_and_those_that_do_not_say_when() -> None:
    denied = Denied.of([TokenDenial(None, "ada", 100.5)])
    assert [denied.holds("ada", None, issued) for issued in (None, 99.0, 100.0, 100.5, 101.0)] == [True, True, True, False, False]
    assert denied.holds("eve", None, 0.0) is False


def test_a_denied_token_is_denied_whoever_shows_it_and_whenever_it_was_issued() -> None:
    denied = Denied.of([TokenDenial("t-1", None, 100.0)])
    assert [denied.holds("eve", jti, 900.0) for jti in ("t-1", "t-2", None)] == [True, False, False]


denials = st.lists(
    st.builds(
        TokenDenial, jti=st.sampled_from(["a", "b", None]), subject=st.sampled_from(["u", "v", None]), issued_before_s=st.floats(0, 9)
    )
)


@given(denials, st.sampled_from(["u", "v", "w"]), st.sampled_from(["a", "b", "c", None]), st.one_of(st.none(), st.floats(0, 9)))
def test_a_token_is_denied_where_any_row_denies_it_in_whatever_order_they_come(
    rows: list[TokenDenial], subject: str, jti: str | None, issued: float | None
) -> None:
    def denies(row: TokenDenial) -> bool:
        return (row.jti is not None and row.jti == jti) or (row.subject == subject and (issued is None or issued < row.issued_before_s))

    expected = any(denies(row) for row in rows)
    assert Denied.of(rows).holds(subject, jti, issued) is expected
    assert Denied.of(reversed(rows)).holds(subject, jti, issued) is expected


async def test_a_denied_token_is_a_bad_token_like_any_other_also_where_the_tenant_is_suspended() -> None:
    keeper, header = gatekeeper(stored()), "Bearer " + good_token(jti="t-1")
    await admit(keeper, header)
    keeper._directory.apply([replace(stored(), denials=(TokenDenial("t-1", None, 0.0),))])
    with pytest.raises(Unauthenticated) as caught:
        await admit(keeper, header)
    assert (caught.value.reason, caught.value.message) == ("revoked", "A valid bearer token is needed.")
    keeper._directory.apply([stored()])
    assert (await admit(keeper, header)).tenant == "acme"


@pytest.mark.parametrize("jti", [7, True, [], "", "a\0b", " x", "x" * 201])
async def test_a_token_id_that_is_no_word_makes_no_bad_token(jti: Any) -> None:
    assert (await admit(gatekeeper(stored()), "Bearer " + good_token(jti=jti))).tenant == "acme"


def test_a_name_moves_from_one_tenant_to_another_in_either_order() -> None:
    for order in (1, -1):
        known = directory(named(stored(), ORG), stored("shop", SHOP))
        known.apply([stored(), named(stored("shop", SHOP), ORG)][::order])
        assert slug_of(known, ORG) == "shop"


def test_names_follow_the_tenants_newest_state_and_go_with_it() -> None:
    other = TenantName("https://other.example", "org_1")
    known = directory(named(stored(), ORG))
    known.apply([named(stored(), ORG, other)])
    assert known.named(*_pair(ORG)) is known.named(*_pair(other)) is known.by_id(ACME)
    known.apply([named(stored(), other)])
    assert (slug_of(known, ORG), slug_of(known, other)) == (None, "acme")
    known.apply([named(stored(status=TenantStatus.ERASED), other)])
    assert (slug_of(known, other), known.erased("acme"), known.erased("shop")) == (None, ACME, None)


async def test_the_context_bears_our_id_and_not_the_issuers_name() -> None:
    context = await admit(gatekeeper(named(stored(), ORG)), "Bearer " + good_token(org_id="org_1"))
    assert (context.tenant_id, context.tenant) == (ACME, "acme")


def _pair(name: TenantName) -> tuple[str, str]:
    return name.issuer, name.external_id


def settings_of(**fields: Any) -> Any:
    issuer = {"issuer": "https://id.example", "audience": "turnout", "jwksUrl": "https://id.example/jwks", **fields}
    (read,) = Settings.from_env({"TURNOUT_JWT_ISSUERS": json.dumps([issuer])}).issuers
    return read.own_tenant_names, read.creates_tenants


def test_an_issuer_says_whether_its_names_are_ours_and_whether_it_makes_tenants() -> None:
    assert settings_of() == (True, False)
    assert settings_of(tenantNames="own", createTenants=False) == (True, False)
    assert settings_of(tenantNames="mapped", createTenants=True) == (False, True)


@pytest.mark.parametrize("fields", [{"tenantNames": "ours"}, {"tenantNames": ["own"]}, {"createTenants": "yes"}, {"createTenants": 1}])
def test_anything_else_stops_the_start(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        settings_of(**fields)
