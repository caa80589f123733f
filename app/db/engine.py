"""How Turnout connects: plain PostgreSQL URLs, timeouts on everything, and one place where the driver's failures become ours."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import AppError, ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

T = TypeVar("T")

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_RETRY_AFTER_MS = 500
# Classes and codes of SQLSTATE that say "not now": lost connections, no room, shutting down, timeouts, deadlocks, a read-only standby.
# Source: PostgreSQL documentation, appendix A.
_NOT_NOW_CLASSES = ("08", "53", "57", "40")
_NOT_NOW = {"55P03", "25P03", "25P04", "25006"}
_REFUSED_CLASSES = ("28", "3D")  # the login, the database name


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the database may take. The server cancels first (`statement_s`); `command_s` is for a server that is frozen."""

    connect_s: float = 2.0
    statement_s: float = 1.5
    command_s: float = 2.0
    lock_s: float = 0.5
    idle_in_transaction_s: float = 5.0
    pool_s: float = 2.0  # waiting for a free connection: short transactions queue, they do not fail


def make_engine(url: str, timeouts: Timeouts, *, server_settings: Mapping[str, str] | None = None, **options: Any) -> AsyncEngine:
    """An engine over `url`; `options` are SQLAlchemy's. Its connections raise Unavailable where none can be made."""
    dsn = plain_dsn(url)
    settings = {
        "application_name": "turnout",
        "timezone": "UTC",
        "search_path": "public",  # nothing in a schema of the role's name, or set for the role, takes a table's place
        "statement_timeout": _ms(timeouts.statement_s),
        "lock_timeout": _ms(timeouts.lock_s),
        "idle_in_transaction_session_timeout": _ms(timeouts.idle_in_transaction_s),
        **(server_settings or {}),
    }

    async def connect_now() -> Any:
        return await connect(dsn, timeout_s=timeouts.connect_s, command_timeout=timeouts.command_s, server_settings=settings)

    # Parameters are tenants' data: they stay out of error texts and logs.
    return create_async_engine("postgresql+asyncpg://", async_creator=connect_now, hide_parameters=True, **options)


async def connect(url: str, *, timeout_s: float = 5.0, **options: Any) -> Any:
    """A connection of the driver (asyncpg). Raises Unavailable where no server answers, ConfigurationError where it refuses the login."""
    try:
        return await asyncpg.connect(plain_dsn(url), timeout=timeout_s, **options)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        state = str(getattr(error, "sqlstate", None) or "")
        if state.startswith(_REFUSED_CLASSES):
            raise ConfigurationError(
                f"The database refuses the login: {error}. Check user, password and database name of its URL."
            ) from error
        raise _unavailable() from error


def plain_dsn(url: str) -> str:
    """`url` as the driver takes it, whatever dialect prefix it came with. The text of a bad URL is never shown: it holds a password."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigurationError("A database URL must look like postgresql://user:password@host:5432/database.")
    return f"postgresql://{rest}"


@contextmanager
def translated() -> Iterator[None]:
    """Inside, a database that is gone, full or too slow raises Unavailable; errors that a room may expect (integrity) pass."""
    try:
        yield
    except AppError:
        raise
    except (PoolTimeout, TimeoutError) as error:
        raise _unavailable() from error
    except DBAPIError as error:
        if is_outage(error):
            raise _unavailable() from error
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, asyncpg.InterfaceError) or _not_now(error):
            raise _unavailable() from error
        raise


def is_outage(error: DBAPIError) -> bool:
    """Whether the database could not answer, as opposed to having refused what was asked."""
    cause = error.orig.__cause__ if error.orig is not None else None
    return error.connection_invalidated or _not_now(error.orig) or _not_now(cause) or isinstance(cause, asyncpg.InterfaceError)


def violated_constraint(error: DBAPIError) -> str | None:
    """The name of the constraint that an IntegrityError is about: "uq_models_tenant_id_name"."""
    cause = error.orig.__cause__ if error.orig is not None else None
    name = getattr(cause, "constraint_name", None)
    return None if name is None else str(name)


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, for callers without an event loop; inside one, a thread of its own runs it."""
    if asyncio._get_running_loop() is None:  # noqa: SLF001  documented for library authors; the other one raises
        return asyncio.run(work)
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=run, name="database")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _not_now(error: object) -> bool:
    state = str(getattr(error, "sqlstate", None) or "")
    return state.startswith(_NOT_NOW_CLASSES) or state in _NOT_NOW


def _unavailable() -> Unavailable:
    return Unavailable("The database cannot answer right now. Try again.", retry_after_ms=_RETRY_AFTER_MS)


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
