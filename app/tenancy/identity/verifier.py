"""The one place where tokens are verified, and the only module that knows python-jose.

The library checks signatures and nothing else: what it lets through (unknown critical headers, wrong claim types, algorithms
that the caller forgot to list) is decided here and in `tokens.py`, before and after it.
Source: RFC 7519 section 7.2, RFC 8725.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

from jose import jwk, jws
from jose.exceptions import JOSEError

from app.errors import AppError, ConfigurationError
from app.tenancy.identity.claims import claim_at, has_value, roles_of, subject_of, tenant_of, token_id_of, unit_of
from app.tenancy.identity.refusals import Refusal, refused
from app.tenancy.identity.tokens import LONGEST_TOKEN, parse_token
from app.tenancy.permissions import actions_of
from app.tenancy.types import Principal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.kernel.clock import Clock
    from app.kernel.issuers import Issuer
    from app.tenancy.identity.keysets import KeySource, VerificationKey

LEEWAY_S = 30.0  # clocks of issuers and ours
LONGEST_LIFETIME_S = 86_400.0
REMEMBERED_S = 300.0  # for so long a key that the issuer withdrew may still open for tokens that we have seen
REMEMBERED_TOKENS = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer and its keys. `unit_required`: a token without the unit claim is refused, rather than free to name any unit."""

    issuer: Issuer
    keys: KeySource
    unit_required: bool = True


class Verifier:
    """Turns a bearer token into the Principal that it proves, and remembers those that it has seen."""

    def __init__(self, issuers: Sequence[TrustedIssuer], clock: Clock, remember: int = REMEMBERED_TOKENS) -> None:
        self._issuers = {trusted.issuer.issuer: trusted for trusted in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigurationError("TURNOUT_JWT_ISSUERS names one issuer twice.")
        self._templates = [trusted for trusted in issuers if trusted.issuer.is_template]
        self._clock, self._capacity = clock, remember
        self._seen: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()  # by sha256: no token lies in memory

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was verified in the last minutes and is still good, else None. About 1 µs."""
        if not token.isascii():
            return None
        digest = sha256(token.encode()).digest()
        entry = self._seen.get(digest)
        if entry is None:
            return None
        principal, until_ms = entry
        if self._clock.time_ms() < until_ms:
            self._seen.move_to_end(digest)
            return principal
        del self._seen[digest]
        return None

    async def verify(self, token: str) -> Principal:
        """Whom `token` names; raises Unauthenticated for any bad token, Unavailable where the issuer's keys are out of reach."""
        if len(token) > LONGEST_TOKEN:
            raise refused(Refusal.TOO_LONG)
        if (principal := self.known(token)) is not None:
            return principal
        try:
            principal = await self._verify(token)
        except AppError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a library does with a stranger's bytes, it is no 500
            _log.warning("a token was refused by an unexpected error", extra={"error": type(error).__name__})
            raise refused(Refusal.UNEXPECTED) from None
        self._remember(token, principal)
        return principal

    async def _verify(self, token: str) -> Principal:
        parsed = parse_token(token)
        trusted = self._trusted(parsed.issuer)
        if trusted is None:
            raise refused(Refusal.ISSUER)
        if parsed.algorithm not in trusted.issuer.algorithms:
            raise refused(Refusal.ALGORITHM)
        key = await trusted.keys.find(parsed.key_id, parsed.algorithm)
        if key is None:
            raise refused(Refusal.KEY)
        try:
            jws.verify(token, cast("Any", key), [parsed.algorithm])
        except JOSEError:
            raise refused(Refusal.SIGNATURE) from None
        expires_at_s, issued_at_s = _check_times(parsed.claims, self._clock.time_ms() / 1000)
        return _principal(trusted, parsed.claims, expires_at_s, issued_at_s)

    def _trusted(self, issuer: str) -> TrustedIssuer | None:
        """By its exact name; a template stands for as many as it fits."""
        exact = self._issuers.get(issuer)
        if exact is not None:
            return None if exact.issuer.is_template else exact
        return next((trusted for trusted in self._templates if trusted.issuer.trusts(issuer)), None)

    def _remember(self, token: str, principal: Principal) -> None:
        until_ms = min(principal.expires_at_s * 1000, self._clock.time_ms() + REMEMBERED_S * 1000)
        self._seen[sha256(token.encode()).digest()] = (principal, until_ms)
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)


def build_key(material: Any, algorithm: str) -> VerificationKey:
    """A key for one algorithm out of PEM text, a secret or a JWK; raises ValueError where they do not fit."""
    try:
        return cast("VerificationKey", jwk.construct(material, algorithm))
    except JOSEError as error:
        raise ValueError(str(error)) from None


def sign(claims: Mapping[str, Any], private_key: str, key_id: str, algorithm: str) -> str:
    """A signed token, for the development issuer."""
    return jws.sign(dict(claims), private_key, headers={"kid": key_id}, algorithm=algorithm)


def _check_times(claims: Mapping[str, Any], now: float) -> tuple[float, float | None]:
    """When the token expires and was issued; raises Unauthenticated where its times are missing, no numbers, or not now."""
    expires, not_before, issued = (_instant(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise refused(Refusal.TIMES)
    if expires <= now - LEEWAY_S:
        raise refused(Refusal.EXPIRED)
    if any(instant is not None and instant > now + LEEWAY_S for instant in (not_before, issued)):
        raise refused(Refusal.NOT_YET_VALID)
    if expires - (now if issued is None else issued) > LONGEST_LIFETIME_S + LEEWAY_S:
        raise refused(Refusal.LIFETIME)
    return expires, issued


def _instant(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12 and math.isfinite(value):
        return float(value)
    raise refused(Refusal.TIMES)


def _principal(trusted: TrustedIssuer, claims: Mapping[str, Any], expires_at_s: float, issued_at_s: float | None) -> Principal:
    issuer = trusted.issuer
    audiences = claim_at(claims, issuer.audience_claim)
    if issuer.audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise refused(Refusal.AUDIENCE)
    if not all(has_value(claims, path, value) for path, value in issuer.required_claims.items()):
        raise refused(Refusal.CLAIM)
    tenant = tenant_of(claims, issuer.tenant_claim)
    if issuer.allowed_tenants is not None and tenant not in issuer.allowed_tenants:
        raise refused(Refusal.TENANT)
    if issuer.is_template and tenant != issuer.tenant_in(claims["iss"]):
        raise refused(Refusal.TENANT)
    unit = unit_of(claims, issuer.unit_claim) if issuer.unit_claim else None
    if unit is None and issuer.unit_claim and trusted.unit_required:
        raise refused(Refusal.UNIT)
    roles = roles_of(claims, issuer.roles_claim, issuer.role_map)
    return Principal(
        tenant=tenant,
        subject=subject_of(claims, issuer.subject_claim),
        roles=roles,
        allowed=actions_of(roles),
        unit=unit,
        expires_at_s=expires_at_s,
        issuer=issuer.issuer,
        jti=token_id_of(claims),
        issued_at_s=issued_at_s,
        own_names=issuer.own_tenant_names,
        creates_tenants=issuer.creates_tenants,
    )
