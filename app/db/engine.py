"""How Turnout connects: plain PostgreSQL URLs, timeouts on everything, and one place where the driver's failures become ours."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.db.breaker import away
from app.db.driver import connect, not_now, plain_dsn, run_blocking, unavailable
from app.db.driver import translated as driver_translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import ExceptionContext

    from app.db.breaker import DatabaseBreaker

__all__ = [
    "Timeouts",
    "connect",
    "is_outage",
    "make_engine",
    "plain_dsn",
    "run_blocking",
    "translated",
    "violated_constraint",
]  # the driver's too: who has the engine needs no second address


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the database may take. The server cancels first (`statement_s`); `command_s` is for a server that is frozen."""

    connect_s: float = 1.8
    statement_s: float = 1.5
    command_s: float = 1.8
    lock_s: float = 0.5
    idle_in_transaction_s: float = 5.0
    pool_s: float = 1.8  # waiting for a free connection: short transactions queue, they do not fail


def make_engine(
    url: str,
    timeouts: Timeouts,
    *,
    server_settings: Mapping[str, str] | None = None,
    breaker: DatabaseBreaker | None = None,
    **options: Any,
) -> AsyncEngine:
    """An engine over `url`; `options` are SQLAlchemy's. Its connections raise Unavailable where none can be made.

    `breaker`: asked before each new connection, and before one of the pool is used.
    """
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

    async def connect_in_turn() -> Any:
        return await connect_now() if breaker is None else await breaker.connect(connect_now)

    # Parameters are tenants' data: they stay out of error texts and logs.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect_in_turn, hide_parameters=True, **options)
    event.listen(engine.sync_engine, "handle_error", lambda context: _give_up_late(context, breaker))
    if breaker is not None:
        event.listen(engine.sync_engine, "checkout", lambda *_: _refuse_where_open(breaker))
    return engine


def _give_up_late(context: ExceptionContext, breaker: DatabaseBreaker | None) -> None:
    """A connection whose server did not answer in time is cut: said goodbye to, it would make its caller wait as long again."""
    late = isinstance(context.original_exception, TimeoutError) or (breaker is not None and breaker.is_open)
    if late and context.connection is not None:
        driver = getattr(context.connection.connection, "driver_connection", None)
        if driver is not None:
            driver.terminate()


def _refuse_where_open(breaker: DatabaseBreaker) -> None:
    """Who waited for a connection learns that another caller found nobody meanwhile."""
    if breaker.is_open:
        raise away()


@contextmanager
def translated() -> Iterator[None]:
    """Inside, a database that is gone, full or too slow raises Unavailable; errors that a room may expect (integrity) pass."""
    try:
        with driver_translated():
            yield
    except PoolTimeout as error:
        raise unavailable() from error
    except DBAPIError as error:
        if is_outage(error):
            raise unavailable() from error
        raise


def is_outage(error: DBAPIError) -> bool:
    """Whether the database could not answer, as opposed to having refused what was asked."""
    cause = error.orig.__cause__ if error.orig is not None else None
    return error.connection_invalidated or not_now(error.orig) or not_now(cause) or isinstance(cause, asyncpg.InterfaceError)


def violated_constraint(error: DBAPIError) -> str | None:
    """The name of the constraint that an IntegrityError is about: "uq_models_tenant_id_name"."""
    cause = error.orig.__cause__ if error.orig is not None else None
    name = getattr(cause, "constraint_name", None)
    return None if name is None else str(name)


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
