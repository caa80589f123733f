from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from app.errors import ConfigurationError, Unauthenticated
from app.kernel.clock import SystemClock
from app.kernel.context import Role
from app.tenancy.identity.keysets import StaticKeys, usable_algorithms
from app.tenancy.identity.refusals import Refusal
from app.tenancy.identity.verifier import TrustedIssuer, Verifier, build_key
from app.tenancy.permissions import actions_of
from tests.support import tokens
from tests.support.clock import ManualClock
from tests.support.tokens import BAD_TOKENS, MISSING, good_token

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit


def verifier(clock: Any = None, remember: int = 100, **changes: Any) -> Verifier:
    keys = StaticKeys({"RS256": build_key(tokens.public_pem().decode(), "RS256")})
    return Verifier([TrustedIssuer(tokens.issuer(**changes), keys)], clock or SystemClock(), remember)


async def reason_of(token: str, **changes: Any) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await verifier(**changes).verify(token)
    assert caught.value.message == "A valid bearer token is needed."
    return caught.value.reason


@pytest.mark.parametrize(("name", "make"), BAD_TOKENS, ids=[name for name, _ in BAD_TOKENS])
async def test_a_bad_token_is_refused_with_a_foreseen_reason(name: str, make: Callable[[], str]) -> None:
    reason = await reason_of(make())
    assert reason in set(Refusal)
    assert reason != Refusal.UNEXPECTED


async def test_a_good_token_names_tenant_subject_and_roles() -> None:
    claims = tokens.claims(roles=["READER", "PUBLISHER", "JANITOR", 7])
    principal = await verifier().verify(tokens.token(tokens.HEADER, claims))
    roles = frozenset({Role.READER, Role.PUBLISHER})
    assert (principal.tenant, principal.subject, principal.roles, principal.unit) == ("acme", "u1", roles, None)
    assert principal.allowed == actions_of(roles)
    assert principal.expires_at_s == claims["exp"]


@pytest.mark.parametrize(
    ("expected", "token"),
    [
        (Refusal.TOO_LONG, lambda: "A" * 8193),
        (Refusal.MALFORMED, lambda: "a.b.c"),
        (Refusal.ALGORITHM, lambda: tokens.token({"alg": "HS256"}, tokens.claims(), tokens.hmac_signer(tokens.public_pem()))),
        (Refusal.SIGNATURE, lambda: tokens.token(tokens.HEADER, tokens.claims(), tokens.rsa_signer("stranger"))),
        (Refusal.HEADER, lambda: tokens.token({**tokens.HEADER, "crit": ["x"], "x": 1}, tokens.claims())),
        (Refusal.MALFORMED, lambda: tokens.token(tokens.HEADER, tokens.claims(extra=float("nan")))),
        (Refusal.MALFORMED, lambda: tokens.token(tokens.HEADER, '{"a":' + "[" * 300 + "]" * 300 + "}")),
        (Refusal.TIMES, lambda: good_token(nbf=True)),
        (Refusal.TIMES, lambda: good_token(iat="now")),
        (Refusal.LIFETIME, lambda: good_token(exp=tokens.claims()["exp"] + 90_000)),
        (Refusal.SUBJECT, lambda: good_token(sub="  padded")),
        (Refusal.TENANT, lambda: good_token(org_id=["a", "b"])),
        (Refusal.TENANT, lambda: good_token(org_id="x" * 201)),
        (Refusal.AUDIENCE, lambda: good_token(aud=["x", "y"])),
    ],
)
async def test_the_log_learns_why(expected: Refusal, token: Callable[[], str]) -> None:
    assert await reason_of(token()) == expected


@pytest.mark.parametrize("audience", ["predict", ["x", "predict"]])
async def test_the_audience_may_be_one_or_a_list(audience: Any) -> None:
    assert (await verifier().verify(good_token(aud=audience))).tenant == "acme"


async def test_an_access_token_type_and_a_missing_type_are_good() -> None:
    for header in ({**tokens.HEADER, "typ": "at+jwt"}, {"alg": "RS256"}):
        assert (await verifier().verify(tokens.token(header, tokens.claims()))).tenant == "acme"


async def test_clocks_may_differ_by_thirty_seconds() -> None:
    now = tokens.claims()["iat"]
    assert (await verifier().verify(good_token(iat=now + 25, nbf=now + 25))).tenant == "acme"
    assert (await verifier().verify(good_token(exp=now - 20, iat=now - 300))).tenant == "acme"


async def test_a_pinned_unit_is_carried_and_a_token_without_it_refused() -> None:
    assert (await verifier(unit_claim="device").verify(good_token(device="phone-7"))).unit == "phone-7"
    for bad in (MISSING, 7, "", "x" * 257, "\ud800"):
        assert await reason_of(good_token(device=bad), unit_claim="device") == Refusal.UNIT


async def test_a_role_map_translates_the_issuers_words_and_no_others() -> None:
    mapped = verifier(role_map={"ml-admin": "ADMIN"}, roles_claim="realm_access.roles")
    principal = await mapped.verify(good_token(realm_access={"roles": ["ml-admin", "READER"]}))
    assert principal.roles == {Role.ADMIN}


async def test_a_token_is_remembered_until_it_expires() -> None:
    clock = ManualClock()
    now = clock.time_ms() // 1000
    remembering = verifier(clock)
    token = good_token(iat=now, exp=now + 60)
    assert remembering.known(token) is None
    principal = await remembering.verify(token)
    clock.advance(59.9)
    assert remembering.known(token) is principal
    clock.advance(0.1)
    assert remembering.known(token) is None
    clock.advance(30)
    with pytest.raises(Unauthenticated):
        await remembering.verify(token)


async def test_a_long_token_is_verified_anew_after_five_minutes() -> None:
    clock = ManualClock()
    now = clock.time_ms() // 1000
    remembering = verifier(clock)
    token = good_token(iat=now, exp=now + 3600)
    await remembering.verify(token)
    clock.advance(299.9)
    assert remembering.known(token) is not None
    clock.advance(0.1)
    assert remembering.known(token) is None


async def test_the_memory_of_tokens_is_bounded_and_drops_the_least_used() -> None:
    remembering = verifier(remember=2)
    first, second, third = (good_token(sub=name) for name in ("a", "b", "c"))
    await remembering.verify(first)
    await remembering.verify(second)
    assert remembering.known(first) is not None
    await remembering.verify(third)
    assert [remembering.known(token) is not None for token in (first, second, third)] == [True, False, True]


async def test_a_refused_token_is_not_remembered() -> None:
    remembering = verifier()
    bad = good_token(aud="other")
    with pytest.raises(Unauthenticated):
        await remembering.verify(bad)
    assert remembering.known(bad) is None


def test_one_issuer_named_twice_stops_the_start() -> None:
    trusted = TrustedIssuer(tokens.issuer(), StaticKeys({}))
    with pytest.raises(ConfigurationError, match="one issuer twice"):
        Verifier([trusted, replace(trusted)], SystemClock())


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, ("RS256",)),
        ({"alg": "RS512"}, ()),
        ({"use": "enc"}, ()),
        ({"key_ops": ["sign"]}, ()),
        ({"kty": "oct", "k": "c2VjcmV0"}, ()),
        ({"n": "AQAB"}, ()),
        ({"kid": 7}, ()),
        ({"kty": "EC", "crv": "P-256"}, ()),
        ({"kty": "EC", "crv": "P-256", "alg": "ES256"}, ("ES256",)),
        ({"kty": "EC", "crv": "P-384", "alg": "ES256"}, ()),
    ],
)
def test_of_a_key_document_only_strong_public_signing_keys_are_taken(change: dict[str, Any], usable: tuple[str, ...]) -> None:
    assert usable_algorithms(tokens.jwk(**change), ("RS256", "ES256")) == usable
