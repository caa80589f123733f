"""The parent's hold on the database: started or reached, brought up to date, checked for holes, kept in partitions.

Only here does the owner's URL live. Migrating imports Alembic, so it happens where there is something to migrate.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from app.db.driver import connect, run_blocking
from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.db.roles import assert_roles, provision_roles, server_warnings
from app.errors import AppError, ConfigurationError, Unavailable
from app.journal.partitions import days_ahead, keep_partitions
from app.kernel.clock import SystemClock
from app.kernel.home import LAST_GOOD
from app.supervisor.console import say, step
from app.supervisor.environment import DatabaseUrls
from app.supervisor.revision import Standing, standing
from app.supervisor.role_file import has_role_file, read_role_urls, write_role_urls
from app.supervisor.tending import Tender

if TYPE_CHECKING:
    from app.settings import Settings

_FEW_DAYS = 3
_ASK_AGAIN_S = 5.0
_REACH_WITHIN_S = 1.0
_GENERATIONS_KEPT = 10_000
_CONFIGURED = "TURNOUT_DATABASE_URL, TURNOUT_DATABASE_LOG_URL and TURNOUT_DATABASE_SYNC_URL"


class Database(Protocol):
    """What the parent does with a database, whoever runs the server."""

    @property
    def away(self) -> bool:
        """Whether it did not answer at `start` and has not since: then serving processes serve by what was last good, or wait."""

    def start(self) -> DatabaseUrls:
        """Where the serving roles connect, once it is safe to serve; raises ConfigurationError that says what is not.

        A database that does not answer is no reason not to start: what would have been looked at is looked at when it does.
        """

    def migrate(self) -> None:
        """Brings tables, roles and partitions to this version; for `turnout migrate`."""

    def check(self) -> None:
        """Once a second: starts a dead server of ours again; looks at one that is back. Raises ConfigurationError as `start`."""

    def maintain(self) -> None:
        """Once an hour: partitions made ahead, expired ones dropped, old news trimmed. Failures are said, not raised."""

    def tend(self) -> None:
        """Several times a second: one slice of what the erased leave behind, and of what is older than its tenant keeps."""

    def tend_all(self) -> None:
        """Everything that `maintain` and `tend` would do by and by, now; for `turnout maintain`. Raises Unavailable, ConfigurationError."""

    def why_not_serve(self) -> str | None:
        """Why serving processes of this code should not be started now, in words; None where they may, or where nobody can tell."""

    def stop(self) -> None:
        """Ends cleanly what `start` or `migrate` began."""


def open_database(settings: Settings) -> Database:
    """The embedded server, or the configured one. Nothing is started yet."""
    return EmbeddedDatabase(settings) if is_embedded(settings) else ExternalDatabase(settings)


def is_embedded(settings: Settings) -> bool:
    """Whether the database is ours to run: none is configured, and `turnout migrate` has made no roles on one for this TURNOUT_HOME."""
    return settings.database.unset and not has_role_file(settings.home)


class EmbeddedDatabase:
    """PostgreSQL below TURNOUT_HOME, ours from start to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server = EmbeddedPostgres(settings.home)
        self._tender: Tender | None = None
        self._away = False
        self._again_at = 0.0

    @property
    def away(self) -> bool:
        return self._away

    def start(self) -> DatabaseUrls:
        """As above; where the server cannot be started and there is no last good state, that is said, and is the end."""
        try:
            self._start_server()
        except ConfigurationError as error:
            if not (self._settings.home / LAST_GOOD).exists():
                raise
            self._away = True
            self._not_now(error)
        else:
            self._prepare()
        return _serving(self._urls())

    def migrate(self) -> None:
        self._start_server()
        self._bring_up()

    def _urls(self) -> dict[DatabaseRole, str]:
        return {role: self._server.url(role) for role in DatabaseRole}

    def _prepare(self) -> None:
        self._bring_up()
        assert_roles(self._urls())

    def _not_now(self, error: ConfigurationError) -> None:
        self._again_at = time.monotonic() + _ASK_AGAIN_S
        say(f"{error} Models answer by what was last good; tried again every {_ASK_AGAIN_S:.0f} s.")

    def _start_server(self) -> None:
        known = (self._settings.home / "pg").exists()
        with step("starting the embedded PostgreSQL" if known else "making the embedded PostgreSQL (the first time takes some seconds)"):
            self._server.start()

    def _bring_up(self) -> None:
        owner = self._server.url(DatabaseRole.OWNER)
        _bring_up(owner)
        _keep_partitions(owner, self._settings.journal.retention_days)
        self._tender = Tender(owner, self._settings.home, SystemClock())
        self._tender.stand_again()

    def check(self) -> None:
        if time.monotonic() < self._again_at:
            return
        try:
            again = self._server.check()
        except ConfigurationError as error:  # its disk is full, say: what needs no database goes on
            self._not_now(error)
            return
        if again:
            say("the embedded PostgreSQL was gone and was started again")
        if self._away:
            self._prepare()
            self._away = False

    def maintain(self) -> None:
        _maintain(self._server.url(DatabaseRole.OWNER), self._settings.journal.retention_days)

    def tend(self) -> None:
        if self._tender:
            self._tender.tend()

    def tend_all(self) -> None:
        self.migrate()
        if self._tender:
            _tend_all(self._tender, self._server.url(DatabaseRole.OWNER))

    def why_not_serve(self) -> str | None:
        return _why_not_serve(self._server.url(DatabaseRole.OWNER))

    def stop(self) -> None:
        if self._tender:
            self._tender.close()
        self._server.stop()


class ExternalDatabase:
    """A PostgreSQL that somebody else runs. Without the owner's URL, partitions, sweeps and retention are `turnout maintain`'s."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        configured = settings.database
        self._owner = configured.owner_url.value if configured.owner_url else None
        given = (configured.runtime_url, configured.log_url, configured.sync_url)
        if any(given) and not all(given):
            raise ConfigurationError(f"{_CONFIGURED} belong together: set all three, or none and TURNOUT_DATABASE_OWNER_URL alone.")
        self._given = [secret.value for secret in given if secret]
        self._tender = Tender(self._owner, settings.home, SystemClock()) if self._owner else None
        self._away = False
        self._again_at = 0.0

    @property
    def away(self) -> bool:
        return self._away

    def start(self) -> DatabaseUrls:
        say("using the configured PostgreSQL")
        urls = self._urls()
        if not self._looked_at(urls):
            self._away = True
            say("it does not answer: models answer by what was last good, where there is something; the rest waits for it")
        return _serving(urls)

    def _looked_at(self, urls: dict[DatabaseRole, str]) -> bool:
        """Whether it answered, and is as it must be; raises ConfigurationError where it is not."""
        self._again_at = time.monotonic() + _ASK_AGAIN_S
        try:
            run_blocking(_reach(urls[DatabaseRole.RUNTIME]))
            self._look_at(urls)
        except Unavailable:
            return False
        return True

    def _look_at(self, urls: dict[DatabaseRole, str]) -> None:
        if self._owner and (problem := _problem(run_blocking(standing(self._owner)))):
            raise ConfigurationError(problem)
        assert_roles(urls | ({DatabaseRole.OWNER: self._owner} if self._owner else {}))
        for warning in server_warnings(urls[DatabaseRole.RUNTIME]):
            say(f"warning: {warning}")
        if self._owner and self._tender:
            _keep_partitions(self._owner, self._settings.journal.retention_days)
            self._tender.stand_again()
        else:
            _warn_of_few_partitions(urls[DatabaseRole.LOG])

    def migrate(self) -> None:
        if self._owner is None:
            raise ConfigurationError("turnout migrate works as the owner of the tables: set TURNOUT_DATABASE_OWNER_URL.")
        if not self._given and read_role_urls(self._settings.home) is None:
            with step("making the roles turnout_runtime, turnout_log and turnout_sync"):
                path = write_role_urls(self._settings.home, provision_roles(self._owner))
            say(f"their URLs are in {path}: keep it, nobody else knows the passwords")
        _bring_up(self._owner)
        _keep_partitions(self._owner, self._settings.journal.retention_days)
        assert_roles(self._urls() | {DatabaseRole.OWNER: self._owner})
        if self._tender:
            self._tender.stand_again()
        say("the database is up to date")

    def check(self) -> None:
        """A server that goes away is a matter of its owner, and serving goes on without it; one that was away is looked at."""
        if self._away and time.monotonic() >= self._again_at and self._looked_at(self._urls()):
            self._away = False
            say("the configured PostgreSQL answers")

    def maintain(self) -> None:
        if self._owner:
            _maintain(self._owner, self._settings.journal.retention_days)

    def tend(self) -> None:
        """Without the owner's URL nothing: what the service may not delete waits for `turnout maintain`."""
        if self._tender and not self._away:
            self._tender.tend()

    def tend_all(self) -> None:
        if self._owner is None or self._tender is None:
            raise ConfigurationError("turnout maintain works as the owner of the tables: set TURNOUT_DATABASE_OWNER_URL.")
        _keep_partitions(self._owner, self._settings.journal.retention_days)
        _tend_all(self._tender, self._owner)

    def why_not_serve(self) -> str | None:
        return _why_not_serve(self._owner) if self._owner else None

    def stop(self) -> None:
        """Nothing of ours runs but a connection."""
        if self._tender:
            self._tender.close()

    def _urls(self) -> dict[DatabaseRole, str]:
        if self._given:
            return dict(zip((DatabaseRole.RUNTIME, DatabaseRole.LOG, DatabaseRole.SYNC), self._given, strict=True))
        urls = read_role_urls(self._settings.home)
        if urls is None:
            raise ConfigurationError(
                f"As whom to connect is not known yet: run turnout migrate, which makes the roles; or set {_CONFIGURED}."
            )
        return urls


async def _reach(url: str) -> None:
    """Raises Unavailable where nobody answers, within moments: a parent has children to look after."""
    connection = await connect(url, timeout_s=_REACH_WITHIN_S)
    await connection.close(timeout=_REACH_WITHIN_S)


def _serving(urls: dict[DatabaseRole, str]) -> DatabaseUrls:
    return DatabaseUrls(urls[DatabaseRole.RUNTIME], urls[DatabaseRole.LOG], urls[DatabaseRole.SYNC])


def _bring_up(owner_url: str) -> None:
    """To this version's newest migration; a newer schema stays, where this version may serve it."""
    state = run_blocking(standing(owner_url))
    if state is Standing.BEHIND:
        from app.db.migrate import upgrade

        with step("migrating the database"):
            upgrade(owner_url, say=lambda line: say(f"  {line}"))
    elif problem := _problem(state):
        raise ConfigurationError(problem)
    elif state is Standing.AHEAD:
        say("the database was migrated by a newer version, which left room for this one")


def _problem(state: Standing) -> str | None:
    if state is Standing.BEHIND:
        return "The database is not at this version's newest migration: run turnout migrate first."
    if state is Standing.FOREIGN:
        return "The database was migrated by a newer version that left no room for this one: install that version."
    return None


def _why_not_serve(owner_url: str) -> str | None:
    try:
        return _problem(run_blocking(standing(owner_url)))
    except (AppError, ConfigurationError):
        return None  # it cannot be asked: what serves now serves without it, too


def _keep_partitions(owner_url: str, retention_days: int) -> None:
    made, dropped = keep_partitions(owner_url, retention_days, SystemClock())
    if made:
        say(f"made {len(made)} day{'s' * (len(made) > 1)} of the prediction log ahead, to {max(made)}")
    if dropped:
        say(f"dropped {len(dropped)} day{'s' * (len(dropped) > 1)} of the prediction log, older than {retention_days} days")


def _maintain(owner_url: str, retention_days: int) -> None:
    try:
        _keep_partitions(owner_url, retention_days)
        _trim_outbox(owner_url)
    except (AppError, ConfigurationError) as error:
        say(f"the database could not be tended ({error}); the next try is in an hour")


def _tend_all(tender: Tender, owner_url: str) -> None:
    _trim_outbox(owner_url)
    rows = tender.finish()
    say(f"{rows} rows of the erased, or older than their tenants keep, are gone" if rows else "nothing was left to delete")


def _trim_outbox(owner_url: str) -> None:
    """A replica that was away for longer than the outbox reaches back reads every tenant anew."""
    from app.db.outbox import trim
    from app.db.owner import owner_tx

    async def work() -> None:
        async with owner_tx(owner_url) as connection:
            await trim(connection, _GENERATIONS_KEPT)

    run_blocking(work())


def _warn_of_few_partitions(log_url: str) -> None:
    ahead = run_blocking(days_ahead(log_url, SystemClock()))
    if ahead < _FEW_DAYS:
        say(
            f"warning: the prediction log has room for {max(ahead, 0)} more days, and this process may not make any: "
            "run turnout maintain every hour, or give the parent TURNOUT_DATABASE_OWNER_URL"
        )
