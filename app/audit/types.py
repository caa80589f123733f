"""What the audit log holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


class Person(str):
    """The name of somebody inside `before` or `after`: kept as a pseudonym, as actors are, and shown as the name until that is cut."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who changed what, and why. `before` and `after` are JSON; None where there is nothing to show."""

    id: UUID
    at: datetime
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    reason: str | None


@dataclass(frozen=True, slots=True)
class AuditKeys:
    """A tenant's keys, 32 bytes each: `chain` seals entries, `people` makes pseudonyms."""

    chain: bytes = field(repr=False)
    people: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for; None: all. `actor` is a name or a pseudonym; times from `start` up to, not including, `end`."""

    subject: str | None = None
    actor: str | None = None
    action: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain does not hold first. `sequence` counts a tenant's entries from 1; 0: before the first."""

    sequence: int
    what: str
    entry_id: UUID | None = None

    def __str__(self) -> str:
        entry = "" if self.entry_id is None else f" ({self.entry_id})"
        return f"entry {self.sequence}{entry} {self.what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying a tenant's log found: how many entries hold, how many are older than the chain, and where it breaks first."""

    entries: int
    older: int
    broken: Break | None
