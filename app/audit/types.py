"""What the audit log holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


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
