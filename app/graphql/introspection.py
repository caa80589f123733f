"""Who may ask what the schema looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.kernel.context import Role

if TYPE_CHECKING:
    from app.kernel.context import RequestContext


def may_introspect(ctx: RequestContext, *, development: bool) -> bool:
    """Everybody in development; platform operators anywhere."""
    return development or Role.OPERATOR in ctx.roles
