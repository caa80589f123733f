"""A PostgreSQL server of our own below TURNOUT_HOME: made at the first start, stopped with its owner, kept private by passwords."""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from app.db.driver import connect, run_blocking
from app.db.embedded.place import Place, find_place
from app.db.embedded.postmaster import PORT, answers, clear_stale_lock, environment, launch
from app.db.privileges import DatabaseRole
from app.db.roles import embedded_statements
from app.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DATABASE = "turnout"
_SUPERUSER = "postgres"
_START_TIMEOUT_S = 60.0  # a server that died by power loss replays its log first
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.01


class EmbeddedPostgres:
    """The embedded server of one TURNOUT_HOME. Whoever starts it first owns it; others join it.

    `settings` are PostgreSQL's, over ours. With `die_with_parent` (Linux) the server shuts down cleanly even when its owner is
    killed; it must then be started from the main thread, because the kernel ties it to the thread that started it.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None, *, die_with_parent: bool = True) -> None:
        self._home = home.absolute()
        self._settings = dict(settings or {})
        self._die_with_parent = die_with_parent
        self._found: Place | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Whether this call started the server (else it joined a running one). Then it takes logins of all four roles.

        Raises ConfigurationError that says what to change.
        """
        if self._die_with_parent and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded server dies with the thread that starts it: start it from the main thread")
        place = self._found = find_place(self._home)
        with _alone(place.ours / "lock"):
            started = self._start(place)
            self._provision(place)
        return started

    def join(self) -> bool:
        """Whether the server runs already; then `url` works. Starts and makes nothing, for those who only look."""
        if not (self._home / "pg" / "provisioned").exists():
            return False
        self._found = find_place(self._home)
        return answers(self._found) is True

    def stop(self) -> None:
        """Shuts down the server where this object owns it: clients are disconnected, data is clean. Otherwise does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def check(self) -> bool:
        """Whether the server was gone and was started again; for the owner to call about once a second, from the main thread.

        Reaps a dead server: PostgreSQL takes a zombie for a running one. A joined server whose owner is gone becomes ours.
        """
        if self._found is None:
            return False
        if self._process is None:
            return answers(self._found) is None and self.start()
        if self._process.poll() is None:
            return False
        self._process = None
        return self.start()

    def url(self, role: DatabaseRole, database: str = DATABASE) -> str:
        """The URL with which `role` connects; it holds the role's password."""
        return self._url(role.value, database)

    def _superuser_url(self, database: str = "postgres") -> str:
        return self._url(_SUPERUSER, database)

    def _url(self, user: str, database: str) -> str:
        if self._found is None:
            raise RuntimeError("the embedded server was not started")
        host = quote(str(self._found.sockets), safe="/")
        return f"postgresql://{user}:{_password(self._found, user)}@/{database}?host={host}&port={PORT}"

    def _start(self, place: Place) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (there := answers(place)) is not None:
            if there:
                return False
            _wait(deadline, place, "neither starts nor stops")
        if not (place.data / "PG_VERSION").exists():
            _init(place, sync=self._settings.get("fsync") != "off")
        clear_stale_lock(place.data)
        self._process = None
        while answers(place) is not True:
            _wait(deadline, place, "does not start")
            if self._process is None or self._process.poll() is not None:
                # A server killed just now may have left processes that hold its shared memory for a moment: try until they are gone.
                if self._process is not None:
                    _fail_if_hopeless(place)
                    time.sleep(0.1)
                self._process = launch(place, self._settings, die_with_parent=self._die_with_parent)
        return self._process is not None

    def _provision(self, place: Place) -> None:
        """Makes the roles and the database, once."""
        done = place.ours / "provisioned"
        if done.exists():
            return
        passwords = {user: _password(place, user) for user in (*DatabaseRole, _SUPERUSER)}

        async def run() -> None:
            connection = await connect(self._superuser_url())
            try:
                existing = {row["rolname"] for row in await connection.fetch("select rolname from pg_roles")}
                for statement in embedded_statements(passwords, existing):
                    await connection.execute(statement)
                if not await connection.fetchval("select 1 from pg_database where datname = $1", DATABASE):
                    await connection.execute(f"create database {DATABASE} owner {DatabaseRole.OWNER}")
                await connection.execute(f"revoke all on database {DATABASE} from public")
                await connection.execute(f"grant connect on database {DATABASE} to {', '.join(DatabaseRole)}")
            finally:
                await connection.close()

        run_blocking(run())
        done.touch(mode=0o600)


def _init(place: Place, *, sync: bool) -> None:
    """Makes the data folder: elsewhere first, then renamed, so that a killed attempt leaves nothing that looks whole."""
    _require_account_name(place)
    partial, words = place.store / "data.partial", place.store / "initial"
    shutil.rmtree(partial, ignore_errors=True)
    words.unlink(missing_ok=True)
    partial.mkdir(mode=0o700)
    place.give(partial)
    with os.fdopen(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_password(place, _SUPERUSER))
    place.give(words)
    command = [str(place.binaries.folder / "initdb"), "-D", str(partial), "-U", _SUPERUSER, f"--pwfile={words}"]
    command += ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--data-checksums", "--no-instructions"]
    made = subprocess.run(
        command if sync else [*command, "--no-sync"],
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        **place.as_account(),
    )
    words.unlink()
    if made.returncode != 0:
        raise ConfigurationError(f"The embedded database could not be made in {place.store}: {made.stderr.strip()}")
    partial.rename(place.data)


def _require_account_name(place: Place) -> None:
    uid = os.geteuid() if place.account is None else place.account.uid
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(
            f"User number {uid} has no entry in /etc/passwd, which PostgreSQL's initdb needs. "
            "Add one, run as another user, or set TURNOUT_DATABASE_OWNER_URL to a server."
        ) from None


def _password(place: Place, user: str) -> str:
    """The password of `user`: made once, kept in a file that only we read."""
    file = place.ours / f"{user}.password"
    try:
        return file.read_text()
    except FileNotFoundError:
        partial = file.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as writer:
            writer.write(secrets.token_urlsafe(24))
        partial.rename(file)
        return file.read_text()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One starter at a time; the kernel lets go of the lock when its holder dies, however."""
    with os.fdopen(os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait(deadline: float, place: Place, what: str) -> None:
    if time.monotonic() > deadline:
        raise ConfigurationError(f"The embedded database in {place.data} {what}. The end of {place.log}:\n{_log_tail(place)}")
    time.sleep(_POLL_S)


def _fail_if_hopeless(place: Place) -> None:
    """Where the log's end says that no further attempt can help, says so at once."""
    tail = _log_tail(place)
    if "FATAL" in tail and not any(passing in tail for passing in ("is still in use", "lock file", "shared memory")):
        raise ConfigurationError(f"The embedded database in {place.data} does not start. The end of {place.log}:\n{tail}")


def _log_tail(place: Place) -> str:
    try:
        lines = place.log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-6:])
