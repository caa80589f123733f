"""Tokens from this machine's development key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.kernel.clock import SystemClock
from app.tenancy.identity.development import DevelopmentIssuer

if TYPE_CHECKING:
    from app.kernel.context import Role
    from app.settings import Settings

PLATFORM = "platform"  # in the token of an operator who acts in no tenant


def mint(settings: Settings, tenant: str | None, subject: str, roles: tuple[Role, ...], ttl_s: int) -> str:
    """A signed token; raises ConfigurationError in production, InvalidInput for a lifetime beyond a day."""
    return DevelopmentIssuer.load_or_create(settings).mint(SystemClock(), tenant or PLATFORM, subject, roles, ttl_s)
