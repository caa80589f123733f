"""What the log says: one JSON object a line on stderr, or one line for people where stderr is a terminal.

Callers name what happened (`log.info("model.loaded", version=3)`); what a request has in common is bound with
`structlog.contextvars.bind_contextvars`, but for its id, which costs less as a variable of its own (`logged_request_id`). Feature values
and secrets are not logged; the processors here are the second line behind that rule, not the rule.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import structlog

from app.errors import ConfigurationError
from app.kernel.context import logged_request_id

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType

    Event = MutableMapping[str, Any]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SECRET_KEYS = frozenset(
    {
        "api_key", "authorization", "body", "cookie", "dsn", "features", "headers", "inputs", "master_key", "matrix", "password",
        "private_key", "query", "row", "rows", "sample", "secret", "token", "unit", "values", "variables", "x-api-key",
    }
)  # fmt: skip
_NUMBERS_PASS = frozenset({"rows", "sample", "values"})  # how many rows is no secret, which rows is
_SECRET_TEXT = re.compile(r"eyJ[\w-]{4,}\.[\w-]+\.[\w-]*|(?i:bearer)\s+\S+|://[^\s/@]+@")
# Messages of these are ours or the system's. Others (ValueError: "could not convert string to float: '...'") quote data.
_QUOTES_NO_DATA = (ConfigurationError, OSError, ImportError, NameError, AttributeError, NotImplementedError, MemoryError)
_LONGEST = 2000
_DEPTH = 4
_OMITTED = "[omitted]"


def configure(level: str, process: str, stream: TextIO | None = None) -> None:
    """From now on all logs of this process, also those of libraries, go to `stream` (stderr) in one form.

    `level`: debug, info, warning or error. `process`: which of the machine's processes speaks ("serving-0", "drain").
    Raises ConfigurationError for another level.
    """
    if level.lower() not in _LEVELS:
        raise ConfigurationError(f"TURNOUT_LOG_LEVEL is {level!r}; it must be one of {', '.join(_LEVELS)}.")
    stream = stream or sys.stderr
    number = _LEVELS[level.lower()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        name_request,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _Stamp(process),
        explain_exception,
        redact,
    ]
    render = _for_people if stream.isatty() else _as_json
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    _tame_libraries(number)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _tame_libraries(number: int) -> None:
    for name in ("uvicorn", "uvicorn.error", "sqlalchemy", "asyncio", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # Access lines hold query strings, and a GET's query string holds variables: rows.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate, access.disabled = False, True
    # At INFO these two log statements, tokens' issuers and URLs.
    for name in ("sqlalchemy", "httpx", "httpcore", "asyncio", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class _Stamp:
    """Time (UTC, milliseconds) and process, on every line."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        event["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event["process"] = self._process
        return event


def name_request(_logger: Any, _method: str, event: Event) -> Event:
    """Which request it was about."""
    request_id = logged_request_id.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def explain_exception(_logger: Any, _method: str, event: Event) -> Event:
    """Where an exception came from, and its text only where that cannot quote data."""
    given = event.pop("exc_info", None)
    if not given:
        return event
    error: BaseException | None = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if error is not None:
        event["exception"] = {"type": type(error).__name__, "frames": _frames(error.__traceback__)}
        if isinstance(error, _QUOTES_NO_DATA):
            event["exception"]["message"] = str(error)
        if error.__cause__ is not None:
            event["exception"]["cause"] = type(error.__cause__).__name__
    return event


def _frames(trace: TracebackType | None) -> list[str]:
    """Innermost last; file, line and function, never the source line nor local values."""
    return [f"{'/'.join(f.filename.split('/')[-3:])}:{f.lineno} {f.name}" for f in traceback.extract_tb(trace)[-12:]]


def redact(_logger: Any, _method: str, event: Event) -> Event:
    """`event` without the values of keys that name secrets or features, and without tokens and passwords inside texts."""
    return {key: _clean(key, value, 0) for key, value in event.items()}


def _clean(key: str, value: Any, depth: int) -> Any:
    if key.lower() in _SECRET_KEYS and not (key.lower() in _NUMBERS_PASS and isinstance(value, int)):
        return _OMITTED
    if isinstance(value, str):
        return _SECRET_TEXT.sub(_OMITTED, value[:_LONGEST])
    if isinstance(value, dict):
        return {str(k): _clean(str(k), v, depth + 1) for k, v in value.items()} if depth < _DEPTH else _OMITTED
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", item, depth + 1) for item in value] if depth < _DEPTH else _OMITTED
    return value


def _as_json(_logger: Any, _method: str, event: Event) -> str:
    ordered = {name: event.pop(name) for name in ("time", "level", "event") if name in event}
    return orjson.dumps(ordered | dict(event), default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _for_people(_logger: Any, _method: str, event: Event) -> str:
    time, level, name = event.pop("time", ""), event.pop("level", ""), event.pop("event", "")
    rest = " ".join(f"{key}={value}" for key, value in event.items() if key != "_record")
    return f"{time[11:23]} {level:7} {name}  {rest}".rstrip()
