"""The doctor's look at the server by which machines share limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.cli.findings import Finding, Level
from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.settings import Settings


def limit_findings(settings: Settings) -> Iterator[Finding]:
    """Without a server there is nothing to say."""
    if settings.limits.redis_url is None:
        return
    from app.tenancy.limits.shared_store import examine  # redis takes a while to import, and most have none

    url = settings.limits.redis_url.value
    try:
        yield Finding("limits", Level.OK, f"shared between machines: {asyncio.run(examine(url))}")
    except Unavailable as error:
        yield Finding("limits", Level.UNREACHABLE, f"{error.message}: each machine holds its share of every limit")
    parts = urlsplit(url)
    if parts.scheme == "redis" and parts.password is None and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        yield Finding(
            "limits", Level.NOTE, "TURNOUT_REDIS_URL has neither a password nor TLS: whoever reaches that server sets every limit"
        )
