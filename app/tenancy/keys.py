"""One master key wraps one secret a tenant; what is needed is derived from that secret, by purpose.

Nothing here is random but new secrets, so two replicas with the same master key agree on every id, pseudonym and MAC.
Source: RFC 5869 (HKDF), NIST SP 800-38D (AES-GCM).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.errors import ConfigurationError
from app.kernel.macs import KeptMac
from app.tenancy.private_files import create_private, read_private

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

SECRET_BYTES = 32
PSEUDONYM_LENGTH = 32  # hex digits: 128 bits
_FORMAT = b"\x01"
_FINGERPRINT_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16
_WRAPPED_BYTES = len(_FORMAT) + _FINGERPRINT_BYTES + _NONCE_BYTES + SECRET_BYTES + _TAG_BYTES


class UnreadableSecret(Exception):
    """A wrapped secret that this master key does not open; the text says which of the two is likely wrong."""


class Box:
    """Seals what a machine keeps on its own disk, under a key that follows from the master key and a purpose."""

    def __init__(self, key: bytes, fingerprint: bytes) -> None:
        self._aead, self._fingerprint = AESGCM(key), fingerprint

    def seal(self, data: bytes, about: bytes) -> bytes:
        """`data`, readable again by the same master key for the same purpose and the same `about` alone; 33 bytes longer."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _FORMAT + self._fingerprint
        return head + nonce + self._aead.encrypt(nonce, data, head + about)

    def unseal(self, sealed: bytes, about: bytes) -> bytes:
        """What `seal` was given; raises UnreadableSecret for another key's, another thing's, one changed byte, or one that is missing."""
        head, nonce = sealed[:5], sealed[5:17]
        if len(sealed) < len(_FORMAT) + _FINGERPRINT_BYTES + _NONCE_BYTES + _TAG_BYTES or head[:1] != _FORMAT:
            raise UnreadableSecret("it was cut short, or has an unknown format")
        if head[1:] != self._fingerprint:
            raise UnreadableSecret(f"it was sealed under master key {head[1:].hex()}; the key at hand is {self._fingerprint.hex()}")
        try:
            return self._aead.decrypt(nonce, sealed[17:], head + about)
        except InvalidTag:
            raise UnreadableSecret("it was changed, cut short, or is something else") from None


class MasterKey:
    """The key that opens the tenants' secrets: a file of 64 hex digits, mode 0600, the same on every replica."""

    def __init__(self, key: bytes) -> None:
        if len(key) != SECRET_BYTES:
            raise ConfigurationError(f"The master key has {len(key)} bytes; it must have {SECRET_BYTES}.")
        self._key = key
        self._wrapping = AESGCM(_derive(key, b"", b"turnout/wrap/1"))
        self._fingerprint = _derive(key, b"", b"turnout/fingerprint/1")[:_FINGERPRINT_BYTES]

    @property
    def fingerprint(self) -> str:
        """Eight hex digits by which people can tell whether two replicas have the same key; they say nothing of the key."""
        return self._fingerprint.hex()

    @classmethod
    def load(cls, path: Path) -> MasterKey:
        """The key in `path`; raises ConfigurationError where it is missing, readable by others or malformed."""
        text = read_private(path, "The master key file").strip()
        try:
            key = bytes.fromhex(text.decode("ascii"))
        except ValueError:
            key = b""
        if len(text) != 2 * SECRET_BYTES or len(key) != SECRET_BYTES:
            raise ConfigurationError(
                f"The master key file {path} does not hold {2 * SECRET_BYTES} hex digits; make one with: openssl rand -hex {SECRET_BYTES}"
            )
        return cls(key)

    @classmethod
    def load_or_create(cls, path: Path) -> MasterKey:
        """As `load`; where there is no file yet, one with a new random key is made."""
        if not path.exists():
            create_private(path, secrets.token_hex(SECRET_BYTES).encode() + b"\n", "The master key file")
        return cls.load(path)

    def wrap(self, tenant_id: UUID, secret: bytes) -> bytes:
        """`secret` (32 bytes) sealed for this tenant: format, key fingerprint, nonce, ciphertext with tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _FORMAT + self._fingerprint
        return head + nonce + self._wrapping.encrypt(nonce, secret, head + tenant_id.bytes)

    def box(self, purpose: str) -> Box:
        """What seals this machine's files of one purpose ("last-good"); every replica with this master key could open them."""
        return Box(_derive(self._key, b"", f"turnout/{purpose}/1".encode()), self._fingerprint)

    def unwrap(self, tenant_id: UUID, wrapped: bytes) -> bytes:
        """The tenant's secret; raises UnreadableSecret for another key, another tenant's secret or one changed byte."""
        if len(wrapped) != _WRAPPED_BYTES or wrapped[:1] != _FORMAT:
            raise UnreadableSecret("the wrapped secret has an unknown format")
        head, nonce, sealed = wrapped[:5], wrapped[5:17], wrapped[17:]
        if head[1:] != self._fingerprint:
            raise UnreadableSecret(f"the secret was wrapped by master key {head[1:].hex()}; the key at hand is {self.fingerprint}")
        try:
            return self._wrapping.decrypt(nonce, sealed, head + tenant_id.bytes)
        except InvalidTag:
            raise UnreadableSecret("the wrapped secret was changed, or is another tenant's") from None


@dataclass(slots=True)
class TenantKeys:
    """A tenant's keys, 32 bytes each, by purpose. Those that may be renewed have a generation, which rows record."""

    tenant_id: UUID
    pseudonym_generation: int
    assignment_generation: int
    ids: bytes = field(repr=False)  # prediction ids
    artifacts: bytes = field(repr=False)  # integrity of stored artifacts
    data: bytes = field(repr=False)  # data at rest
    _secret: bytes = field(repr=False)
    _by_generation: dict[tuple[str, int], bytes] = field(default_factory=dict, repr=False)
    _pseudonym_macs: dict[int, KeptMac] = field(default_factory=dict, repr=False)  # by generation

    @classmethod
    def derive(cls, tenant_id: UUID, secret: bytes, pseudonym_generation: int = 1, assignment_generation: int = 1) -> TenantKeys:
        """The keys that follow from the tenant's secret; the same everywhere."""
        return cls(
            tenant_id,
            pseudonym_generation,
            assignment_generation,
            ids=_derive(secret, tenant_id.bytes, b"turnout/ids/1"),
            artifacts=_derive(secret, tenant_id.bytes, b"turnout/artifacts/1"),
            data=_derive(secret, tenant_id.bytes, b"turnout/data/1"),
            _secret=secret,
        )

    def pseudonyms(self, generation: int) -> bytes:
        """The key of unit pseudonyms of this generation."""
        return self._generation("pseudonyms", generation)

    @property
    def audit_chain(self) -> bytes:
        """The key that seals the tenant's audit log."""
        return self._generation("audit-chain", 1)

    @property
    def audit_people(self) -> bytes:
        """The key of the pseudonyms of people in the audit log."""
        return self._generation("audit-people", 1)

    def assignment(self, generation: int) -> bytes:
        """The key that assigns units to variants; its generation stays while an experiment runs."""
        return self._generation("assignment", generation)

    def unit_pseudonym(self, unit: str, generation: int | None = None) -> str:
        """The name of `unit` in flags, logs and exports: 32 hex digits, constant across replicas and restarts.

        `generation` left out: the current one. Without the tenant's secret nobody can say which unit it is, or try them all.
        """
        number = self.pseudonym_generation if generation is None else generation
        mac = self._pseudonym_macs.get(number)
        if mac is None:
            mac = self._pseudonym_macs[number] = KeptMac(self._generation("pseudonyms", number))
        return mac(unit.encode())[: PSEUDONYM_LENGTH // 2].hex()

    def unit_pseudonyms(self, unit: str) -> list[str]:
        """All names that `unit` has had, of every generation up to the current one."""
        return [self.unit_pseudonym(unit, generation) for generation in range(1, self.pseudonym_generation + 1)]

    def seal(self, data: bytes, about: bytes) -> bytes:
        """`data` under the tenant's data key, readable again for the same `about` alone; 28 bytes longer.

        `about` names one thing, once: each has a key of its own, so that no number of things is too many for one key.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._sealing(about).encrypt(nonce, data, about)

    def unseal(self, sealed: bytes, about: bytes) -> bytes:
        """What `seal` was given; raises UnreadableSecret for another tenant's, another thing's or one changed byte."""
        try:
            return self._sealing(about).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
        except (InvalidTag, ValueError):
            raise UnreadableSecret("the sealed data was changed, or is something else's") from None

    def _sealing(self, about: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self.data, b"turnout/seal/1" + self.tenant_id.bytes + about, "sha256"))

    def artifact_mac(self, digest: str, size_bytes: int) -> bytes:
        """32 bytes that prove that this service stored `digest` (sha256 hex) of `size_bytes` for this tenant."""
        message = b"turnout/artifact/1" + self.tenant_id.bytes + bytes.fromhex(digest) + size_bytes.to_bytes(8)
        return hmac.digest(self.artifacts, message, "sha256")

    def is_artifact_mac(self, mac: bytes, digest: str, size_bytes: int) -> bool:
        """Whether `mac` is the one for this digest and size, compared in constant time."""
        return hmac.compare_digest(mac, self.artifact_mac(digest, size_bytes))

    def _generation(self, purpose: str, generation: int) -> bytes:
        key = self._by_generation.get((purpose, generation))
        if key is None:
            key = _derive(self._secret, self.tenant_id.bytes, f"turnout/{purpose}/1/{generation}".encode())
            self._by_generation[purpose, generation] = key
        return key


def new_secret() -> bytes:
    """A secret for a new tenant."""
    return secrets.token_bytes(SECRET_BYTES)


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=salt, info=info).derive(secret)
