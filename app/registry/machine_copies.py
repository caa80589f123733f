"""Files of artifacts and compiled graphs on this machine: what nothing needs any more is removed, by whichever process looks first.

A file may be open, or mapped, in any process of the machine: it is usable there until that process lets go of it, and whoever needs
it anew makes it again from the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import exists, select

from app.registry.artifacts import FLAT_FOLDER, STAMP_SUFFIX
from app.registry.rows import AliasRow, ArtifactRow, ModelVersionRow
from app.registry.types import RuntimeKind, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from pathlib import Path

    from app.db.session import Database
    from app.kernel.clock import Clock

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FLAT = re.compile(r"([0-9a-f]{64})-.+")
_YOUNG = timedelta(hours=1)  # may be just written, and be anybody's next
_UNUSED = timedelta(days=7)
MOST_SPARE_BYTES = 1 << 30  # of a tenant's graphs that no alias points at


@dataclass(frozen=True, slots=True)
class FlatFile:
    """A compiled graph as it is mapped. `digest`: None where it is no finished file; `used_at`: seconds, when it was opened last."""

    path: Path
    digest: str | None
    size_bytes: int
    used_at: float


class MachineCopies:
    """`folder`: this machine's artifact cache."""

    def __init__(self, database: Database, folder: Path, clock: Clock) -> None:
        self._database = database
        self._folder = folder
        self._clock = clock

    async def sweep(self) -> None:
        """Removes copies of artifacts whose bytes were deleted, or whose tenant was erased, and files of graphs that nothing needs."""
        for tenant_id, inner in await asyncio.to_thread(lambda: list(_tenants(self._folder))):
            await self._artifacts(tenant_id, inner)
            await self._graphs(tenant_id, inner / FLAT_FOLDER)

    async def _artifacts(self, tenant_id: UUID, folder: Path) -> None:
        digests = await asyncio.to_thread(lambda: [path.name for path in folder.iterdir() if _DIGEST.fullmatch(path.name)])
        if not digests:
            return
        query = select(ArtifactRow.digest).where(ArtifactRow.tenant_id == tenant_id, ArtifactRow.digest.in_(digests))
        async with self._database.tenant_tx(tenant_id) as session:
            there = set((await session.execute(query.where(ArtifactRow.removed_at.is_(None)))).scalars())
        for digest in set(digests) - there:
            for name in (digest, f"{digest}{STAMP_SUFFIX}"):
                await asyncio.to_thread((folder / name).unlink, missing_ok=True)

    async def _graphs(self, tenant_id: UUID, folder: Path) -> None:
        files = await asyncio.to_thread(lambda: list(_flat_files(folder)))
        if not files:
            return
        version = ModelVersionRow
        pointed = exists().where(
            AliasRow.tenant_id == version.tenant_id, AliasRow.model_id == version.model_id, AliasRow.number == version.number
        )
        query = select(version.compiled_digest, pointed).where(
            version.tenant_id == tenant_id,
            version.status == VersionStatus.READY.value,
            version.runtime == RuntimeKind.ONNX.value,
            version.compiled_digest.in_({file.digest for file in files}),
        )
        async with self._database.tenant_tx(tenant_id) as session:
            served = [(str(digest), bool(aliased)) for digest, aliased in await session.execute(query)]
        going = spare(files, {digest for digest, _ in served}, {digest for digest, aliased in served if aliased}, self._clock.now())
        for path in going:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def spare(files: Collection[FlatFile], served: Collection[str], aliased: Collection[str], now: datetime) -> list[Path]:
    """The files that may go, of one tenant. `served`: graphs that serve a READY version; `aliased`: those that an alias needs. Pure.

    The last used file of a graph that an alias needs stays. Others of versions that may still be asked for stay for a week after
    their last use, and within a bound; the rest goes.
    """
    going: list[Path] = []
    needed: set[str | None] = set()
    room = MOST_SPARE_BYTES
    for file in sorted(files, key=lambda file: -file.used_at):
        age_s = now.timestamp() - file.used_at
        if age_s < _YOUNG.total_seconds():
            needed.add(file.digest)
            continue
        if file.digest in aliased and file.digest not in needed:
            needed.add(file.digest)
            continue
        room -= file.size_bytes
        if file.digest not in served or age_s > _UNUSED.total_seconds() or room < 0:
            going.append(file.path)
    return going


def _tenants(folder: Path) -> Iterator[tuple[UUID, Path]]:
    for inner in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(ValueError):
            if inner.is_dir():
                yield UUID(inner.name), inner


def _flat_files(folder: Path) -> Iterator[FlatFile]:
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process was first
            found = path.stat()
            named = _FLAT.fullmatch(path.name)
            yield FlatFile(path, None if named is None else named[1], found.st_size, found.st_mtime)
