"""What the reason of a change may be, wherever one is given. Pure."""

from __future__ import annotations

from app.errors import InvalidInput
from app.kernel.names import is_storable

LONGEST_REASON = 1_000


def check_reason(reason: str) -> str:
    """Why something was done, unchanged; raises InvalidInput where it says nothing, too much, or what cannot be stored."""
    if not reason.strip():
        raise InvalidInput("reason is empty: say why, for those who read the audit log.")
    check_optional_reason(reason)
    return reason


def check_optional_reason(reason: str | None) -> str | None:
    """As `check_reason`, where there need not be one."""
    if reason is not None and len(reason) > LONGEST_REASON:
        raise InvalidInput(f"reason has {len(reason):,} characters; at most {LONGEST_REASON:,} are kept.")
    check_storable(reason)
    return reason


def check_storable(reason: str | None) -> None:
    """Returns where a text column can hold it; raises InvalidInput."""
    if reason is not None and not is_storable(reason):
        raise InvalidInput("reason holds a character that cannot be stored: NUL, or half of a surrogate pair.")
