"""Which browser origins may call. No origin is allowed unless it is named; no cookie is ever used."""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]

EXPOSED = b"Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"
_METHODS = b"GET, POST"
_REQUEST_HEADERS = b"authorization, content-type, accept, x-request-id, traceparent, tracestate"
_MAX_AGE_S = b"600"


class CorsPolicy:
    """`origins` as browsers send them ("https://app.example.org"), or "*" for any; empty: no CORS header at all."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)
        self._any = b"*" in self._origins

    def headers(self, origin: bytes | None) -> Headers:
        """What every answer carries, refusals too: without them a browser hides the error from its own page."""
        if not self._origins:
            return []
        vary = (b"vary", b"Origin")
        if origin is None or not (self._any or origin in self._origins):
            return [vary]
        allowed = b"*" if self._any else origin
        return [vary, (b"access-control-allow-origin", allowed), (b"access-control-expose-headers", EXPOSED)]

    def preflight(self, origin: bytes | None) -> Headers | None:
        """What a permission to ask carries; None where this origin gets none."""
        if origin is None or not (self._any or origin in self._origins):
            return None
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _REQUEST_HEADERS),
            (b"access-control-max-age", _MAX_AGE_S),
        ]
