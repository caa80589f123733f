"""What a machine serves by when its database is away: the picture's rows on its own disk, sealed, in portions under one head.

A change rewrites the portion of the tenants that changed, and the head, which names each portion and what is in it: so a state is as
its head says, or it is refused. Nothing of an earlier one stays on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import orjson

from app.tenancy.sealed_files import UnreadableSecret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.db.frozen import Plain
    from app.tenancy.sealed_files import SealedFolder

FORMAT = 1
HEAD = "head"
_PART = "part-"
_TRIES = 3  # whoever writes meanwhile may have removed a portion that was just named

Tenants = dict[UUID, "Plain"]


class StateRefused(Exception):
    """What lies on the disk is not to be served by. The text says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where a portion lies, and the sha256 of what is in it."""

    file: str
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """`confirmed_ms`: Unix time at which the database last said that this is how things are.

    `mark`: what the outbox says of the generation, by which a database with another past is told from this one.
    """

    generation: int
    confirmed_ms: int
    parts: dict[str, Part] = field(default_factory=dict)
    mark: str = ""


def part_of(tenant_id: UUID) -> str:
    """The portion in which a tenant is: one of 256."""
    return tenant_id.hex[:2]


class LastGoodFiles:
    """The files of one machine. `shape`: of the rows; those of another program are not read."""

    def __init__(self, folder: SealedFolder, shape: str) -> None:
        self._folder, self._shape = folder, shape

    def head(self) -> Head | None:
        """None where nothing was written yet. Raises StateRefused."""
        try:
            raw = self._folder.read(HEAD)
            if raw is None:
                return None
            return self._parsed(orjson.loads(raw))
        except (UnreadableSecret, OSError) as error:
            raise StateRefused(f"its head: {error}") from None
        except (ValueError, TypeError, KeyError):
            raise StateRefused("its head is none") from None

    def _parsed(self, said: Any) -> Head:
        if said["format"] != FORMAT:
            raise StateRefused(f"it has format {said['format']!r}, and this program reads {FORMAT}")
        if said["shape"] != self._shape:
            raise StateRefused("another version of the program wrote it, whose rows have other columns")
        parts = {name: Part(str(file), str(digest)) for name, (file, digest) in said["parts"].items()}
        return Head(int(said["generation"]), int(said["confirmed"]), parts, str(said["mark"]))

    def part(self, name: str, part: Part) -> Tenants:
        """What is in a portion. Raises StateRefused, FileNotFoundError."""
        found: dict[str, Plain] = orjson.loads(zlib.decompress(self._packed(name, part)))
        return {UUID(tenant): rows for tenant, rows in found.items()}

    def sound(self, head: Head) -> dict[str, Part]:
        """The portions that are as the head says."""
        found = {}
        for name, part in head.parts.items():
            with contextlib.suppress(StateRefused, FileNotFoundError):
                self._packed(name, part)
                found[name] = part
        return found

    def _packed(self, name: str, part: Part) -> bytes:
        try:
            packed = self._folder.read(part.file, _PART + name)
        except (UnreadableSecret, OSError) as error:
            raise StateRefused(f"portion {name}: {error}") from None
        if packed is None:
            raise FileNotFoundError(part.file)
        if hashlib.sha256(packed).hexdigest() != part.digest:
            raise StateRefused(f"portion {name} is an older one")
        return packed

    def read(self) -> tuple[Head, list[Plain]] | None:
        """All of it; None where nothing was written yet. Raises StateRefused."""
        for _ in range(_TRIES):
            head = self.head()
            if head is None:
                return None
            try:
                return head, list(self._rows(head))
            except FileNotFoundError:
                continue
        raise StateRefused("a portion is missing")

    def _rows(self, head: Head) -> Iterator[Plain]:
        for name, part in head.parts.items():
            yield from self.part(name, part).values()

    def write_part(self, name: str, tenants: Tenants, before: Part | None) -> Part | None:
        """The portion as it is named from now on: `before` where nothing changed, None where nothing is in it. Raises OSError."""
        if not tenants:
            return None
        plain = {str(tenant): tenants[tenant] for tenant in sorted(tenants)}
        packed = zlib.compress(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), 1)
        digest = hashlib.sha256(packed).hexdigest()
        if before is not None and before.digest == digest:
            return before
        file = f"{_PART}{name}-{uuid4().hex}"
        self._folder.write(file, packed, _PART + name)
        return Part(file, digest)

    def write_head(self, head: Head) -> None:
        """From now on the state is this one; portions of no use are gone when this returns. Raises OSError."""
        said = {"format": FORMAT, "shape": self._shape, "generation": head.generation, "confirmed": head.confirmed_ms}
        said["mark"] = head.mark
        parts = {name: (part.file, part.digest) for name, part in head.parts.items()}
        self._folder.write(HEAD, orjson.dumps(said | {"parts": parts}))
        named = {HEAD} | {part.file for part in head.parts.values()}
        for path in self._folder.path.iterdir():
            stale = path.name.startswith((_PART, f".{_PART}", f".{HEAD}."))
            if stale and path.name not in named:
                path.unlink(missing_ok=True)
