"""Compiled graphs in Postgres: stored beside their versions, and given out only with their bytes checked."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.db.retrying import is_unavailable, retried
from app.errors import ModelUnavailable
from app.registry.rows import CompiledModelRow

if TYPE_CHECKING:
    import builtins
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.registry.ports import ArtifactSeal

log = structlog.get_logger()


class CompiledModels:
    """One a serving process."""

    def __init__(self, database: Database, seal: ArtifactSeal) -> None:
        self._database = database
        self._seal = seal

    async def add(self, session: AsyncSession, tenant_id: UUID, data: builtins.bytes) -> str:
        """The digest (sha256, hex) of the graph, stored and sealed in the caller's transaction; the same graph is stored once."""
        digest = hashlib.sha256(data).hexdigest()
        mac = self._seal.artifact_mac(tenant_id, digest, len(data))
        row = {"tenant_id": tenant_id, "digest": digest, "data": data, "size_bytes": len(data), "mac": mac}
        await session.execute(pg_insert(CompiledModelRow).values(row).on_conflict_do_nothing())
        return digest

    async def bytes(self, tenant_id: UUID, digest: str) -> builtins.bytes:
        """The graph, as it was stored; raises ModelUnavailable where digest or seal do not fit, Unavailable where the database is away."""
        row = await retried("read a compiled model", lambda: self._row(tenant_id, digest), when=is_unavailable)
        if row is None:
            raise _refused(digest, "it is not there")
        if not hmac.compare_digest(row.mac, self._seal.artifact_mac(tenant_id, digest, row.size_bytes)):
            raise _refused(digest, "its seal does not fit")
        if len(row.data) != row.size_bytes or hashlib.sha256(row.data).hexdigest() != digest:
            raise _refused(digest, "its bytes are not those that were stored")
        return row.data

    async def _row(self, tenant_id: UUID, digest: str) -> CompiledModelRow | None:
        async with self._database.tenant_tx(tenant_id) as session:
            return await session.get(CompiledModelRow, (tenant_id, digest))


def _refused(digest: str, why: str) -> ModelUnavailable:
    log.error("compiled_model_refused", digest=digest, why=why)
    return ModelUnavailable(f"The compiled model {digest[:12]}… is refused: {why}.")
