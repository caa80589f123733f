"""Publishing a copy of a version into another tenant. Nothing reads across tenants: the record and the bytes are read as the one, and
written as the other, each in that tenant's own transactions and under its own seal, limits and audit log.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.audit import store as audit
from app.errors import Conflict, InvalidInput, PermissionDenied, TenantSuspended, Unauthenticated
from app.kernel.context import Action
from app.kernel.names import check_name
from app.registry import artifact_store, store
from app.registry.artifacts import CHUNK_BYTES
from app.registry.types import Lineage, Origin, VersionRegistration, VersionStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.registry.artifacts import ArtifactCache, ArtifactUploads
    from app.registry.ports import Door
    from app.registry.rows import ArtifactRow, ModelVersionRow
    from app.registry.service import RegistryService
    from app.registry.signing import Stamp
    from app.registry.types import ModelVersion

# One text, whatever is wrong with the token: it tells nothing of tenants that the caller has no proof for.
_NO_PROOF = "targetToken must be a valid token of an ADMIN of the tenant that toTenant names."


class PublishingService:
    """Copies versions for callers that hold a token of an ADMIN of each of the two tenants."""

    def __init__(
        self, database: Database, clock: Clock, registry: RegistryService, uploads: ArtifactUploads, artifacts: ArtifactCache, door: Door
    ) -> None:
        self._database, self._clock = database, clock
        self._registry, self._uploads, self._artifacts, self._door = registry, uploads, artifacts, door

    async def publish(
        self, ctx: RequestContext, model: str, version: int, to_tenant: str, to_model: str, target_token: str
    ) -> ModelVersion:
        """The copy, a VALIDATING version of the other tenant's model, or the one that the same call made before.

        Raises PermissionDenied without proof for the other tenant, NotFound, Conflict (not READY; the other's names, tasks or
        limits), InvalidInput, PayloadTooLarge and QuotaExceeded by the other tenant's limits, ArtifactRefused for damaged bytes.
        """
        ctx.require(Action.PUBLISH_VERSION)
        check_name("model", to_model)
        target = await self._target(ctx, to_tenant, target_token)
        registration, stamp = await self._read(ctx, model, version, to_model)
        if (before := await self._registry.registered(target, registration)) is not None:
            return before
        path = await self._artifacts.path(ctx.tenant_id, registration.artifact_digest)
        # First who let the bytes go, then the bytes: a copy of which the log knows nothing cannot be.
        await self._record(ctx, model, version, target, registration)
        artifact = await self._uploads.receive(target, _pieces(path), stamp)
        if artifact.digest != registration.artifact_digest:
            raise Conflict("The bytes changed while they were copied: publish again.")
        return await self._registry.register(target, registration)

    async def _target(self, ctx: RequestContext, to_tenant: str, token: str) -> RequestContext:
        """The caller as the other tenant knows them."""
        try:
            # Bad tokens are counted against the caller's tenant: whoever tries many holds up nobody else's.
            target = await self._door.admit(f"Bearer {token}", ctx.request_id, ctx.deadline, f"tenant/{ctx.tenant_id}")
        except (Unauthenticated, TenantSuspended):
            raise PermissionDenied(_NO_PROOF) from None
        if target.tenant != to_tenant or Action.PUBLISH_VERSION not in target.allowed:
            raise PermissionDenied(_NO_PROOF)
        if target.tenant_id == ctx.tenant_id:
            raise InvalidInput("toTenant is your own tenant: register the same artifactDigest under the other model instead.")
        return target

    async def _read(self, ctx: RequestContext, model: str, number: int, to_model: str) -> tuple[VersionRegistration, Stamp | None]:
        """What the copy is registered with, and the signature of its bytes."""
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model)
            version = await store.find_version(session, row, number)
            artifact = None
            if version.artifact_digest is not None:
                artifact = await artifact_store.find(session, ctx.tenant_id, version.artifact_digest)
            value = store.version_value(version, row.name)
            task = store.model_value(row).task
        _check_publishable(version, artifact)
        registration = VersionRegistration(
            model=to_model,
            task=task,
            artifact_digest=str(value.artifact_digest),
            columns=value.columns,
            sample=(),  # rows of this tenant's data stay here: their erasure could not follow them
            metrics=value.metrics,
            tags=value.tags,
            description=value.description,
            lineage=_of_everywhere(value.lineage),
            origin=Origin(ctx.tenant, row.name, number, str(value.artifact_digest)),
        )
        return registration, None if artifact is None else artifact_store.stamp_of(artifact)

    async def _record(
        self, ctx: RequestContext, model: str, version: int, target: RequestContext, registration: VersionRegistration
    ) -> None:
        after: dict[str, Any] = {"toTenant": target.tenant, "toModel": registration.model, "artifactDigest": registration.artifact_digest}
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            subject = f"version:{model}/{version}"
            await audit.record(session, ctx, self._clock, action="publishModelVersion", subject=subject, after=after)


def _check_publishable(version: ModelVersionRow, artifact: ArtifactRow | None) -> None:
    if version.status != VersionStatus.READY:
        raise Conflict(f"Version {version.number} is {version.status}: only a READY version can be published.")
    if artifact is None or artifact.removed_at is not None:
        raise Conflict(f"Version {version.number} has no bytes here that could be copied.")


def _of_everywhere(lineage: Lineage | None) -> Lineage | None:
    """Without what has a meaning in the first tenant alone: the number of a version there."""
    bare = None if lineage is None else replace(lineage, parent_version=None)
    return None if bare == Lineage() else bare


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """The file as an upload would bring it."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield piece
    finally:
        await asyncio.to_thread(file.close)
