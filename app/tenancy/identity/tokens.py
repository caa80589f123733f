"""A bearer token taken apart, before anything in it is believed.

Source: RFC 7515 section 7.1 (compact serialisation), RFC 8725 (best practices for JSON web tokens).
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any

from app.tenancy.identity.refusals import Refusal, refused

LONGEST_TOKEN = 8 * 1024  # bytes
LONGEST_KEY_ID = 200
_MOST_BRACKETS = 256  # bounds the depth: how deep the parser goes before it gives up depends on the interpreter
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}
# Keys that a token brings along, extensions that we would have to understand, and encryption: none is ever needed.
_FORBIDDEN = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """What the token says of itself; nothing is proved yet."""

    algorithm: str
    key_id: str | None
    issuer: str
    claims: dict[str, Any]


def parse_token(token: str) -> UnverifiedToken:
    """The parts of a well-formed token; raises Unauthenticated for anything else, however it is malformed."""
    if len(token) > LONGEST_TOKEN:
        raise refused(Refusal.TOO_LONG)
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise refused(Refusal.MALFORMED)
    header, claims = _json_object(match[1]), _json_object(match[2])
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not _FORBIDDEN.isdisjoint(header) or str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise refused(Refusal.HEADER)
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= LONGEST_KEY_ID):
        raise refused(Refusal.HEADER)
    if not isinstance(algorithm, str):
        raise refused(Refusal.ALGORITHM)
    if not isinstance(issuer, str):
        raise refused(Refusal.ISSUER)
    return UnverifiedToken(algorithm, key_id, issuer, claims)


def _json_object(segment: str) -> dict[str, Any]:
    try:
        text = urlsafe_b64decode(segment + "=" * (-len(segment) % 4)).decode()
        if text.count("{") + text.count("[") > _MOST_BRACKETS:
            raise refused(Refusal.MALFORMED)
        data = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # ValueError: base64, UTF-8, JSON, and numbers of too many digits
        data = None
    if isinstance(data, dict):
        return data
    raise refused(Refusal.MALFORMED)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Whoever signed may have read the first of the two, and we the last.
        raise ValueError("duplicate member")
    return members


def _no_constant(name: str) -> float:
    raise ValueError(name)
