from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import pytest

from app.db.session import Database
from app.db.sync import SyncDatabase
from app.experiments.guards import ExperimentsOfVersions
from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.kernel.inspection import InspectionReport
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.registry import store
from app.registry.artifacts import ArtifactCache, ArtifactUploads
from app.registry.everywhere import Everywhere
from app.registry.retention import ArtifactRetention
from app.registry.service import RegistryService
from app.registry.signing import TrustedKeys
from app.registry.types import VersionRegistration
from app.tenancy.permissions import actions_of
from app.tenancy.standing import TenantStanding
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from app.registry.signing import Stamp
    from app.registry.types import ModelVersion
    from tests.support.database import DatabaseUrls

SIGNATURE = Signature((Column("x", ColumnType.NUMBER),), InputKind.ARRAY, ())
READY = InspectionReport(None, SIGNATURE, ("no", "yes"), "DummyClassifier", {}, ())


class Limits:
    """A tenant with room, and the seal of its artifacts."""

    def max_models(self, tenant_id: UUID) -> int:
        return 10

    def max_artifact_bytes(self, tenant_id: UUID) -> int:
        return 1 << 30

    def max_stored_bytes(self, tenant_id: UUID) -> int:
        return 1 << 30

    def artifact_mac(self, tenant_id: UUID, digest: str, size_bytes: int) -> bytes:
        return hmac.digest(tenant_id.bytes, f"{digest}/{size_bytes}".encode(), "sha256")


class Quiet:
    """Nobody serves: nothing is heard, nothing waited for."""

    def wake(self) -> None: ...

    async def caught_up(self, tenant_id: UUID | None = None) -> None: ...


class Registry:
    """The room with its real parts around it, for one tenant."""

    def __init__(self, urls: DatabaseUrls, folder: Path, keys: TrustedKeys, days: int = 30) -> None:
        self.urls, self.folder, self.clock, self.limits = urls, folder, ManualClock(), Limits()
        self.tenant = make_tenant(urls, "clinic")
        self.database, self.sync = Database(urls.runtime), SyncDatabase(urls.sync)
        self.everywhere = Everywhere(self.database, Quiet())
        self.trust(keys)
        self.retention = ArtifactRetention(self.database, self.sync, folder, self.clock, days)
        roles = frozenset({Role.ADMIN})
        self.ctx = RequestContext(self.tenant, "clinic", "ann", roles, actions_of(roles), None, "req", Deadline.after(60))

    def trust(self, keys: TrustedKeys) -> None:
        """As after a restart with these keys."""
        self.uploads = ArtifactUploads(self.database, self.clock, self.limits, self.limits, keys, TenantStanding())
        self.artifacts = ArtifactCache(self.folder, self.database, self.limits, keys)
        self.service = RegistryService(
            self.database, self.clock, self.limits, self.everywhere, keys, self.artifacts, ExperimentsOfVersions()
        )

    async def upload(self, data: bytes, stamp: Stamp | None = None) -> str:
        async def pieces() -> AsyncIterator[bytes]:
            yield data

        return (await self.uploads.receive(self.ctx, pieces(), stamp)).digest

    async def register(self, data: bytes, model: str = "risk", **more: Any) -> ModelVersion:
        """VALIDATING, whoever uploaded the bytes before."""
        digest = hashlib.sha256(data).hexdigest()
        named = {"columns": None, "sample": (), "metrics": None, "tags": None, "description": None} | more
        return await self.service.register(self.ctx, VersionRegistration(model, Task.CLASSIFICATION, digest, **named))

    async def checked(self, version: ModelVersion, report: InspectionReport = READY) -> int:
        """Its number, READY or FAILED as the report says."""
        async with self.database.tenant_tx(self.tenant) as session:
            assert await store.finish_validation(session, self.tenant, version.model_id, version.number, report)
        return version.number

    async def ready(self, data: bytes, model: str = "risk", **more: Any) -> int:
        await self.upload(data)
        return await self.checked(await self.register(data, model, **more))

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        return execute(self.urls.superuser, statement, *arguments)

    async def close(self) -> None:
        await self.database.close()
        await self.sync.close()


@pytest.fixture
async def registry(database_urls: DatabaseUrls, tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(database_urls, tmp_path / "artifacts", TrustedKeys({}, required=False))
    yield made
    await made.close()
