"""The error tree. Every expected failure of Turnout is one of these; `app/graphql/errors.py` maps them to the wire, once.

AppError
├── InvalidInput            BAD_USER_INPUT
│   ├── InvalidFeatures     INVALID_FEATURES       (problems: one entry a column)
│   └── BadRequest          BAD_REQUEST
│       └── PayloadTooLarge PAYLOAD_TOO_LARGE
├── Unauthenticated         UNAUTHENTICATED
├── PermissionDenied        FORBIDDEN
├── TenantSuspended         TENANT_SUSPENDED
├── NotFound                NOT_FOUND              (word for word the same for another tenant's thing)
├── Conflict                CONFLICT
│   └── NotPromotable       NOT_PROMOTABLE         (blockers: code, message, overridable)
├── LimitExceeded
│   ├── RateLimited         RATE_LIMITED
│   ├── QuotaExceeded       QUOTA_EXCEEDED
│   └── QueryTooComplex     QUERY_TOO_COMPLEX
├── ModelFailed             MODEL_FAILED           (problems)
└── Unavailable             UNAVAILABLE
    ├── ModelUnavailable    MODEL_UNAVAILABLE
    ├── LogUnavailable      LOG_UNAVAILABLE
    └── DeadlineExceeded    DEADLINE_EXCEEDED
"""

from __future__ import annotations

from typing import Any, ClassVar


class AppError(Exception):
    """An expected failure that the caller is told about.

    `message` is for people and goes over the wire: no secret, no path, no SQL, nothing of another tenant.
    `details` go into the error's extensions under their camelCase names (`retry_after_ms` becomes `retryAfterMs`).
    """

    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidInput(AppError):
    code = "BAD_USER_INPUT"


class InvalidFeatures(InvalidInput):
    """`problems`: a list of {name, problem, expected, got}, one a column."""

    code = "INVALID_FEATURES"


class BadRequest(InvalidInput):
    code = "BAD_REQUEST"


class PayloadTooLarge(BadRequest):
    code = "PAYLOAD_TOO_LARGE"


class Unauthenticated(AppError):
    """The message is one fixed text; `reason` is for our log only and never sent."""

    code = "UNAUTHENTICATED"

    def __init__(self, reason: str) -> None:
        super().__init__("A valid bearer token is needed.")
        self.reason = reason


class PermissionDenied(AppError):
    code = "FORBIDDEN"


class TenantSuspended(AppError):
    code = "TENANT_SUSPENDED"


class NotFound(AppError):
    code = "NOT_FOUND"


class Conflict(AppError):
    code = "CONFLICT"


class NotPromotable(Conflict):
    """`blockers`: a list of {code, message, overridable}."""

    code = "NOT_PROMOTABLE"


class LimitExceeded(AppError):
    """Base of the limits; raise one of its children."""


class RateLimited(LimitExceeded):
    code = "RATE_LIMITED"
    retryable = True


class QuotaExceeded(LimitExceeded):
    code = "QUOTA_EXCEEDED"


class QueryTooComplex(LimitExceeded):
    code = "QUERY_TOO_COMPLEX"


class ModelFailed(AppError):
    """The model itself failed on this input; `problems`: a list of {name, problem, expected, got}."""

    code = "MODEL_FAILED"


class Unavailable(AppError):
    code = "UNAVAILABLE"
    retryable = True


class ModelUnavailable(Unavailable):
    code = "MODEL_UNAVAILABLE"


class LogUnavailable(Unavailable):
    code = "LOG_UNAVAILABLE"


class DeadlineExceeded(Unavailable):
    code = "DEADLINE_EXCEEDED"


class ConfigurationError(Exception):
    """A setting, key file or database that Turnout refuses to start with; the text says what to change. Never on the wire."""
