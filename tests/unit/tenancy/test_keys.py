from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from app.errors import ConfigurationError
from app.tenancy.keys import MasterKey, TenantKeys, UnreadableSecret, new_secret

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

TENANT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
KEY, SECRET = bytes(range(32)), bytes(range(32, 64))
# Sealed once by this code with KEY: what an older replica has written must open for ever.
WRAPPED = bytes.fromhex(
    "01046cdf62bcc52d58263355d2816b077854c56558b1883bb47da725bc4eeb5bee60f99a91dc0eeea7efa0a0530570cdff6b73fb2508c7a5860c325909bfe1de81"
)


def keys(pseudonyms: int = 1, assignment: int = 1) -> TenantKeys:
    return TenantKeys.derive(TENANT, SECRET, pseudonyms, assignment)


def test_two_replicas_with_one_master_key_agree_on_everything() -> None:
    """Fixed vectors: a change of any of them breaks every id, pseudonym and artifact that is already stored."""
    derived = TenantKeys.derive(TENANT, MasterKey(KEY).unwrap(TENANT, WRAPPED))
    assert {
        "ids": derived.ids.hex(),
        "artifacts": derived.artifacts.hex(),
        "data": derived.data.hex(),
        "pseudonyms 1": derived.pseudonyms(1).hex(),
        "pseudonyms 2": derived.pseudonyms(2).hex(),
        "assignment 1": derived.assignment(1).hex(),
        "unit": derived.unit_pseudonym("user-42"),
        "unit, not ASCII": derived.unit_pseudonym("Zoë"),
        "unit, generation 2": derived.unit_pseudonym("user-42", 2),
        "mac": derived.artifact_mac("ab" * 32, 1_234).hex(),
    } == {
        "ids": "a37c44ffc077f9999b979e605c19dfc43fcdb8fb7ac3ede1e563933031ef542e",
        "artifacts": "86d25610eedca41f59e805a3d9b431e503624c83a581f293fcf850b50403fa21",
        "data": "5a3db1c9600ed0573d6a3fde066ab0a025843b262cab6e035a4f5a6fb4e49bcd",
        "pseudonyms 1": "cd68b85e7e287d2e5b037bb67c38856224a5db258961fcba83627b3884bd8ec5",
        "pseudonyms 2": "275697f23ec462bb25f7dcd53f07ac9a7bf87af0a57adf2f00ec6798ab031e9f",
        "assignment 1": "6a1b7b8909bc96afcec23f6d2c6592cb6676bf4df9114b32cca4ee89726343fd",
        "unit": "396d212247e36f44fad075624f19fa4d",
        "unit, not ASCII": "30273e8a4e7d8d92deede54d3dbb06fe",
        "unit, generation 2": "6e291079ee6cd62d999f062f9569d6bb",
        "mac": "e77831d9743ada7450c5efe7b241f0dca03b47a347a023d9eabc0be4746ddb1f",
    }


def test_each_purpose_generation_and_tenant_has_a_key_of_its_own() -> None:
    mine, theirs = keys(), TenantKeys.derive(OTHER, SECRET)
    every = [
        key
        for some in (mine, theirs)
        for key in (some.ids, some.artifacts, some.data, *(make(n) for make in (some.pseudonyms, some.assignment) for n in (1, 2)))
    ]
    assert len({*every, SECRET}) == 15


def test_a_pseudonym_is_of_the_current_generation_unless_one_is_named() -> None:
    renewed = keys(pseudonyms=2)
    assert renewed.unit_pseudonym("u") == keys().unit_pseudonym("u", 2) != keys().unit_pseudonym("u")
    assert renewed.unit_pseudonym("u", 1) == keys().unit_pseudonym("u")


def test_an_artifact_mac_holds_for_its_digest_and_size_alone() -> None:
    mac = keys().artifact_mac("ab" * 32, 10)
    assert keys().is_artifact_mac(mac, "ab" * 32, 10)
    assert not keys().is_artifact_mac(mac, "ab" * 32, 11)
    assert not keys().is_artifact_mac(mac, "ab" * 31 + "ac", 10)
    assert not TenantKeys.derive(OTHER, SECRET).is_artifact_mac(mac, "ab" * 32, 10)


def test_keys_do_not_print() -> None:
    assert "32" not in repr(keys()).replace(str(TENANT), "")
    assert SECRET.hex() not in repr(keys())


def test_a_wrapped_secret_opens_for_its_tenant_and_key_alone() -> None:
    secret = new_secret()
    master = MasterKey(KEY)
    wrapped = master.wrap(TENANT, secret)
    assert master.unwrap(TENANT, wrapped) == secret
    with pytest.raises(UnreadableSecret, match="another tenant's"):
        master.unwrap(OTHER, wrapped)
    with pytest.raises(UnreadableSecret, match=f"wrapped by master key {master.fingerprint}"):
        MasterKey(SECRET).unwrap(TENANT, wrapped)


def test_no_byte_of_a_wrapped_secret_can_be_changed() -> None:
    master = MasterKey(KEY)
    for index in range(len(WRAPPED)):
        changed = bytearray(WRAPPED)
        changed[index] ^= 1
        with pytest.raises(UnreadableSecret):
            master.unwrap(TENANT, bytes(changed))
    with pytest.raises(UnreadableSecret, match="format"):
        master.unwrap(TENANT, WRAPPED[:-1])


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "master.key"
    first, second = MasterKey.load_or_create(path), MasterKey.load_or_create(path)
    assert first.fingerprint == second.fingerprint == MasterKey.load(path).fingerprint
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    path.write_text(KEY.hex())
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        MasterKey.load(path)


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "é" * 32, "ab " * 21 + "a"])
def test_a_key_file_of_anything_but_64_hex_digits_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="64 hex digits"):
        MasterKey.load(path)


def test_a_missing_or_strange_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        MasterKey.load(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="no plain file"):
        MasterKey.load(tmp_path / "pipe")
