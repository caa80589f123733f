"""Which issuers this service trusts, from its settings: keys read and checked at start, so that a wrong one stops the start."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from app.errors import ConfigurationError
from app.kernel.context import Role
from app.tenancy.identity.development import DevelopmentIssuer
from app.tenancy.identity.keysets import RemoteKeys, StaticKeys
from app.tenancy.identity.verifier import TrustedIssuer, Verifier, build_key
from app.tenancy.private_files import read_private

if TYPE_CHECKING:
    from pathlib import Path

    from app.kernel.clock import Clock
    from app.kernel.issuers import Issuer
    from app.settings import Settings
    from app.tenancy.identity.keysets import VerificationKey
    from app.tenancy.sealed_files import SealedFolder

_CURVE_OF = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 section 3.2


def build_verifier(settings: Settings, clock: Clock, kept: SealedFolder | None = None) -> Verifier:
    """The verifier of the issuers that the settings name; of the development issuer where they name none.

    `kept`: where fetched keys are kept, for a start while their issuer does not answer.

    Raises ConfigurationError for a key that is missing, weak or of the wrong kind, and in production for no issuer at all.
    """
    if not settings.issuers:
        return Verifier([DevelopmentIssuer.load_or_create(settings).trusted()], clock)
    return Verifier([_trusted(issuer, clock, kept) for issuer in settings.issuers], clock)


def _trusted(issuer: Issuer, clock: Clock, kept: SealedFolder | None) -> TrustedIssuer:
    known = set(Role)
    if wrong := sorted(str(role) for role in issuer.role_map.values() if role not in known):
        raise ConfigurationError(f"roleMap of issuer {issuer.issuer} maps to {wrong[0]!r}; our roles are {', '.join(Role)}.")
    if issuer.jwks_url is not None:
        file = None if kept is None else kept.file(f"keys-{sha256(issuer.jwks_url.encode()).hexdigest()[:16]}")
        return TrustedIssuer(issuer, RemoteKeys(issuer.jwks_url, issuer.algorithms, build_key, clock, file))
    if issuer.key_file is None:
        raise ConfigurationError(f"Issuer {issuer.issuer} has neither jwksUrl nor keyFile.")
    return TrustedIssuer(issuer, StaticKeys(_file_keys(issuer, issuer.key_file)))


def _file_keys(issuer: Issuer, path: Path) -> dict[str, VerificationKey]:
    if issuer.algorithms[0].startswith("HS"):
        return {name: build_key(_secret(path, name), name) for name in issuer.algorithms}
    pem, fitting = _public_pem(issuer, path)
    keys = {name: build_key(pem, name) for name in issuer.algorithms if name in fitting}
    if not keys:
        raise ConfigurationError(
            f"The key in {path} fits none of the algorithms of issuer {issuer.issuer}: {', '.join(issuer.algorithms)}."
        )
    return keys


def _secret(path: Path, algorithm: str) -> str:
    secret = read_private(path, "The issuer's secret file").strip()
    if len(secret) < _SECRET_BYTES[algorithm] or b"-----BEGIN" in secret:
        raise ConfigurationError(f"{path} must hold a secret of at least {_SECRET_BYTES[algorithm]} bytes for {algorithm}, and no PEM.")
    try:
        return secret.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} must hold its secret as text.") from None


def _public_pem(issuer: Issuer, path: Path) -> tuple[str, set[str]]:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"keyFile {path} of issuer {issuer.issuer} cannot be read: {error.strerror}.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"keyFile {path} of issuer {issuer.issuer} must hold one public key as PEM.") from None
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    if isinstance(key, RSAPublicKey) and key.key_size >= 2048:
        return pem, {"RS256", "RS384", "RS512"}
    if isinstance(key, EllipticCurvePublicKey):
        return pem, {name for name, curve in _CURVE_OF.items() if curve == key.curve.name}
    raise ConfigurationError(f"keyFile {path} of issuer {issuer.issuer} must hold an RSA key of 2048 bits or more, or an EC key.")
