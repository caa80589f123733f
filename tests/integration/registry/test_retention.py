"""Bytes of retired versions go after their time; records stay, and so does what another version needs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from app.errors import NotFound
from app.kernel.inspection import InspectionReport
from app.kernel.signature import Task
from app.registry import store
from app.registry.artifacts import ArtifactRefused
from app.registry.signing import TrustedKeys
from app.registry.types import VersionRegistration, VersionStatus
from tests.integration.registry.conftest import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from app.registry.types import ModelVersion
    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
DAY_S = 86_400
A, B = b"a model" * 1000, b"another model" * 1000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunks(registry: Registry) -> int:
    return int(registry.sql("select count(*) from artifact_chunks")[0][0])


async def version(registry: Registry, number: int, model: str = "risk") -> ModelVersion:
    return await registry.service.version(registry.ctx, await registry.service.model(registry.ctx, model), number)


async def test_the_bytes_of_an_archived_version_go_after_thirty_days_and_its_record_stays(registry: Registry) -> None:
    number = await registry.ready(A, metrics={"auc": 0.9})
    await registry.ready(B)
    await registry.service.archive(registry.ctx, "risk", number, "old")
    registry.clock.advance(30 * DAY_S)
    assert await registry.retention.sweep() == 0
    registry.clock.advance(1)
    assert await registry.retention.sweep() == 1
    assert await registry.retention.sweep() == 0
    found = await version(registry, number)
    assert (found.status, found.artifact_digest, found.metrics) == (VersionStatus.ARCHIVED, digest(A), {"auc": 0.9})
    assert found.artifact_deleted_at == registry.clock.now()
    assert chunks(registry) == 1
    with pytest.raises(ArtifactRefused, match="its bytes were deleted"):
        await registry.artifacts.path(registry.tenant, digest(A))
    entry = registry.sql("select actor, subject, before, after, reason from audit_entries where action = 'deleteArtifact'")
    assert [(row[0], row[1]) for row in entry] == [("turnout", f"artifact:{digest(A)}")]
    assert "more than 30 days ago" in entry[0][4]


async def test_withdrawn_and_failed_versions_lose_theirs_too(registry: Registry) -> None:
    withdrawn = await registry.ready(A)
    await registry.service.withdraw(registry.ctx, "risk", withdrawn, "wrong")
    await registry.upload(B)
    await registry.checked(await registry.register(B), InspectionReport.failed("no"))
    registry.sql("update model_versions set retired_at = $1 where number = 2", registry.clock.now())
    registry.clock.advance(31 * DAY_S)
    assert await registry.retention.sweep() == 2
    assert chunks(registry) == 0


async def test_bytes_that_another_version_needs_stay_whatever_its_model(registry: Registry) -> None:
    number = await registry.ready(A)
    await registry.ready(A, "other")
    await registry.service.archive(registry.ctx, "risk", number, None)
    registry.clock.advance(31 * DAY_S)
    assert await registry.retention.sweep() == 0
    await registry.service.archive(registry.ctx, "other", 1, None)
    registry.clock.advance(29 * DAY_S)
    assert await registry.retention.sweep() == 0, "the younger retirement counts"
    registry.clock.advance(2 * DAY_S)
    assert await registry.retention.sweep() == 1
    assert (await version(registry, number)).artifact_deleted_at == (await version(registry, 1, "other")).artifact_deleted_at is not None


async def test_what_was_deleted_is_uploaded_again_and_lives_as_long_again(registry: Registry) -> None:
    number = await registry.ready(A)
    await registry.service.archive(registry.ctx, "risk", number, None)
    registry.clock.advance(31 * DAY_S)
    assert await registry.retention.sweep() == 1
    with pytest.raises(NotFound, match=r"were deleted on 2026-04-01, by retention: upload the file with POST /artifacts again\."):
        await registry.register(A, description="once more")
    await registry.upload(A)
    assert (await version(registry, number)).artifact_deleted_at is None
    again = await registry.checked(await registry.register(A, description="once more"))
    assert again == number + 1
    assert (await registry.artifacts.path(registry.tenant, digest(A))).read_bytes() == A
    await registry.service.archive(registry.ctx, "risk", again, None)
    registry.clock.advance(30 * DAY_S)
    assert await registry.retention.sweep() == 0
    registry.clock.advance(1)
    assert await registry.retention.sweep() == 1


async def test_bytes_that_no_version_was_registered_from_go_after_the_same_time(registry: Registry) -> None:
    unused = await registry.upload(A)
    await registry.ready(B)
    registry.sql("update artifact_chunks set created_at = $1", registry.clock.now())
    registry.clock.advance(30 * DAY_S)
    assert await registry.retention.sweep() == 0
    registry.clock.advance(1)
    assert await registry.retention.sweep() == 1
    assert (await registry.retention.sweep(), chunks(registry)) == (0, 1)
    (entry,) = registry.sql("select subject, reason from audit_entries where action = 'deleteArtifact'")
    assert tuple(entry) == (f"artifact:{unused}", "No version was registered from it within 30 days of its upload.")
    await registry.upload(A)
    assert await registry.retention.sweep() == 0
    assert await registry.checked(await registry.register(A)) == 2


async def test_an_upload_has_a_day_to_be_registered_however_short_bytes_are_kept(database_urls: DatabaseUrls, tmp_path: Path) -> None:
    registry = Registry(database_urls, tmp_path, TrustedKeys({}, required=False), days=0)
    try:
        await registry.upload(A)
        registry.clock.advance(DAY_S)
        assert await registry.retention.sweep() == 0
        registry.clock.advance(1)
        assert await registry.retention.sweep() == 1
    finally:
        await registry.close()


async def test_bytes_uploaded_again_are_as_young_as_their_last_upload(registry: Registry) -> None:
    await registry.upload(A)
    registry.clock.advance(31 * DAY_S)
    await registry.upload(A)
    assert await registry.retention.sweep() == 0
    registry.clock.advance(30 * DAY_S + 1)
    assert await registry.retention.sweep() == 1


async def test_a_registration_that_comes_first_keeps_an_unused_upload(registry: Registry) -> None:
    await registry.upload(A)
    model = await registry.ready(B)
    registry.clock.advance(31 * DAY_S)
    async with registry.database.tenant_tx(registry.tenant) as session:
        artifact = await store.find_artifact(session, registry.tenant, digest(A), TrustedKeys({}, required=False))
        sweep = asyncio.create_task(registry.retention.sweep())
        for _ in range(1000):
            if registry.sql("select 1 from pg_locks where not granted"):
                break
            await asyncio.sleep(0.01)
        row = await store.find_model(session, registry.tenant, "risk", lock=True)
        given = VersionRegistration("risk", Task.CLASSIFICATION, digest(A), None, (), None, None, "new")
        await store.add_version(session, row, given, artifact, "hash", "ann", registry.clock.now())
    assert (await sweep, model, chunks(registry)) == (0, 1, 2)


async def test_this_machines_copies_go_too(registry: Registry) -> None:
    number = await registry.ready(A)
    await registry.ready(B)
    gone, kept = [await registry.artifacts.path(registry.tenant, digest(data)) for data in (A, B)]
    await registry.service.archive(registry.ctx, "risk", number, None)
    registry.clock.advance(31 * DAY_S)
    await registry.retention.sweep()
    assert (gone.exists(), kept.exists()) == (False, True)


async def test_this_machines_copies_of_an_erased_tenant_go_though_no_row_names_them_any_more(registry: Registry) -> None:
    await registry.ready(A)
    path = await registry.artifacts.path(registry.tenant, digest(A))
    for table in ("model_versions", "artifact_chunks", "artifacts"):
        registry.sql(f"delete from {table}")
    await registry.retention.sweep()
    assert list(path.parent.iterdir()) == []


async def test_mapped_files_of_graphs_that_nothing_serves_go_and_are_nobody_elses(registry: Registry) -> None:
    """A version that left its graph, one that was archived, one that an alias needs, and one of another tenant by the same name."""
    names = {1: "left", 2: "archived", 3: "aliased", 4: "asked-for"}
    for number in names:
        assert await registry.ready(f"model {number}".encode()) == number
    await registry.service.promote(registry.ctx, "risk", 3)
    await registry.service.archive(registry.ctx, "risk", 2, None)
    graph = {number: digest(f"graph {number}".encode()) for number in names}
    for number, name in graph.items():
        runtime = "SKLEARN" if number == 1 else "ONNX"
        registry.sql("update model_versions set runtime = $1, compiled_digest = $2 where number = $3", runtime, name, number)
    folders = [registry.folder / str(tenant) / "flat" for tenant in (registry.tenant, UUID(int=5))]
    used_at = registry.clock.now().timestamp() - 2 * 3600
    for folder in folders:
        folder.mkdir(parents=True)
        for name in (*graph.values(), "f" * 64):
            (folder / f"{name}-1.31.0-seal.ort").write_bytes(b"flat")
            os.utime(folder / f"{name}-1.31.0-seal.ort", (used_at, used_at))
    await registry.retention.sweep()
    left = [{path.name[:64] for path in folder.iterdir()} for folder in folders]
    assert left == [{graph[3], graph[4]}, set()]


async def test_compiled_graphs_go_with_their_last_version(registry: Registry) -> None:
    first, second = await registry.ready(A), await registry.ready(B)
    registry.sql("update model_versions set compiled_digest = 'shared'")
    registry.sql(
        "insert into compiled_models (tenant_id, digest, data, size_bytes, mac) values ($1, 'shared', 'x', 1, 'm')", registry.tenant
    )
    for number, left in ((first, 1), (second, 0)):
        await registry.service.archive(registry.ctx, "risk", number, None)
        registry.clock.advance(31 * DAY_S)
        assert await registry.retention.sweep() == 1
        assert registry.sql("select count(*) from compiled_models")[0][0] == left


async def test_a_version_retired_before_that_was_written_down_is_held_to_be_retired_now(registry: Registry) -> None:
    number = await registry.ready(A)
    await registry.service.archive(registry.ctx, "risk", number, None)
    registry.sql("update model_versions set retired_at = null")
    registry.clock.advance(100 * DAY_S)
    assert await registry.retention.sweep() == 0
    registry.clock.advance(31 * DAY_S)
    assert await registry.retention.sweep() == 1


async def test_a_registration_that_came_first_keeps_the_bytes(registry: Registry) -> None:
    """The sweep waits for the artifact's row, and looks again when it has it."""
    number = await registry.ready(A)
    await registry.service.archive(registry.ctx, "risk", number, None)
    registry.clock.advance(31 * DAY_S)
    async with registry.database.tenant_tx(registry.tenant) as session:
        artifact = await store.find_artifact(session, registry.tenant, digest(A), TrustedKeys({}, required=False))
        sweep = asyncio.create_task(registry.retention.sweep())
        for _ in range(1000):
            if registry.sql("select 1 from pg_locks where not granted"):
                break
            await asyncio.sleep(0.01)
        model = await store.find_model(session, registry.tenant, "risk", lock=True)
        given = VersionRegistration("risk", Task.CLASSIFICATION, digest(A), None, (), None, None, "new")
        await store.add_version(session, model, given, artifact, "hash", "ann", registry.clock.now())
    assert await sweep == 0
    assert chunks(registry) == 1


async def test_deleted_bytes_do_not_count_against_the_tenants_room(registry: Registry) -> None:
    number = await registry.ready(A)
    await registry.service.archive(registry.ctx, "risk", number, None)
    registry.clock.advance(31 * DAY_S)
    await registry.retention.sweep()
    registry.limits.max_stored_bytes = lambda tenant_id: len(B)  # type: ignore[method-assign]
    assert await registry.upload(B) == digest(B)
