from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from app.errors import ConfigurationError, InvalidInput, Unauthenticated
from app.kernel.clock import SystemClock
from app.kernel.context import Role
from app.kernel.home import DEVELOPMENT_ISSUER
from app.settings import Settings
from app.tenancy.identity.development import DevelopmentIssuer
from app.tenancy.identity.trust import build_verifier
from tests.support import tokens

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def settings(home: Path, **environ: str) -> Settings:
    return Settings.from_env({"TURNOUT_HOME": str(home), **environ})


def mint(home: Path, unit: str | None = None, ttl_s: float = 60) -> str:
    return DevelopmentIssuer.load_or_create(settings(home)).mint(SystemClock(), "clinic", "ada", [Role.READER, Role.ADMIN], ttl_s, unit)


async def test_a_minted_token_is_good_on_a_service_of_the_same_home(tmp_path: Path) -> None:
    token = mint(tmp_path)
    principal = await build_verifier(settings(tmp_path), SystemClock()).verify(token)
    assert (principal.tenant, principal.subject, principal.roles) == ("clinic", "ada", {Role.READER, Role.ADMIN})
    assert principal.unit is None


async def test_a_token_minted_with_a_unit_is_pinned_to_it(tmp_path: Path) -> None:
    token = mint(tmp_path, unit="phone-7")
    assert (await build_verifier(settings(tmp_path), SystemClock()).verify(token)).unit == "phone-7"


async def test_another_homes_token_is_refused(tmp_path: Path) -> None:
    token = mint(tmp_path / "a")
    with pytest.raises(Unauthenticated) as caught:
        await build_verifier(settings(tmp_path / "b"), SystemClock()).verify(token)
    assert caught.value.reason == "signature"


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / DEVELOPMENT_ISSUER
    first = DevelopmentIssuer.load_or_create(settings(tmp_path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(path.read_text())) == {"kid", "algorithm", "privateKey"}
    assert DevelopmentIssuer.load_or_create(settings(tmp_path)).key_id == first.key_id


@pytest.mark.parametrize("ttl_s", [0, -5, 86_401, float("nan")])
def test_a_lifetime_that_no_verifier_takes_is_not_minted(tmp_path: Path, ttl_s: float) -> None:
    with pytest.raises(InvalidInput, match="24 hours"):
        mint(tmp_path, ttl_s=ttl_s)


def test_production_refuses_the_development_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TURNOUT_JWT_ISSUERS"):
        build_verifier(settings(tmp_path, TURNOUT_ENV="production"), SystemClock())
    assert not (tmp_path / DEVELOPMENT_ISSUER).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"privateKey": 7}', '{"privateKey": "x"}', '{"privateKey": null}'])
def test_a_damaged_key_file_stops_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / DEVELOPMENT_ISSUER
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="damaged"):
        DevelopmentIssuer.load_or_create(settings(tmp_path))


async def test_configured_issuers_take_the_place_of_the_development_issuer(tmp_path: Path) -> None:
    (tmp_path / "idp.pem").write_bytes(tokens.public_pem())
    configured = {
        "issuer": tokens.ISSUER,
        "audience": tokens.AUDIENCE,
        "keyFile": str(tmp_path / "idp.pem"),
        "tenantClaim": "org_id",
        "roleMap": {"READER": "ADMIN"},
    }
    verifier = build_verifier(settings(tmp_path, TURNOUT_JWT_ISSUERS=json.dumps([configured])), SystemClock())
    assert (await verifier.verify(tokens.good_token())).roles == {Role.ADMIN}
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(mint(tmp_path))
    assert caught.value.reason == "issuer"


async def test_a_shared_secret_verifies_what_it_signed(tmp_path: Path) -> None:
    secret = b"s" * 32
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(secret + b"\n")
    configured = {
        "issuer": tokens.ISSUER,
        "audience": tokens.AUDIENCE,
        "algorithms": ["HS256"],
        "keyFile": str(path),
        "tenantClaim": "org_id",
    }
    verifier = build_verifier(settings(tmp_path, TURNOUT_JWT_ISSUERS=json.dumps([configured])), SystemClock())
    token = tokens.token({"alg": "HS256"}, tokens.claims(), tokens.hmac_signer(secret))
    assert (await verifier.verify(token)).tenant == "acme"


@pytest.mark.parametrize(
    ("content", "algorithms", "problem"),
    [
        (b"s" * 31, ["HS256"], "at least 32 bytes"),
        (b"s" * 63, ["HS512"], "at least 64 bytes"),
        pytest.param(tokens.public_pem(), ["HS256"], "no PEM", id="a public key for a secret"),
        (b"nonsense", ["RS256"], "one public key as PEM"),
        pytest.param(tokens.public_pem(), ["ES256"], "fits none", id="a key of another kind"),
    ],
)
def test_a_key_file_that_cannot_be_trusted_stops_the_start(tmp_path: Path, content: bytes, algorithms: list[str], problem: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    configured = {"issuer": "https://x", "audience": "a", "algorithms": algorithms, "keyFile": str(path)}
    with pytest.raises(ConfigurationError, match=problem):
        build_verifier(settings(tmp_path, TURNOUT_JWT_ISSUERS=json.dumps([configured])), SystemClock())


def test_a_role_map_to_a_role_that_we_do_not_have_stops_the_start(tmp_path: Path) -> None:
    configured = {"issuer": "https://x", "audience": "a", "jwksUrl": "https://x/jwks", "roleMap": {"boss": "KING"}}
    with pytest.raises(ConfigurationError, match="'KING'"):
        build_verifier(settings(tmp_path, TURNOUT_JWT_ISSUERS=json.dumps([configured])), SystemClock())
