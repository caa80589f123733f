"""Artifacts: bytes in, streamed into Postgres in chunks; bytes out, once a machine, into a content-addressed file cache.

The digest is the name. It says "unchanged since upload", never "trusted": nothing here parses a byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog

from app.audit import store as audit
from app.errors import ModelUnavailable, PayloadTooLarge, QuotaExceeded, RateLimited
from app.kernel.context import Action
from app.registry import artifact_store as store
from app.registry.types import Artifact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.registry.ports import Allowances, ArtifactSeal

CHUNK_BYTES = 1024 * 1024
UPLOADS_AT_ONCE = 8  # of a tenant, in one process: what is under way lies in the database and counts as stored only at its end
log = structlog.get_logger()


class ArtifactUploads:
    """Takes uploads. Each chunk is a transaction of its own, so a slow client holds no connection."""

    def __init__(self, database: Database, clock: Clock, allowances: Allowances, seal: ArtifactSeal) -> None:
        self._database = database
        self._clock = clock
        self._allowances = allowances
        self._seal = seal
        self._under_way: Counter[UUID] = Counter()

    def max_bytes(self, ctx: RequestContext) -> int:
        """How large one artifact of this tenant may be."""
        return self._allowances.max_artifact_bytes(ctx.tenant_id)

    async def receive(self, ctx: RequestContext, pieces: AsyncIterator[bytes]) -> Artifact:
        """The stored artifact; the same bytes are stored once. A broken upload leaves nothing.

        Raises PayloadTooLarge, QuotaExceeded, and RateLimited where too many of the tenant's are under way.
        """
        ctx.require(Action.UPLOAD_ARTIFACT)
        if self._under_way[ctx.tenant_id] >= UPLOADS_AT_ONCE:
            raise RateLimited(f"Your tenant has {UPLOADS_AT_ONCE} uploads under way: wait until one has ended.", retry_after_ms=1000)
        upload_id = uuid4()
        self._under_way[ctx.tenant_id] += 1
        try:
            digest, size = await self._store_chunks(ctx, upload_id, pieces)
            return await self._finish(ctx, upload_id, digest, size)
        except BaseException:
            await asyncio.shield(self._forget(ctx.tenant_id, upload_id))
            raise
        finally:
            self._under_way[ctx.tenant_id] -= 1

    async def _store_chunks(self, ctx: RequestContext, upload_id: UUID, pieces: AsyncIterator[bytes]) -> tuple[str, int]:
        most = self.max_bytes(ctx)
        sha, size, seq = hashlib.sha256(), 0, 0
        waiting = bytearray()
        async for piece in pieces:
            size += len(piece)
            if size > most:
                raise PayloadTooLarge(f"The artifact is larger than {most:,} bytes, the largest that your tenant may upload.")
            waiting += piece
            while len(waiting) >= CHUNK_BYTES:
                chunk = bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
                sha.update(chunk)
                await self._add_chunk(ctx.tenant_id, upload_id, seq, chunk)
                seq += 1
        if waiting:
            sha.update(waiting)
            await self._add_chunk(ctx.tenant_id, upload_id, seq, bytes(waiting))
        return sha.hexdigest(), size

    async def _add_chunk(self, tenant_id: UUID, upload_id: UUID, seq: int, data: bytes) -> None:
        async with self._database.tenant_tx(tenant_id) as session:
            await store.add_chunk(session, tenant_id, upload_id, seq, data, self._clock.now())

    async def _finish(self, ctx: RequestContext, upload_id: UUID, digest: str, size: int) -> Artifact:
        most = self._allowances.max_stored_bytes(ctx.tenant_id)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            mac = self._seal.artifact_mac(ctx.tenant_id, digest, size)
            is_new = await store.add_artifact(session, ctx.tenant_id, upload_id, digest, size, mac, ctx.subject, self._clock.now())
            if is_new:
                stored = await store.stored_bytes(session, ctx.tenant_id)
                if stored > most:
                    raise QuotaExceeded(f"This artifact would bring your tenant to {stored:,} stored bytes; its limit is {most:,}.")
                after = {"sizeBytes": size}
                await audit.record(
                    session, ctx, self._clock, action="uploadArtifact", subject=f"artifact:{digest}", before=None, after=after, reason=None
                )
            else:
                await store.remove_upload(session, ctx.tenant_id, upload_id)
            await store.remove_abandoned(session, ctx.tenant_id, self._clock.now())
        return Artifact(digest, size)

    async def _forget(self, tenant_id: UUID, upload_id: UUID) -> None:
        try:
            async with self._database.tenant_tx(tenant_id) as session:
                await store.remove_upload(session, tenant_id, upload_id)
        except Exception as error:  # noqa: BLE001  the upload's own error is the one to tell; a later upload removes what is left
            log.warning("upload_not_removed", error=type(error).__name__)


class ArtifactCache:
    """Files of this machine, one an artifact, named by digest below the tenant's folder."""

    def __init__(self, folder: Path, database: Database, seal: ArtifactSeal) -> None:
        self._folder = folder
        self._database = database
        self._seal = seal
        self._fetching: dict[tuple[UUID, str], asyncio.Task[Path]] = {}

    async def path(self, tenant_id: UUID, digest: str) -> Path:
        """The artifact's file, checked against its digest; fetched from Postgres where it is not there. Raises ModelUnavailable."""
        key = (tenant_id, digest)
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._ensure(tenant_id, digest))
            self._fetching[key] = task
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        return await asyncio.shield(task)

    async def _ensure(self, tenant_id: UUID, digest: str) -> Path:
        path = self._folder / str(tenant_id) / digest
        if await asyncio.to_thread(_has_digest, path, digest):
            return path
        await asyncio.to_thread(path.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        await self._fetch(tenant_id, digest, path)
        return path

    async def _fetch(self, tenant_id: UUID, digest: str, path: Path) -> None:
        temporary = path.with_name(f"{digest}.{uuid4().hex}.part")
        try:
            sha, size, seq = hashlib.sha256(), 0, 0
            with await asyncio.to_thread(temporary.open, "xb") as file:
                while True:
                    async with self._database.tenant_tx(tenant_id) as session:
                        record, data = await store.read_chunk(session, tenant_id, digest, seq)
                    if record is None or not hmac.compare_digest(record.mac, self._seal.artifact_mac(tenant_id, digest, record.size_bytes)):
                        raise _damaged(digest, "its seal does not fit: it was not uploaded through this service, or its row was changed")
                    if data is None:
                        break
                    sha.update(data)
                    size, seq = size + len(data), seq + 1
                    await asyncio.to_thread(file.write, data)
                await asyncio.to_thread(_flush, file.fileno(), file)
            if sha.hexdigest() != digest or size != record.size_bytes:
                raise _damaged(digest, "its bytes are not those that were uploaded")
            await asyncio.to_thread(temporary.replace, path)
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)


def _flush(descriptor: int, file: object) -> None:
    getattr(file, "flush")()  # noqa: B009  an io object of any kind
    os.fsync(descriptor)


def _has_digest(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _damaged(digest: str, why: str) -> ModelUnavailable:
    log.error("artifact_refused", digest=digest, why=why)
    return ModelUnavailable(f"The artifact {digest[:12]}… is refused: {why}. Register the file again.")
