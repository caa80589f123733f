"""What a caller sees of an error: the one mapping from exceptions to GraphQL errors with `extensions {code, retryable, requestId, ...}`.

Nothing else writes an error to the wire. Text reaches it from three places only: an AppError's message, what graphql-core says of the
caller's own document and variables, and the fixed sentence for everything that was not foreseen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog
from graphql import FieldNode, GraphQLError, GraphQLSyntaxError
from graphql.validation.validate import ValidationAbortedError

from app.errors import AppError, InvalidInput, NotFound, PermissionDenied, QueryTooComplex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = structlog.get_logger(__name__)

MASKED = "Something went wrong on our side. Quote the request id to your operator."
MAX_DOCUMENT_ERRORS = 10  # of one document or one set of variables
MAX_FIELD_ERRORS = 100  # of one execution: more than all root fields together
_MAX_MESSAGE = 500  # graphql-core quotes the caller's values
_MAX_OWN_MESSAGE = 5_000  # ours quote names; what a model says of itself has up to 4,000
_SUGGESTION = re.compile(r"\s*Did you mean\b.*\?$", re.DOTALL)
# graphql-core 3.3 has no class of its own for these.
_TOO_LARGE = re.compile(r"Syntax Error: (Document|Source) (contains more than|is nested too deeply)")


class ErrorCode(StrEnum):
    """Every `extensions.code` that leaves this service; each has its entry in docs/errors.md."""

    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
    OPERATION_RESOLUTION_FAILURE = "OPERATION_RESOLUTION_FAILURE"
    BAD_USER_INPUT = "BAD_USER_INPUT"
    BAD_REQUEST = "BAD_REQUEST"
    INTROSPECTION_DISABLED = "INTROSPECTION_DISABLED"
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED"
    QUERY_TOO_COMPLEX = "QUERY_TOO_COMPLEX"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    NOT_PROMOTABLE = "NOT_PROMOTABLE"
    INVALID_FEATURES = "INVALID_FEATURES"
    RATE_LIMITED = "RATE_LIMITED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    MODEL_FAILED = "MODEL_FAILED"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    LOG_UNAVAILABLE = "LOG_UNAVAILABLE"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL_SERVER_ERROR = "INTERNAL_SERVER_ERROR"


# What is not the caller's doing: these count against the service level.
OURS = frozenset(
    {
        ErrorCode.MODEL_FAILED,
        ErrorCode.MODEL_UNAVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.LOG_UNAVAILABLE,
        ErrorCode.UNAVAILABLE,
        ErrorCode.INTERNAL_SERVER_ERROR,
    }
)


class OperationNotFound(InvalidInput):
    code = "OPERATION_RESOLUTION_FAILURE"


class IntrospectionDisabled(PermissionDenied):
    code = "INTROSPECTION_DISABLED"


class PersistedQueryNotFound(NotFound):
    """Clients of the automatic persisted query protocol send the text next, so the message is the protocol's own word."""

    code = "PERSISTED_QUERY_NOT_FOUND"


class PersistedQueryNotSupported(InvalidInput):
    code = "PERSISTED_QUERY_NOT_SUPPORTED"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error before it has a request id, so that a cache may hold it. `details` have their wire names."""

    code: ErrorCode
    message: str
    retryable: bool = False
    locations: tuple[tuple[int, int], ...] = ()  # (line, column), both from 1
    path: tuple[str | int, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def wire(self, request_id: str) -> dict[str, Any]:
        """The error as the response's `errors` holds it."""
        shown: dict[str, Any] = {"message": self.message}
        if self.locations:
            shown["locations"] = [{"line": line, "column": column} for line, column in self.locations]
        if self.path:
            shown["path"] = list(self.path)
        shown["extensions"] = {**self.details, "code": self.code.value, "retryable": self.retryable, "requestId": request_id}
        return shown


class DocumentRefused(Exception):
    """The document cannot be run at all: `problems`, at least one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__("the document was refused")
        self.problems = tuple(problems)


def problem_of(error: AppError) -> Problem:
    """An expected failure as its caller sees it."""
    told = dict(error.details)
    retryable = told.pop("retryable", error.retryable)  # one that never succeeds, of a kind that mostly does
    details = {_camel(name): value for name, value in told.items() if value is not None}
    return Problem(ErrorCode(error.code), error.message, retryable, details=details)


def unforeseen(error: BaseException, request_id: str, where: str) -> Problem:
    """The fixed sentence; the traceback goes to the log, once, under the request id."""
    # graphql-core's own text quotes the document, which may hold feature values: the log gets the message alone.
    shown = RuntimeError(error.message[:_MAX_MESSAGE]) if isinstance(error, GraphQLError) else error
    log.error("unexpected_error", request_id=request_id, where=where, exc_info=(type(shown), shown, error.__traceback__))
    return Problem(ErrorCode.INTERNAL_SERVER_ERROR, MASKED)


class ErrorMapper:
    """graphql-core's errors as ours. `suggestions`: leave "Did you mean" in, which names parts of the schema nobody asked about."""

    def __init__(self, *, suggestions: bool) -> None:
        self._suggestions = suggestions

    def syntax(self, error: GraphQLError) -> Problem:
        """Of a document that could not be parsed."""
        code = ErrorCode.QUERY_TOO_COMPLEX if _TOO_LARGE.match(error.message) else ErrorCode.GRAPHQL_PARSE_FAILED
        return self._problem(code, error)

    def validation(self, error: GraphQLError, request_id: str) -> Problem:
        """Of a document that does not fit the schema. A literal that one of our scalars refuses is bad input, as it is in a variable."""
        if isinstance(error, ValidationAbortedError):
            return self._problem(ErrorCode.QUERY_TOO_COMPLEX, error, "The document is nested too deeply.")
        if _cause(error) is not None:
            return self.input(error, request_id)
        return self._problem(ErrorCode.GRAPHQL_VALIDATION_FAILED, error)

    def input(self, error: GraphQLError, request_id: str) -> Problem:
        """Of a variable or argument whose value does not fit its type."""
        cause = _cause(error)
        if cause is None:
            return self._problem(ErrorCode.BAD_USER_INPUT, error)
        where = error.message.partition(": ")[0] if error.message.startswith(("Variable ", "Argument ")) else ""
        prefix = f"{where}: " if where else ""
        if isinstance(cause, AppError):
            return self._located(problem_of(cause), error, prefix + cause.message)
        if type(cause) is ValueError:  # how a scalar says what is wrong with the caller's own value
            return self._problem(ErrorCode.BAD_USER_INPUT, error, f"{prefix}{cause}")
        unforeseen(cause, request_id, "input")  # a scalar of ours let a foreign exception out: its text may hold anything
        return self._problem(ErrorCode.BAD_USER_INPUT, error, prefix + "this value cannot be read as the type that is asked for.")

    def execution(self, error: GraphQLError, request_id: str, seen: dict[int, Problem]) -> Problem:
        """Of one field. `seen` (one a request) keeps an exception that strikes several fields to one entry in the log."""
        cause = _cause(error)
        if isinstance(cause, AppError):
            return self._located(problem_of(cause), error, cause.message)
        if not error.path or (error.nodes and not isinstance(error.nodes[0], FieldNode)):
            return self.input(error, request_id)  # core blames an argument or a variable, not what the resolver gave back
        surprise = cause or error
        if id(surprise) not in seen:
            seen[id(surprise)] = unforeseen(surprise, request_id, "execution")
        return self._located(seen[id(surprise)], error, MASKED)

    def _problem(self, code: ErrorCode, error: GraphQLError, message: str | None = None) -> Problem:
        return self._located(Problem(code, ""), error, error.message if message is None else message)

    def _located(self, problem: Problem, error: GraphQLError, message: str) -> Problem:
        if not self._suggestions:
            message = _SUGGESTION.sub("", message)
        most = _MAX_OWN_MESSAGE if isinstance(_cause(error), AppError) else _MAX_MESSAGE
        if len(message) > most:
            message = message[:most] + "…"
        locations = tuple((at.line, at.column) for at in (error.locations or ())[:MAX_DOCUMENT_ERRORS])
        path = tuple(error.path or ())
        return Problem(problem.code, message, problem.retryable, locations, path, problem.details)


def too_complex(message: str) -> Problem:
    """A document over one of the limits."""
    return problem_of(QueryTooComplex(message))


def _cause(error: GraphQLError) -> Exception | None:
    """The first exception below graphql-core's wrappers; None where graphql-core itself found the fault."""
    cause: Exception | None = error
    while isinstance(cause, GraphQLError):
        if isinstance(cause, GraphQLSyntaxError):
            return None
        cause = cause.original_error
    return cause


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)
