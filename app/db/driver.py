"""The driver, bare: connections, their failures as ours, and a loop for those who have none.

Apart from the engine so that the parent process and the drain, which need no SQLAlchemy, start without importing it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from app.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_RETRY_AFTER_MS = 500
# Classes and codes of SQLSTATE that say "not now": lost connections, no room, shutting down, timeouts, deadlocks, a read-only standby.
# Source: PostgreSQL documentation, appendix A.
_NOT_NOW_CLASSES = ("08", "53", "57", "40")
_NOT_NOW = {"55P03", "25P03", "25P04", "25006"}
_REFUSED_CLASSES = ("28", "3D")  # the login, the database name


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
        raise unavailable() from error


def plain_dsn(url: str) -> str:
    """`url` as the driver takes it, whatever dialect prefix it came with. The text of a bad URL is never shown: it holds a password."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigurationError("A database URL must look like postgresql://user:password@host:5432/database.")
    return f"postgresql://{rest}"


@contextmanager
def translated() -> Iterator[None]:
    """Inside, a database that is gone, full or too slow raises Unavailable; other errors of the driver pass."""
    try:
        yield
    except TimeoutError as error:
        raise unavailable() from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # the latter: asked while the server's last words arrive
        raise unavailable() from error
    except asyncpg.PostgresError as error:
        if not_now(error):
            raise unavailable() from error
        raise


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


def not_now(error: object) -> bool:
    """Whether the SQLSTATE of `error` says that the same may succeed later."""
    state = str(getattr(error, "sqlstate", None) or "")
    return state.startswith(_NOT_NOW_CLASSES) or state in _NOT_NOW


def unavailable() -> Unavailable:
    """What every outage of the database looks like to callers."""
    return Unavailable("The database cannot answer right now. Try again.", retry_after_ms=_RETRY_AFTER_MS)
