"""What `turnout doctor` says: one finding a line, and whether it is a reason to worry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing; nothing to do
    UNREACHABLE = "unreachable"  # configured, and does not answer
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class Finding:
    area: str
    level: Level
    text: str


def is_healthy(findings: list[Finding]) -> bool:
    """Whether nothing is unsafe and everything configured answers."""
    return not any(finding.level in {Level.UNSAFE, Level.UNREACHABLE} for finding in findings)
