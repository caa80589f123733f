"""Signatures of artifacts: Ed25519 over the 32 bytes of the file's sha256, by keys that the operator configured.

What `openssl pkeyutl -sign -rawin` makes of the digest is taken too. A signature says who vouches for the bytes; the allow-list and
the sandbox hold all the same. Which keys count is a setting, never a word of the artifact.
Source: RFC 8032 (Ed25519), RFC 8410 (its keys as PEM).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, load_pem_public_key

from app.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADER = "Artifact-Signature"
SIGNED_ALONE = "This service uses signed artifacts alone"
_STAMP = re.compile(r"([0-9a-f]{16}):([A-Za-z0-9+/]{86}==)")
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_SETTING = "TURNOUT_ARTIFACT_KEYS"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What came with an upload: which key, and what it signed."""

    signer: str  # the key's id
    signature: bytes  # 64 bytes

    @classmethod
    def parse(cls, text: str) -> Stamp:
        """Of the header's value; raises InvalidInput."""
        match = _STAMP.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(
                f"{HEADER} must be a key's id (16 hex digits), a colon and the signature (64 bytes in base64), as "
                "`turnout artifact sign` prints it."
            )
        return cls(match[1], base64.b64decode(match[2]))

    def __str__(self) -> str:
        return f"{self.signer}:{base64.b64encode(self.signature).decode('ascii')}"


class TrustedKeys:
    """The keys whose signatures count. `required`: an artifact without one of them is not used (signed-only)."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], *, required: bool) -> None:
        self._keys = dict(keys)
        self.required = required

    @classmethod
    def read(cls, setting: str | None, *, required: bool) -> TrustedKeys:
        """Of TURNOUT_ARTIFACT_KEYS: a JSON list of keys, or the path of a file of them. Raises ConfigurationError."""
        keys = {key_id(key): key for key in map(_public_key, _texts(setting))} if setting else {}
        if required and not keys:
            raise ConfigurationError(
                f"TURNOUT_ARTIFACT_TRUST is 'signed-only', but {_SETTING} names no key: give the public keys of those who may sign."
            )
        return cls(keys, required=required)

    @property
    def ids(self) -> list[str]:
        return sorted(self._keys)

    def check_upload(self, digest: str, stamp: Stamp | None) -> None:
        """Returns where the bytes may be stored; raises InvalidInput for a signature that does not fit, or one by a stranger."""
        if stamp is None:
            return  # it cannot be registered where signatures are required, and may be signed by a later upload
        if stamp.signer in self._keys:
            if not self._fits(digest, stamp):
                raise InvalidInput(
                    f"{HEADER} does not fit these bytes: sign this very file (sha256 {digest}) with `turnout artifact sign`."
                )
        elif self.required:
            raise InvalidInput(f"{HEADER} is by the key {stamp.signer}, which this service does not know. {self._known()}")

    def refusal(self, digest: str, stamp: Stamp | None) -> str | None:
        """Why this service does not use the artifact, and what to do; None where it does."""
        if not self.required or (stamp is not None and self._fits(digest, stamp)):
            return None
        why = (
            "has no signature" if stamp is None else f"is signed by the key {stamp.signer}, which does not count (any more) or does not fit"
        )
        return (
            f"{SIGNED_ALONE}, and {digest[:12]}… {why}. Sign the file (turnout artifact sign FILE --key KEY), "
            f"then send it again with POST /artifacts and the header {HEADER}. {self._known()}"
        )

    def _fits(self, digest: str, stamp: Stamp) -> bool:
        key = self._keys.get(stamp.signer)
        if key is None:
            return False
        try:
            key.verify(stamp.signature, bytes.fromhex(digest))
        except InvalidSignature:
            return False
        return True

    def _known(self) -> str:
        return f"Keys that count: {', '.join(self.ids) or 'none'}."


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the key's 32 bytes."""
    return hashlib.sha256(_raw(key)).hexdigest()[:16]


def public_text(key: Ed25519PublicKey) -> str:
    """The key as TURNOUT_ARTIFACT_KEYS takes it: its 32 bytes in base64."""
    return base64.b64encode(_raw(key)).decode("ascii")


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """Of an unencrypted PKCS #8 file; raises ConfigurationError."""
    try:
        key: Any = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("The key must be an Ed25519 private key in PEM, without a password: openssl genpkey -algorithm ed25519.")
    return key


def sign(key: Ed25519PrivateKey, digest: str) -> Stamp:
    """The stamp for the file with this sha256 (hex)."""
    return Stamp(key_id(key.public_key()), key.sign(bytes.fromhex(digest)))


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _texts(setting: str) -> Iterator[str]:
    """Each key's text."""
    if setting.lstrip().startswith("["):
        try:
            listed = json.loads(setting)
        except ValueError as error:
            raise ConfigurationError(f"{_SETTING} is not JSON: {error}.") from None
        if not all(isinstance(item, str) for item in listed):
            raise ConfigurationError(f"{_SETTING} must be a JSON list of texts, each a public key (PEM or base64), or the path of a file.")
        yield from listed
        return
    try:
        text = Path(setting).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{_SETTING} is neither a JSON list nor a file that can be read: {error}.") from None
    yield from _PEM.findall(text)
    lines = (line.strip() for line in _PEM.sub("", text).splitlines())
    yield from (line for line in lines if line and not line.startswith("#"))


def _public_key(text: str) -> Ed25519PublicKey:
    found: Any
    try:
        if "-----BEGIN" in text:
            found = load_pem_public_key(text.strip().encode())
        else:
            found = Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, Ed25519PublicKey):
        raise ConfigurationError(
            f"{_SETTING} holds {text[:60]!r}, which is no Ed25519 public key: PEM, or its 32 bytes in base64 "
            "(`turnout artifact sign` shows it)."
        )
    return found
