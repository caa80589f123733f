"""Artifacts: bytes in, streamed into Postgres in chunks; bytes out, once a machine, into a content-addressed file cache.

The digest is the name. It says "unchanged since upload", never "trusted": nothing here parses a byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog

from app.audit import store as audit
from app.db.retrying import is_unavailable, retried
from app.errors import InvalidInput, ModelUnavailable, PayloadTooLarge, QuotaExceeded, RateLimited
from app.kernel.context import Action
from app.registry import artifact_store as store
from app.registry.artifact_store import Arrival, Upload
from app.registry.signing import Stamp
from app.registry.types import Artifact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.registry.ports import Allowances, ArtifactSeal, Standing
    from app.registry.rows import ArtifactRow
    from app.registry.signing import TrustedKeys

CHUNK_BYTES = 1024 * 1024
_CHECK_WITHIN_S = 5.0
FLAT_FOLDER = "flat"  # within a tenant's folder: its compiled graphs, as they are mapped
STAMP_SUFFIX = ".signature"
UPLOADS_AT_ONCE = 8  # of a tenant, in one process: what is under way lies in the database and counts as stored only at its end
log = structlog.get_logger()


class ArtifactRefused(ModelUnavailable):
    """These bytes are not to be used: asking again does not help."""

    retryable = False


class ArtifactUploads:
    """Takes uploads. Each chunk is a transaction of its own, so a slow client holds no connection."""

    def __init__(
        self, database: Database, clock: Clock, allowances: Allowances, seal: ArtifactSeal, keys: TrustedKeys, standing: Standing
    ) -> None:
        self._database = database
        self._standing = standing
        self._clock = clock
        self._allowances = allowances
        self._seal = seal
        self._keys = keys
        self._under_way: Counter[UUID] = Counter()

    def max_bytes(self, ctx: RequestContext) -> int:
        """How large one artifact of this tenant may be."""
        return self._allowances.max_artifact_bytes(ctx.tenant_id)

    async def receive(self, ctx: RequestContext, pieces: AsyncIterator[bytes], stamp: Stamp | None = None) -> Artifact:
        """The stored artifact; the same bytes are stored once. A broken upload leaves nothing.

        Raises PayloadTooLarge, QuotaExceeded, InvalidInput for a signature that does not fit, RateLimited where too many of the
        tenant's uploads are under way, and TenantSuspended or NotFound where the tenant is not served any more when the bytes are there.
        """
        ctx.require(Action.UPLOAD_ARTIFACT)
        if self._under_way[ctx.tenant_id] >= UPLOADS_AT_ONCE:
            raise RateLimited(f"Your tenant has {UPLOADS_AT_ONCE} uploads under way: wait until one has ended.", retry_after_ms=1000)
        upload_id = uuid4()
        self._under_way[ctx.tenant_id] += 1
        try:
            digest, size = await self._store_chunks(ctx, upload_id, pieces)
            self._keys.check_upload(digest, stamp)
            mac = self._seal.artifact_mac(ctx.tenant_id, digest, size)
            return await self._finish(ctx, Upload(upload_id, digest, size, mac, stamp))
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

    async def _finish(self, ctx: RequestContext, upload: Upload) -> Artifact:
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            await self._standing.require_served(session, ctx.tenant_id)  # an upload may last longer than that
            arrival = await store.add_artifact(session, ctx.tenant_id, upload, ctx.subject, self._clock.now())
            if arrival in (Arrival.NEW, Arrival.RESTORED):
                await self._check_room(session, ctx)
            if arrival is not Arrival.KNOWN:
                await audit.record(
                    session,
                    ctx,
                    self._clock,
                    action="signArtifact" if arrival is Arrival.SIGNED else "uploadArtifact",
                    subject=f"artifact:{upload.digest}",
                    after={"sizeBytes": upload.size_bytes} | ({} if upload.stamp is None else {"signedBy": upload.stamp.signer}),
                )
            await store.remove_abandoned(session, ctx.tenant_id, self._clock.now())
        return Artifact(upload.digest, upload.size_bytes)

    async def _check_room(self, session: AsyncSession, ctx: RequestContext) -> None:
        most, stored = self._allowances.max_stored_bytes(ctx.tenant_id), await store.stored_bytes(session, ctx.tenant_id)
        if stored > most:
            raise QuotaExceeded(f"This artifact would bring your tenant to {stored:,} stored bytes; its limit is {most:,}.")

    async def _forget(self, tenant_id: UUID, upload_id: UUID) -> None:
        try:
            async with self._database.tenant_tx(tenant_id) as session:
                await store.remove_upload(session, tenant_id, upload_id)
        except Exception as error:  # noqa: BLE001  the upload's own error is the one to tell; a later upload removes what is left
            log.warning("upload_not_removed", error=type(error).__name__)


class ArtifactCache:
    """Files of this machine, one an artifact, named by digest below the tenant's folder."""

    def __init__(self, folder: Path, database: Database, seal: ArtifactSeal, keys: TrustedKeys) -> None:
        self._folder = folder
        self._database = database
        self._seal = seal
        self._keys = keys
        self._fetching: dict[tuple[UUID, str], asyncio.Task[Path]] = {}

    async def path(self, tenant_id: UUID, digest: str) -> Path:
        """The artifact's file, checked before anybody reads it; fetched from Postgres where it is not there, or not as it was.

        Raises ArtifactRefused for bytes that are not those that were uploaded, or that nobody signed whose word counts.
        """
        key = (tenant_id, digest)
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._ensure(tenant_id, digest))
            self._fetching[key] = task
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        return await asyncio.shield(task)

    async def require_signed(self, tenant_id: UUID, digest: str) -> None:
        """Returns where what was made of this artifact may be used; raises ArtifactRefused for want of a signature that counts."""
        kept = await asyncio.to_thread(_kept_stamp, self._folder / str(tenant_id) / digest)
        if self._keys.refusal(digest, kept) is not None:
            await self.path(tenant_id, digest)

    async def refusal(self, tenant_id: UUID, digest: str) -> str | None:
        """Why these bytes are not to be used; None where they are, or where that took longer than five seconds to find out."""
        try:
            async with asyncio.timeout(_CHECK_WITHIN_S):
                await self.path(tenant_id, digest)
        except ArtifactRefused as refused:
            return refused.message
        except TimeoutError:
            return None  # a large one that is fetched for the first time goes on being fetched
        return None

    async def _ensure(self, tenant_id: UUID, digest: str) -> Path:
        path = self._folder / str(tenant_id) / digest
        if await asyncio.to_thread(self._is_good, path, digest):
            return path
        await asyncio.to_thread(path.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        await self._fetch(tenant_id, digest, path)
        return path

    def _is_good(self, path: Path, digest: str) -> bool:
        """Whether the file is there with its bytes unchanged, and its signature counts where one is required."""
        return _has_digest(path, digest) and self._keys.refusal(digest, _kept_stamp(path)) is None

    async def _chunk(self, tenant_id: UUID, digest: str, seq: int) -> tuple[ArtifactRow | None, bytes | None]:
        async with self._database.tenant_tx(tenant_id) as session:
            return await store.read_chunk(session, tenant_id, digest, seq)

    async def _fetch(self, tenant_id: UUID, digest: str, path: Path) -> None:
        temporary = path.with_name(f"{digest}.{uuid4().hex}.part")
        try:
            sha, size, seq = hashlib.sha256(), 0, 0
            with await asyncio.to_thread(temporary.open, "xb") as file:
                while True:
                    record, data = await retried("read an artifact", partial(self._chunk, tenant_id, digest, seq), when=is_unavailable)
                    if record is None or not hmac.compare_digest(record.mac, self._seal.artifact_mac(tenant_id, digest, record.size_bytes)):
                        raise _damaged(digest, "its seal does not fit: it was not uploaded through this service, or its row was changed")
                    if record.removed_at is not None:
                        raise _damaged(digest, "its bytes were deleted, because every version that used it was retired long ago")
                    if refusal := self._keys.refusal(digest, store.stamp_of(record)):
                        raise ArtifactRefused(refusal)
                    if data is None:
                        break
                    sha.update(data)
                    size, seq = size + len(data), seq + 1
                    await asyncio.to_thread(file.write, data)
                await asyncio.to_thread(_flush, file.fileno(), file)
            if sha.hexdigest() != digest or size != record.size_bytes:
                raise _damaged(digest, "its bytes are not those that were uploaded")
            await asyncio.to_thread(_keep_stamp, path, store.stamp_of(record))
            await asyncio.to_thread(temporary.replace, path)
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)


def _stamp_path(path: Path) -> Path:
    return path.with_name(f"{path.name}{STAMP_SUFFIX}")


def _keep_stamp(path: Path, stamp: Stamp | None) -> None:
    """Beside the artifact, so that it counts while the database is away: a signature needs no other witness."""
    if stamp is not None:
        _stamp_path(path).write_text(str(stamp), encoding="ascii")


def _kept_stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.parse(_stamp_path(path).read_text(encoding="ascii"))
    except (OSError, ValueError, InvalidInput):
        return None


def _flush(descriptor: int, file: object) -> None:
    getattr(file, "flush")()  # noqa: B009  an io object of any kind
    os.fsync(descriptor)


def _has_digest(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


def _damaged(digest: str, why: str) -> ArtifactRefused:
    log.error("artifact_refused", digest=digest, why=why)
    return ArtifactRefused(f"The artifact {digest[:12]}… is refused: {why}. Upload and register the file again.")
