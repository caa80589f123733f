"""The issuer of development: a key made at first start, with which `turnout token` mints. Production refuses it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from app.errors import ConfigurationError, InvalidInput
from app.kernel.home import DEVELOPMENT_ISSUER
from app.kernel.issuers import Issuer
from app.tenancy.identity.keysets import StaticKeys
from app.tenancy.identity.verifier import LONGEST_LIFETIME_S, TrustedIssuer, build_key, sign
from app.tenancy.private_files import create_private, read_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from app.kernel.clock import Clock
    from app.kernel.context import Role
    from app.settings import Settings

ISSUER = "turnout-development"
AUDIENCE = "turnout"
_ALGORITHM = "ES256"
_WHAT = "The development issuer's key file"


class DevelopmentIssuer:
    """Mints tokens, and is trusted by the service that shares its TURNOUT_HOME."""

    def __init__(self, private_key: EllipticCurvePrivateKey) -> None:
        self._pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._public_pem = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.key_id = sha256(self._public_pem.encode()).hexdigest()[:16]

    @classmethod
    def load_or_create(cls, settings: Settings) -> DevelopmentIssuer:
        """The issuer of this TURNOUT_HOME; raises ConfigurationError in production, and where its file is not private or not ours."""
        if not settings.development:
            raise ConfigurationError("TURNOUT_ENV is production, which refuses development keys: name your issuers in TURNOUT_JWT_ISSUERS.")
        path = settings.home / DEVELOPMENT_ISSUER
        if not path.exists():
            new = cls(generate_private_key(SECP256R1()))
            content = json.dumps({"kid": new.key_id, "algorithm": _ALGORITHM, "privateKey": new._pem}, indent=1)
            create_private(path, content.encode() + b"\n", _WHAT)
        return cls._load(path)

    @classmethod
    def _load(cls, path: Path) -> DevelopmentIssuer:
        try:
            key = load_pem_private_key(json.loads(read_private(path, _WHAT))["privateKey"].encode(), None)
        except (ValueError, TypeError, KeyError, AttributeError):
            key = None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ConfigurationError(f"{_WHAT} {path} is damaged; remove it, and the next start makes a new one (old tokens end).")
        return cls(key)

    def trusted(self) -> TrustedIssuer:
        """What the verifier needs. Tokens are pinned to a unit only where they were minted with one."""
        issuer = Issuer(
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=(_ALGORITHM,),
            jwks_url=None,
            key_file=None,
            tenant_claim="tenant",
            subject_claim="sub",
            roles_claim="roles",
            unit_claim="unit",
            role_map={},
        )
        return TrustedIssuer(issuer, StaticKeys({_ALGORITHM: build_key(self._public_pem, _ALGORITHM)}), unit_required=False)

    def mint(self, clock: Clock, tenant: str, subject: str, roles: Iterable[Role], ttl_s: float, unit: str | None = None) -> str:
        """A token for `ttl_s` seconds, at most a day; raises InvalidInput outside of that."""
        if not 1 <= ttl_s <= LONGEST_LIFETIME_S:
            raise InvalidInput(f"A token lives 1 second to 24 hours, not {ttl_s:g} seconds.")
        now = clock.time_ms() // 1000
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "tenant": tenant,
            "sub": subject,
            "roles": sorted(role.value for role in roles),
            "iat": now,
            "exp": now + int(ttl_s),
        }
        if unit is not None:
            claims["unit"] = unit
        return sign(claims, self._pem, self.key_id, _ALGORITHM)
