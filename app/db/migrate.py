"""Bringing a database to a revision of the one history under `migrations/`; one migration at a time, whoever starts it."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.db.engine import make_engine, run_blocking, translated
from app.db.owner import PATIENT
from app.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_LOCK = 0x7475726E6F7574  # "turnout" as a number; every migration of Turnout takes this advisory lock
_NO_PRIVILEGE, _NO_OBJECT, _LOCK_NOT_AVAILABLE = "42501", "42704", "55P03"
_LOCK_WAIT_MS = 500
_TRY_FOR_S, _LONGEST_PAUSE_S = 60.0, 2.0


def upgrade(owner_url: str, revision: str = "head", say: Callable[[str], None] = lambda _: None) -> None:
    """Brings the database up to `revision`; `say` hears one line a migration. Waits up to a minute for another migration to end.

    Safe beside a service at work: no statement waits for a table longer than `_LOCK_WAIT_MS`, behind which everybody else would queue. A
    migration that meets a table in use is taken back and tried again, for up to `_TRY_FOR_S`. Raises Unavailable where the database is away
    or its tables stay locked, ConfigurationError where it refuses the login.
    """

    def work(connection: Connection) -> None:
        config = _config(connection, say)
        command.upgrade(config, revision)
        _tell_oldest_code(connection, config)

    end = time.monotonic() + _TRY_FOR_S
    pause_s = 0.1
    while True:
        try:
            with_owner(owner_url, work)
        except _TableInUse:
            if time.monotonic() >= end:
                raise Unavailable(f"A table stayed in use for {_TRY_FOR_S:.0f} s: try again when less is going on.") from None
            say("a table is in use: trying again")
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, no secret
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        else:
            return


def downgrade(owner_url: str, revision: str, say: Callable[[str], None] = lambda _: None) -> None:
    """Takes the database down to `revision`; "base" leaves nothing of ours. Data of dropped tables is gone."""
    with_owner(owner_url, lambda connection: command.downgrade(_config(connection, say), revision))


def current(owner_url: str) -> str | None:
    """The database's revision; None: nothing was migrated yet."""
    found: list[str | None] = []
    with_owner(owner_url, lambda connection: found.append(MigrationContext.configure(connection).get_current_revision()), lock=False)
    return found[0]


def head() -> str | None:
    """The newest revision there is."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def is_current(owner_url: str) -> bool:
    """Whether the database is at the newest revision."""
    return current(owner_url) == head()


class _TableInUse(Exception):
    """A statement of a migration waited for a lock for as long as it may."""


def _tell_oldest_code(connection: Connection, config: Config) -> None:
    """Leaves beside the revision which older code may go on with this schema; older code reads it (supervisor/revision)."""
    revision = MigrationContext.configure(connection).get_current_revision()
    script = None if revision is None else ScriptDirectory.from_config(config).get_revision(revision)
    if script is not None:
        oldest = getattr(script.module, "oldest_code", script.revision)
        text_of = str(oldest).replace("'", "")
        connection.exec_driver_sql(f"comment on table public.alembic_version is 'oldest code: {text_of}'")
        connection.commit()


@contextmanager
def _refused() -> Iterator[None]:
    """What the owner may not do, or misses, is a matter of set-up."""
    try:
        yield
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == _LOCK_NOT_AVAILABLE:
            raise _TableInUse from error
        if state == _NO_PRIVILEGE:
            raise ConfigurationError(
                f"The owner may not migrate the database: {_first_line(error)}. "
                "It must own the database, or have CREATE on its schema public."
            ) from error
        if state == _NO_OBJECT:
            raise ConfigurationError(
                f"The database is not ready to be migrated: {_first_line(error)}. Make the roles first: `turnout migrate` does so where "
                "the owner has CREATEROLE and no other database URL is set."
            ) from error
        raise


def _first_line(error: DBAPIError) -> str:
    return str(error.orig.__cause__ if error.orig is not None else error).splitlines()[0]


def _config(connection: Connection, say: Callable[[str], None]) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, say=say)
    return config


def with_owner(owner_url: str, work: Callable[[Connection], None], *, lock: bool = True) -> None:
    """Runs `work` over a connection of the owner, alone among migrations unless `lock` is off."""

    async def run() -> None:
        engine = make_engine(owner_url, PATIENT, poolclass=NullPool)
        try:
            with translated(), _refused():
                async with engine.connect() as connection:
                    if lock:
                        await connection.execute(text("set lock_timeout = '60s'"))
                        await connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
                        await connection.execute(text(f"set lock_timeout = {_LOCK_WAIT_MS}"))
                        await connection.commit()  # both outlive this transaction; migrations bring their own
                    await connection.run_sync(work)
        finally:
            await engine.dispose()

    run_blocking(run())
