from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from app.errors import ConfigurationError, DeadlineExceeded, TenantSuspended, Unauthenticated
from app.kernel.clock import Deadline, SystemClock
from app.kernel.context import Action, Role
from app.tenancy.directory import TenantDirectory
from app.tenancy.identity.gatekeeper import NO_TENANT, Gatekeeper
from app.tenancy.identity.keysets import StaticKeys
from app.tenancy.identity.verifier import TrustedIssuer, Verifier, build_key
from app.tenancy.keys import MasterKey
from app.tenancy.permissions import actions_of
from app.tenancy.types import StoredTenant, Tenant, TenantLimits, TenantSettings, TenantStatus
from tests.support import tokens
from tests.support.clock import ManualClock
from tests.support.tokens import good_token

pytestmark = pytest.mark.unit

ACME = UUID(int=7)
MASTER = MasterKey(bytes(32))


def stored(
    slug: str = "acme", tenant_id: UUID = ACME, status: TenantStatus = TenantStatus.ACTIVE, master: MasterKey = MASTER
) -> StoredTenant:
    tenant = Tenant(tenant_id, slug, slug.title(), status, TenantLimits(), TenantSettings(), datetime(2026, 1, 1, tzinfo=UTC))
    return StoredTenant(tenant, master.wrap(tenant_id, bytes(32)))


def gatekeeper(*tenants: StoredTenant) -> Gatekeeper:
    keys = StaticKeys({"RS256": build_key(tokens.public_pem().decode(), "RS256")})
    directory = TenantDirectory(MASTER)
    directory.apply(tenants)
    return Gatekeeper(Verifier([TrustedIssuer(tokens.issuer(), keys)], SystemClock()), directory)


async def admit(keeper: Gatekeeper, authorization: str | None) -> Any:
    return await keeper.admit(authorization, "req-1", Deadline.after(5))


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
async def test_a_good_token_is_admitted_to_its_tenant_also_the_second_time(scheme: str) -> None:
    keeper, header = gatekeeper(stored()), scheme + good_token()
    for _ in range(2):
        context = await admit(keeper, header)
        assert (context.tenant_id, context.tenant, context.subject, context.unit) == (ACME, "acme", "u1", None)
        assert (context.roles, context.request_id) == ({Role.READER}, "req-1")
        assert context.allowed == actions_of(frozenset({Role.READER}))


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "missing"),
        ("", "scheme"),
        ("Basic dTpw", "scheme"),
        ("Bearer", "scheme"),
        ("Bearer ", "malformed"),
        ("Bearer a b", "malformed"),
        ("Bearer " + "é" * 20, "malformed"),
        ("Bearer " + "a" * 9_000, "too_long"),
    ],
)
async def test_a_header_without_a_token_is_refused(authorization: str | None, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await admit(gatekeeper(stored()), authorization)
    assert caught.value.reason == reason


async def test_a_tenant_that_does_not_exist_or_was_erased_is_a_bad_token_like_any_other() -> None:
    keeper = gatekeeper(stored("gone", status=TenantStatus.ERASED))
    texts = set()
    for header in ("Bearer x", "Bearer " + good_token(), "Bearer " + good_token(org_id="gone")):
        with pytest.raises(Unauthenticated) as caught:
            await admit(keeper, header)
        texts.add((caught.value.message, str(caught.value.details)))
    assert texts == {("A valid bearer token is needed.", "{}")}


async def test_a_suspended_tenant_is_told_so() -> None:
    with pytest.raises(TenantSuspended):
        await admit(gatekeeper(stored(status=TenantStatus.SUSPENDED)), "Bearer " + good_token())


async def test_suspending_takes_effect_on_tokens_already_seen() -> None:
    keeper, header = gatekeeper(stored()), "Bearer " + good_token()
    await admit(keeper, header)
    keeper._directory.apply([stored(status=TenantStatus.SUSPENDED)])
    with pytest.raises(TenantSuspended):
        await admit(keeper, header)


async def test_an_operator_is_admitted_before_the_first_tenant_exists_and_gets_the_platform_alone() -> None:
    context = await admit(gatekeeper(), "Bearer " + good_token(roles=["OPERATOR", "ADMIN"]))
    assert (context.tenant_id, context.roles) == (NO_TENANT, {Role.OPERATOR})
    assert context.allowed == {Action.MANAGE_TENANTS, Action.REVOKE_TOKENS, Action.MANAGE_PLATFORM_DOCUMENTS, Action.VIEW_SELF}


async def test_an_operators_token_gives_no_tenant_data_without_a_tenant_role() -> None:
    context = await admit(gatekeeper(stored()), "Bearer " + good_token(roles=["OPERATOR"]))
    assert context.allowed == {Action.MANAGE_TENANTS, Action.REVOKE_TOKENS, Action.MANAGE_PLATFORM_DOCUMENTS, Action.VIEW_SELF}
    assert context.tenant_id == ACME


async def test_a_deadline_that_has_passed_is_said() -> None:
    keeper = gatekeeper(stored())
    keeper._verifier._issuers[tokens.ISSUER] = TrustedIssuer(tokens.issuer(), NeverAnswers())
    with pytest.raises(DeadlineExceeded):
        await keeper.admit("Bearer " + good_token(), "req-1", Deadline.after(0.01))


class NeverAnswers:
    async def find(self, key_id: str | None, algorithm: str) -> None:
        await asyncio.Event().wait()


def test_the_directory_replaces_renames_and_forgets() -> None:
    directory = TenantDirectory(MASTER)
    directory.apply([stored(), stored("shop", UUID(int=8))])
    directory.apply([stored("acme-two")])
    assert directory.find("acme") is None
    renamed = directory.find("acme-two")
    assert renamed is directory.by_id(ACME) is not None
    directory.apply([stored("acme-two", status=TenantStatus.ERASED)])
    assert (directory.find("acme-two"), directory.by_id(ACME)) == (None, None)
    assert [entry.tenant.id for entry in directory.entries()] == ["shop"]


def test_one_unreadable_secret_shuts_out_its_tenant_alone() -> None:
    directory = TenantDirectory(MASTER)
    directory.apply([stored(), stored("shop", UUID(int=8), master=MasterKey(b"x" * 32))])
    assert directory.find("acme") is not None
    assert directory.find("shop") is None
    assert list(directory.unreadable) == [UUID(int=8)]
    directory.require_readable()
    directory.apply([stored("shop", UUID(int=8))])
    assert directory.find("shop") is not None
    assert directory.unreadable == {}


def test_the_wrong_master_key_stops_the_start() -> None:
    directory = TenantDirectory(MASTER)
    directory.require_readable()  # no tenant yet: nothing to open
    directory.apply([stored(master=MasterKey(b"x" * 32))])
    with pytest.raises(ConfigurationError, match="TURNOUT_MASTER_KEY_FILE"):
        directory.require_readable()


def test_a_tenants_renewed_generation_reaches_its_keys() -> None:
    directory = TenantDirectory(MASTER)
    directory.apply([stored()])
    first = directory.find("acme")
    assert first is not None
    directory.apply([replace(stored(), pseudonym_generation=2)])
    second = directory.find("acme")
    assert second is not None
    assert second.keys.unit_pseudonym("u") == first.keys.unit_pseudonym("u", 2) != first.keys.unit_pseudonym("u")


async def test_a_tenant_that_another_process_made_a_moment_ago_is_looked_for_once_a_second() -> None:
    clock, looks = ManualClock(), []
    keys = StaticKeys({"RS256": build_key(tokens.public_pem().decode(), "RS256")})
    directory = TenantDirectory(MASTER)
    directory.apply([])

    async def refresh() -> None:
        looks.append(clock.monotonic())
        if len(looks) == 2:
            directory.apply([stored()])

    keeper = Gatekeeper(Verifier([TrustedIssuer(tokens.issuer(), keys)], SystemClock()), directory, clock, refresh)
    header = f"Bearer {good_token()}"
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await admit(keeper, header)
    assert len(looks) == 1
    clock.advance(1.0)
    assert (await admit(keeper, header)).tenant == "acme"
    assert len(looks) == 2
