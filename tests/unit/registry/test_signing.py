"""Which signatures count: those of configured keys, over these very bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.errors import ConfigurationError, InvalidInput
from app.registry.signing import Stamp, TrustedKeys, key_id, private_key, public_text, sign

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
DIGEST = hashlib.sha256(b"a model").hexdigest()
OTHER_DIGEST = hashlib.sha256(b"another model").hexdigest()
ID = key_id(KEY.public_key())


def pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def trusting(*keys: Ed25519PrivateKey, required: bool = True) -> TrustedKeys:
    return TrustedKeys.read(json.dumps([public_text(key.public_key()) for key in keys]), required=required)


def test_a_signature_by_a_configured_key_over_these_bytes_counts() -> None:
    assert trusting(KEY, OTHER).refusal(DIGEST, sign(KEY, DIGEST)) is None


@pytest.mark.parametrize(
    ("stamp", "why"),
    [
        (None, "has no signature"),
        (sign(OTHER, DIGEST), f"is signed by the key {key_id(OTHER.public_key())}, which does not count"),
        (sign(KEY, OTHER_DIGEST), f"is signed by the key {ID}, which does not count (any more) or does not fit"),
        (Stamp(ID, sign(OTHER, DIGEST).signature), "does not fit"),
        (Stamp(ID, bytes(64)), "does not fit"),
    ],
)
def test_any_other_is_refused_with_what_to_do(stamp: Stamp | None, why: str) -> None:
    refusal = trusting(KEY).refusal(DIGEST, stamp)
    assert refusal is not None
    assert why in refusal
    assert "turnout artifact sign FILE --key KEY" in refusal
    assert f"Keys that count: {ID}." in refusal


def test_where_none_is_required_nothing_is_refused() -> None:
    assert trusting(KEY, required=False).refusal(DIGEST, None) is None
    assert TrustedKeys.read(None, required=False).refusal(DIGEST, sign(OTHER, OTHER_DIGEST)) is None


def test_an_upload_is_told_at_once_that_its_signature_does_not_fit() -> None:
    with pytest.raises(InvalidInput, match=f"does not fit these bytes: sign this very file .sha256 {DIGEST}"):
        trusting(KEY, required=False).check_upload(DIGEST, sign(KEY, OTHER_DIGEST))


def test_a_strangers_signature_is_refused_where_signatures_are_required_and_kept_where_not() -> None:
    with pytest.raises(InvalidInput, match="which this service does not know"):
        trusting(KEY).check_upload(DIGEST, sign(OTHER, DIGEST))
    trusting(KEY, required=False).check_upload(DIGEST, sign(OTHER, DIGEST))


def test_a_stamp_reads_as_it_was_written() -> None:
    stamp = sign(KEY, DIGEST)
    assert Stamp.parse(f" {stamp} ") == stamp
    assert str(stamp).startswith(f"{ID}:")


@pytest.mark.parametrize(
    "text", ["", "x", ID, f"{ID}:", f"{ID}:{'A' * 86}", f"{ID.upper()}:{'A' * 86}==", f"{ID}:{'A' * 86}==\nx", f"{ID}:{'!' * 86}=="]
)
def test_what_is_no_stamp_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="Artifact-Signature must be a key's id"):
        Stamp.parse(text)


def test_keys_come_as_a_list_or_a_file_as_pem_or_base64(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# who may sign\n{pem(KEY)}\n{public_text(OTHER.public_key())}\n")
    for setting in (str(path), json.dumps([pem(KEY), public_text(OTHER.public_key())])):
        keys = TrustedKeys.read(setting, required=True)
        assert keys.refusal(DIGEST, sign(KEY, DIGEST)) is None
        assert keys.refusal(DIGEST, sign(OTHER, DIGEST)) is None


EC_PEM = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("[1]", "must be a JSON list of texts"),
        ("[", "is not JSON"),
        ("/nowhere/keys", "neither a JSON list nor a file"),
        ('["abc"]', "no Ed25519 public key"),
        (json.dumps([base64.b64encode(bytes(31)).decode()]), "no Ed25519 public key"),
        pytest.param(json.dumps([EC_PEM]), "no Ed25519 public key", id="another kind of key"),
    ],
)
def test_keys_that_cannot_be_used_stop_the_start(setting: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        TrustedKeys.read(setting, required=False)


@pytest.mark.parametrize("setting", [None, "[]"])
def test_signed_only_without_a_key_stops_the_start(setting: str | None) -> None:
    with pytest.raises(ConfigurationError, match="names no key"):
        TrustedKeys.read(setting, required=True)


def test_a_private_key_that_is_none_says_how_to_make_one() -> None:
    good = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert sign(private_key(good), DIGEST) == sign(KEY, DIGEST)
    wrong = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for bad in (b"", b"x", pem(KEY).encode(), wrong):
        with pytest.raises(ConfigurationError, match="openssl genpkey -algorithm ed25519"):
            private_key(bad)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_what_openssl_signs_counts(tmp_path: Path) -> None:
    key, digest, signature = tmp_path / "private.pem", tmp_path / "digest", tmp_path / "signature"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    digest.write_bytes(bytes.fromhex(DIGEST))
    subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", digest, "-out", signature], check=True)
    assert trusting(KEY).refusal(DIGEST, Stamp(ID, signature.read_bytes())) is None
