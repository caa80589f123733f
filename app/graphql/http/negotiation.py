"""Media types and status codes.

Source: GraphQL over HTTP (stage 2 draft) as graphql-http's audit suite tests it: a client that asks for plain JSON gets 200 for a request
whose GraphQL part is wrong, one that asks for `application/graphql-response+json` gets 400.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from app.errors import BadRequest
from app.graphql.errors import ErrorCode

_CACHED_BYTES = 256  # longer headers are read each time, so that nobody fills memory with them
_REQUEST_TYPES = frozenset({"application/json", "application/graphql+json"})


class MediaType(StrEnum):
    """What we answer in, always UTF-8."""

    JSON = "application/json"
    GRAPHQL = "application/graphql-response+json"


class HttpRefusal(BadRequest):
    """A request that is wrong before GraphQL begins; `status` and `headers` of the answer."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


# Whole requests refused: the same whatever the client accepts.
_FIXED_STATUS = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.TENANT_SUSPENDED: 403,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.QUOTA_EXCEEDED: 429,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.MODEL_UNAVAILABLE: 503,
    ErrorCode.LOG_UNAVAILABLE: 503,
    ErrorCode.DEADLINE_EXCEEDED: 503,
    ErrorCode.INTERNAL_SERVER_ERROR: 500,
}


def status_of(code: ErrorCode, media_type: MediaType) -> int:
    """Of an answer without `data`."""
    return _FIXED_STATUS.get(code) or (400 if media_type is MediaType.GRAPHQL else 200)


def response_type(accept: bytes) -> MediaType | None:
    """The media type that an Accept header likes best; None where it takes neither of ours. Empty: plain JSON."""
    return _response_type(accept) if len(accept) <= _CACHED_BYTES else _response_type.__wrapped__(accept)


def check_request_type(content_type: bytes) -> None:
    """Raises HttpRefusal (415) unless the body is JSON in UTF-8. No form type is taken: browsers send those across origins unasked."""
    known = _is_json(content_type) if len(content_type) <= _CACHED_BYTES else _is_json.__wrapped__(content_type)
    if not known:
        raise HttpRefusal(415, "Send the request as Content-Type: application/json, in UTF-8.")


@lru_cache(256)
def _is_json(content_type: bytes) -> bool:
    name, parameters = _media_range(content_type.decode("latin-1").lower())
    return name in _REQUEST_TYPES and parameters.get("charset", "utf-8") in {"utf-8", "utf8"}


@lru_cache(256)
def _response_type(accept: bytes) -> MediaType | None:
    if not accept.strip():
        return MediaType.JSON
    best: tuple[float, int, int] = (0.0, 0, 0)
    chosen: MediaType | None = None
    ranges = [_media_range(part) for part in accept.decode("latin-1").lower().split(",")]
    for media_type in MediaType:
        specificity, quality = _liking(media_type, ranges)
        # Named by the client, the newer type wins; under a wildcard the type that every client can read.
        tie = int((media_type is MediaType.GRAPHQL) == (specificity == 3))
        if quality > 0 and (quality, specificity, tie) > best:
            best, chosen = (quality, specificity, tie), media_type
    return chosen


def _liking(media_type: MediaType, ranges: list[tuple[str, dict[str, str]]]) -> tuple[int, float]:
    """How closely the header names this type (3 exactly, 2 application/*, 1 */*) and the quality that the closest range gives it."""
    closeness = {media_type.value: 3, "application/*": 2, "*/*": 1}
    found = (0, 0.0)
    for name, parameters in ranges:
        near = closeness.get(name, 0)
        if near and parameters.get("charset", "utf-8") in {"utf-8", "utf8"}:
            found = max(found, (near, _quality(parameters.get("q", "1"))))
    return found


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _media_range(text: str) -> tuple[str, dict[str, str]]:
    name, *parameters = text.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return name.strip(), {key.strip(): value.strip().strip('"') for key, _, value in pairs}
