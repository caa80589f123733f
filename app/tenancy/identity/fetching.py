"""One JSON document over HTTP, bounded in time and size."""

from __future__ import annotations

import json
from typing import Any

import httpx

_LARGEST_DOCUMENT = 512 * 1024


def is_lost(error: Exception) -> bool:
    """Whether the connection failed: what an issuer answered is not asked for again."""
    return isinstance(error, httpx.TransportError)


async def download(url: str, timeout_s: float) -> Any:
    """The document; raises httpx's errors, and ValueError for one that is too large or no JSON. Follows no redirect."""
    async with (
        httpx.AsyncClient(timeout=timeout_s, follow_redirects=False) as client,
        client.stream("GET", url, headers={"Accept": "application/json"}) as response,
    ):
        response.raise_for_status()
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > _LARGEST_DOCUMENT:
                raise ValueError("document too large")
    return json.loads(body)
