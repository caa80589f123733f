"""TURNOUT_HOME/tombstones.jsonl: every tombstone once more, outside the database.

A backup is older than what was erased after it. From this file a restored database learns whom it must forget again.
It holds pseudonyms, as the database does, and is only ever appended to.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.errors import ConfigurationError
from app.kernel.home import TOMBSTONES
from app.tenancy.tombstones import Tombstone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class TombstoneFile:
    """The file below `home`. What is in it is read once, when it is first needed."""

    def __init__(self, home: Path) -> None:
        self._path = home / TOMBSTONES
        self._known: dict[tuple[UUID, str, UUID], Tombstone] | None = None

    def read(self) -> list[Tombstone]:
        """All stones in the order in which they were written; a line that was torn by a crash was never relied on."""
        return list(self._read().values())

    def append(self, stones: Iterable[Tombstone]) -> int:
        """How many of `stones` were new and are on the disk now. Raises ConfigurationError where the file cannot be written."""
        known = self._read()
        new = [stone for stone in stones if _key(stone) not in known]
        if not new:
            return 0
        lines = "".join(json.dumps(_plain(stone)) + "\n" for stone in new)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                torn = bool(size) and os.pread(descriptor, 1, size - 1) != b"\n"
                file.write((b"\n" if torn else b"") + lines.encode())
                os.fsync(descriptor)
        except OSError as error:
            raise ConfigurationError(f"The file {self._path} cannot be written ({error.strerror}): erasures wait for it.") from None
        known.update((_key(stone), stone) for stone in new)
        return len(new)

    def _read(self) -> dict[tuple[UUID, str, UUID], Tombstone]:
        if self._known is None:
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                data = b""
            except OSError as error:
                raise ConfigurationError(f"The file {self._path} cannot be read ({error.strerror}).") from None
            stones = [stone for line in data.splitlines() if (stone := _parsed(line)) is not None]
            self._known = {_key(stone): stone for stone in stones}
        return self._known


def _key(stone: Tombstone) -> tuple[UUID, str, UUID]:
    return stone.tenant_id, stone.unit_hash, stone.id


def _plain(stone: Tombstone) -> dict[str, Any]:
    return {"tenant": str(stone.tenant_id), "unit": stone.unit_hash, "id": str(stone.id), "at": stone.at.isoformat()}


def _parsed(line: bytes) -> Tombstone | None:
    try:
        plain = json.loads(line)
        return Tombstone(UUID(plain["tenant"]), str(plain["unit"]), UUID(plain["id"]), datetime.fromisoformat(plain["at"]))
    except (ValueError, TypeError, KeyError):
        return None
