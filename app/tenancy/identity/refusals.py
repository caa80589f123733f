"""Why a token was refused: a fixed list of words for our log. None of them holds a piece of the token."""

from __future__ import annotations

from enum import StrEnum

from app.errors import Unauthenticated


class Refusal(StrEnum):
    MISSING = "missing"  # no Authorization header
    SCHEME = "scheme"  # not "Bearer <token>"
    TOO_LONG = "too_long"
    MALFORMED = "malformed"  # not three base64url segments of strict JSON objects
    HEADER = "header"  # a header that is forbidden or has the wrong type
    ISSUER = "issuer"
    ALGORITHM = "algorithm"  # not of the issuer's list
    KEY = "key"  # the issuer has no such key
    SIGNATURE = "signature"
    TIMES = "times"  # exp, nbf or iat missing or not a number
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME = "lifetime"  # longer than any token may live
    AUDIENCE = "audience"
    CLAIM = "claim"  # one that the issuer must set, and to which value, is otherwise
    SUBJECT = "subject"
    TENANT = "tenant"  # claim missing, ambiguous, not a name, or none that this issuer may name
    UNIT = "unit"
    UNKNOWN_TENANT = "unknown_tenant"
    REVOKED = "revoked"
    UNEXPECTED = "unexpected"  # the library failed in a way we did not foresee


def refused(reason: Refusal) -> Unauthenticated:
    return Unauthenticated(reason.value)
