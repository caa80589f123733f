"""Bytes are what was uploaded, and signed where that is asked for, before anybody reads them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.errors import InvalidInput, NotPromotable, QuotaExceeded
from app.kernel.inspection import InspectionReport
from app.registry.artifacts import CHUNK_BYTES, ArtifactRefused
from app.registry.signing import Stamp, TrustedKeys, key_id, sign
from app.registry.store import UNREAD

if TYPE_CHECKING:
    from tests.integration.registry.conftest import Registry

pytestmark = pytest.mark.integration
A, B = b"a model" * 1000, b"another model" * 1000
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
SIGNED_ONLY = TrustedKeys({key_id(KEY.public_key()): KEY.public_key()}, required=True)
ANY = TrustedKeys({}, required=False)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stamp(data: bytes, key: Ed25519PrivateKey = KEY) -> Stamp:
    return sign(key, digest(data))


FLIP = "update artifact_chunks set data = set_byte(data, $1, get_byte(data, $1) # 1) where seq = $2"


@pytest.mark.parametrize(("seq", "byte"), [(0, 0), (0, CHUNK_BYTES - 1), (1, 17)])
async def test_one_flipped_bit_in_the_database_is_refused(registry: Registry, seq: int, byte: int) -> None:
    large = bytes(CHUNK_BYTES) + A
    await registry.upload(large)
    registry.sql(FLIP, byte, seq)
    with pytest.raises(ArtifactRefused, match="its bytes are not those that were uploaded") as refused:
        await registry.artifacts.path(registry.tenant, digest(large))
    assert refused.value.retryable is False
    assert not list(registry.folder.rglob("*.part"))


async def test_a_chunk_that_is_missing_or_too_many_is_refused(registry: Registry) -> None:
    await registry.upload(bytes(CHUNK_BYTES) + A)
    registry.sql("delete from artifact_chunks where seq = 1")
    with pytest.raises(ArtifactRefused, match="its bytes are not those"):
        await registry.artifacts.path(registry.tenant, digest(bytes(CHUNK_BYTES) + A))


async def test_a_row_that_was_changed_is_refused(registry: Registry) -> None:
    await registry.upload(A)
    registry.sql("update artifacts set size_bytes = size_bytes + 1")
    with pytest.raises(ArtifactRefused, match="its seal does not fit"):
        await registry.artifacts.path(registry.tenant, digest(A))


async def test_one_flipped_bit_in_this_machines_copy_is_not_given_out(registry: Registry) -> None:
    await registry.upload(A)
    path = await registry.artifacts.path(registry.tenant, digest(A))
    path.write_bytes(bytes([A[0] ^ 1]) + A[1:])
    assert (await registry.artifacts.path(registry.tenant, digest(A))).read_bytes() == A
    path.write_bytes(bytes([A[0] ^ 1]) + A[1:])
    registry.sql(FLIP, 0, 0)
    with pytest.raises(ArtifactRefused):
        await registry.artifacts.path(registry.tenant, digest(A))


async def test_a_damaged_version_is_not_promoted_and_what_serves_serves_on(registry: Registry) -> None:
    first, second = await registry.ready(A), await registry.ready(B)
    await registry.service.promote(registry.ctx, "risk", first)
    registry.sql(FLIP + " and upload_id = (select upload_id from artifacts where digest = $3)", 3, 0, digest(B))
    with pytest.raises(NotPromotable) as refused:
        await registry.service.promote(registry.ctx, "risk", second, allow_breaking=True, reason="I insist")
    assert [b["code"] for b in refused.value.details["blockers"]] == ["ARTIFACT_REFUSED"]
    assert "its bytes are not those that were uploaded" in refused.value.message
    assert registry.sql("select number, revision from aliases") == [(first, 1)]


async def test_another_upload_heals_what_was_damaged(registry: Registry) -> None:
    await registry.upload(A)
    registry.sql(FLIP, 0, 0)
    registry.sql("update artifacts set size_bytes = 1")
    await registry.upload(A)
    assert (await registry.artifacts.path(registry.tenant, digest(A))).read_bytes() == A
    assert registry.sql("select count(*) from artifact_chunks")[0][0] == 1


async def test_a_version_whose_bytes_were_refused_is_registered_again_as_another(registry: Registry) -> None:
    await registry.upload(A)
    await registry.checked(await registry.register(A), InspectionReport.failed("damaged", environment=UNREAD))
    second = await registry.register(A)
    assert second.number == 2
    await registry.checked(second, InspectionReport.failed("no estimator", environment={"python": "3.11.7"}))
    assert (await registry.register(A)).number == 2


# --- signatures


async def test_signed_only_takes_what_a_configured_key_signed(registry: Registry) -> None:
    registry.trust(SIGNED_ONLY)
    await registry.upload(A, stamp(A))
    assert (await registry.register(A)).number == 1
    assert (await registry.artifacts.path(registry.tenant, digest(A))).read_bytes() == A
    after = registry.sql("select after from audit_entries where action = 'uploadArtifact'")
    assert key_id(KEY.public_key()) in str(after)


async def test_signed_only_refuses_what_nobody_signed_at_registration_with_what_to_do(registry: Registry) -> None:
    registry.trust(SIGNED_ONLY)
    await registry.upload(A)
    with pytest.raises(InvalidInput, match=r"has no signature. Sign the file \(turnout artifact sign FILE --key KEY\), then send it again"):
        await registry.register(A)
    with pytest.raises(ArtifactRefused, match="has no signature"):
        await registry.artifacts.path(registry.tenant, digest(A))
    await registry.upload(A, stamp(A))
    assert (await registry.register(A)).number == 1
    done = {row[0] for row in registry.sql("select action from audit_entries")}
    assert done == {"uploadArtifact", "signArtifact", "registerModelVersion"}


@pytest.mark.parametrize("wrong", [stamp(B), stamp(A, OTHER), Stamp(key_id(KEY.public_key()), bytes(64))])
async def test_a_signature_that_does_not_count_leaves_nothing_behind(registry: Registry, wrong: Stamp) -> None:
    registry.trust(SIGNED_ONLY)
    with pytest.raises(InvalidInput, match="Artifact-Signature"):
        await registry.upload(A, wrong)
    assert registry.sql("select 1 from artifact_chunks") == registry.sql("select 1 from artifacts") == []


async def test_signatures_are_kept_before_they_are_asked_for(registry: Registry) -> None:
    await registry.upload(A, stamp(A))
    registry.trust(SIGNED_ONLY)
    assert (await registry.register(A)).number == 1


async def test_a_signature_written_into_the_database_does_not_count(registry: Registry) -> None:
    await registry.upload(A)
    registry.sql("update artifacts set signer = $1, signature = $2", key_id(KEY.public_key()), stamp(B).signature)
    registry.trust(SIGNED_ONLY)
    with pytest.raises(InvalidInput, match="does not fit"):
        await registry.register(A)


async def test_a_key_that_was_taken_out_counts_no_more_for_what_lies_in_the_cache_either(registry: Registry) -> None:
    registry.trust(SIGNED_ONLY)
    await registry.upload(A, stamp(A))
    path = await registry.artifacts.path(registry.tenant, digest(A))
    registry.trust(TrustedKeys({key_id(OTHER.public_key()): OTHER.public_key()}, required=True))
    assert path.read_bytes() == A
    with pytest.raises(ArtifactRefused, match=r"does not count \(any more\)"):
        await registry.artifacts.path(registry.tenant, digest(A))


async def test_what_was_cached_unsigned_is_asked_for_its_signature(registry: Registry) -> None:
    await registry.upload(A)
    await registry.artifacts.path(registry.tenant, digest(A))
    registry.trust(SIGNED_ONLY)
    with pytest.raises(ArtifactRefused, match="has no signature"):
        await registry.artifacts.path(registry.tenant, digest(A))
    registry.trust(ANY)
    await registry.upload(A, stamp(A))
    registry.trust(SIGNED_ONLY)
    assert (await registry.artifacts.path(registry.tenant, digest(A))).read_bytes() == A


async def test_a_known_upload_leaves_no_second_copy(registry: Registry) -> None:
    for _ in range(3):
        await registry.upload(A, stamp(A))
    assert registry.sql("select count(*) from artifact_chunks")[0][0] == 1
    assert registry.sql("select action from audit_entries") == [("uploadArtifact",)]


async def test_too_many_bytes_leave_nothing_behind(registry: Registry) -> None:
    registry.limits.max_stored_bytes = lambda tenant_id: len(A) - 1  # type: ignore[method-assign]
    with pytest.raises(QuotaExceeded):
        await registry.upload(A)
    assert registry.sql("select 1 from artifact_chunks") == registry.sql("select 1 from artifacts") == []
