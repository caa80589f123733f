"""The embedded server's life: made once, private, gone with its owner, back after every kind of death, as root and as anybody."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.db.embedded import locate
from app.db.embedded.paths import runtime_dir
from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.errors import ConfigurationError
from tests.support.database import SPEEDY, _fast_folder, execute, remove_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may become others")

OWNER_PROGRAM = """
import sys, time
from pathlib import Path
from app.db.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), {"shared_buffers": "32MB"})
print(server.start(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty TURNOUT_HOME which root's server account may pass through."""
    with temporary_home(0o711) as folder:
        yield folder


class temporary_home:  # noqa: N801  used like a function
    """A home that is removed with all that lies elsewhere because of it."""

    def __init__(self, mode: int, name: str = "home", folder: str | None = _fast_folder()) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="turnout-test-", dir=folder))
        self._base.chmod(0o711)
        self.path = self._base / name
        self.path.mkdir(mode=mode, parents=True)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        remove_home(self.path)
        shutil.rmtree(self._base)


def postmaster(server: EmbeddedPostgres) -> int:
    assert server._found is not None
    return int((server._found.data / "postmaster.pid").read_text().splitlines()[0])


def wait_for_end(pid: int, timeout_s: float = 60.0) -> None:
    """Returns when the process, anybody's, is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], timeout_s)[0], f"process {pid} is still there"
    os.close(descriptor)


def own(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OWNER_PROGRAM, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


def keep_a_row(server: EmbeddedPostgres) -> None:
    execute(server.url(DatabaseRole.OWNER), "create table kept as select 42 as answer")


def kept_row(server: EmbeddedPostgres) -> int:
    return int(execute(server.url(DatabaseRole.OWNER), "select answer from kept")[0][0])


def test_the_first_start_makes_roles_and_database_and_the_next_finds_them(home: Path) -> None:
    server = EmbeddedPostgres(home, SPEEDY)
    assert server.start() is True
    for role in DatabaseRole:
        assert execute(server.url(role), "select current_user, current_database()")[0] == (role.value, "turnout")
    keep_a_row(server)
    first_url = server.url(DatabaseRole.RUNTIME)
    server.stop()
    again = EmbeddedPostgres(home, SPEEDY)
    assert again.start() is True
    assert (kept_row(again), again.url(DatabaseRole.RUNTIME)) == (42, first_url)
    again.stop()


def test_nothing_listens_on_tcp_nobody_enters_without_a_password_and_pages_have_checksums(home: Path) -> None:
    server = EmbeddedPostgres(home, SPEEDY)
    server.start()
    try:
        show = "select current_setting('listen_addresses'), current_setting('data_checksums')"
        assert execute(server.url(DatabaseRole.SYNC), show)[0] == ("", "on")
        for user in (*DatabaseRole, "postgres"):
            url = server._url(user, "turnout")
            wrong = url.replace(f"{user}:", f"{user}:not-")
            with pytest.raises(asyncpg.InvalidPasswordError):
                execute(wrong, "select 1")
    finally:
        server.stop()


def test_passwords_are_files_that_only_we_read(home: Path) -> None:
    server = EmbeddedPostgres(home, SPEEDY)
    server.start()
    server.stop()
    files = sorted((home / "pg").glob("*.password"))
    assert [file.stem for file in files] == ["postgres", "turnout_log", "turnout_owner", "turnout_runtime", "turnout_sync"]
    assert {(stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) for file in files} == {(0o600, os.geteuid())}


def test_the_server_sees_nothing_of_our_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_METRICS_TOKEN", "secret")
    server = EmbeddedPostgres(home, SPEEDY)
    server.start()
    try:
        seen = Path(f"/proc/{postmaster(server)}/environ").read_bytes().split(b"\0")
        assert {entry.split(b"=")[0] for entry in seen if entry} <= {b"PATH", b"LC_ALL", b"PG_GRANDPARENT_PID", b"LC_COLLATE", b"LC_CTYPE"}
    finally:
        server.stop()


def test_kill_9_of_the_owner_leaves_no_server_and_clean_data(home: Path) -> None:
    owner = own(home)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    joined = EmbeddedPostgres(home)
    assert joined.start() is False
    keep_a_row(joined)
    server_pid = postmaster(joined)
    end(owner)
    wait_for_end(server_pid)
    assert joined._found is not None
    assert "database system is shut down" in joined._found.log.read_text().splitlines()[-1]
    assert joined.check() is True  # the one who joined owns it now
    assert kept_row(joined) == 42
    joined.stop()


def test_kill_9_of_the_server_is_noticed_and_it_starts_again_with_its_data(home: Path) -> None:
    server = EmbeddedPostgres(home, {"shared_buffers": "32MB"})
    server.start()
    try:
        keep_a_row(server)
        assert server.check() is False
        first = postmaster(server)
        os.kill(first, signal.SIGKILL)
        assert server._process is not None
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # dead and not reaped: the zombie that PostgreSQL takes for a server
        assert server.check() is True
        assert postmaster(server) != first
        assert kept_row(server) == 42
    finally:
        server.stop()


def test_a_second_starter_joins_and_does_not_stop_the_first(home: Path) -> None:
    first, second = EmbeddedPostgres(home, SPEEDY), EmbeddedPostgres(home, SPEEDY)
    assert (first.start(), second.start()) == (True, False)
    second.stop()
    assert execute(second.url(DatabaseRole.RUNTIME), "select 1")[0][0] == 1
    assert second.check() is False
    first.stop()


def test_who_only_looks_joins_a_running_server_and_never_starts_one(home: Path) -> None:
    onlooker = EmbeddedPostgres(home)
    assert onlooker.join() is False
    assert list(home.iterdir()) == []
    owner = EmbeddedPostgres(home, SPEEDY)
    owner.start()
    assert onlooker.join() is True
    assert execute(onlooker.url(DatabaseRole.SYNC), "select 1")[0] == (1,)
    owner.stop()
    assert onlooker.join() is False


def test_of_two_starters_at_once_one_makes_the_server(home: Path) -> None:
    owners = [own(home), own(home)]
    said = [owner.stdout.readline() for owner in owners if owner.stdout is not None]
    assert sorted(said) == ["False\n", "True\n"]
    joined = EmbeddedPostgres(home)
    joined.start()
    server_pid = postmaster(joined)
    for owner in owners:
        end(owner)
    wait_for_end(server_pid)


def test_a_lock_file_that_names_a_stranger_does_not_stop_it(home: Path) -> None:
    server = EmbeddedPostgres(home, SPEEDY)
    server.start()
    keep_a_row(server)
    assert server._found is not None
    lock = server._found.data / "postmaster.pid"
    left_behind = lock.read_text().splitlines()
    server.stop()
    # As after power loss, when the number is by now that of another process of the same user.
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/", **server._found.as_account()) as stranger:
        lock.write_text("\n".join([str(stranger.pid), *left_behind[1:]]) + "\n")
        lock.chmod(0o600)
        server._found.give(lock)
        assert server.start() is True
        assert kept_row(server) == 42
        server.stop()
        stranger.communicate()


def test_an_interrupted_first_start_is_begun_anew(home: Path) -> None:
    partial = home / "pg" / "data.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(home, SPEEDY)
    assert server.start() is True
    assert not partial.exists()
    server.stop()


def test_data_of_another_major_version_is_refused_with_what_to_do(home: Path) -> None:
    server = EmbeddedPostgres(home, SPEEDY)
    server.start()
    server.stop()
    assert server._found is not None
    (server._found.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(ConfigurationError, match=r"data is of PostgreSQL 14, and no programs of that version .* dump the data"):
        server.start()


def test_a_setting_that_postgres_refuses_is_told_at_once_with_its_words(home: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"does not start(?s:.*)shared_buffers"):
        EmbeddedPostgres(home, {"shared_buffers": "many"}).start()


@pytest.mark.parametrize("name", ["x" * 120, 'a "quoted", spaced & ünïcode%20?name#' + "/y" * 50])
def test_it_lives_at_long_and_odd_paths(name: str) -> None:
    with temporary_home(0o711, name) as home:
        assert len(str(home)) > 120
        server = EmbeddedPostgres(home, SPEEDY)
        server.start()
        assert execute(server.url(DatabaseRole.RUNTIME), "select 1")[0][0] == 1
        assert server._found is not None
        sockets = server._found.sockets
        server.stop()
        shutil.rmtree(sockets.parent if os.geteuid() == 0 else sockets)


def test_it_starts_from_the_main_thread_alone(home: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(home, SPEEDY).start()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


@as_root
def test_root_parts_the_data_from_a_home_that_only_root_may_enter_and_opens_nothing() -> None:
    with temporary_home(0o700) as home:
        server = EmbeddedPostgres(home, SPEEDY)
        server.start()
        keep_a_row(server)
        assert server._found is not None
        store, account = server._found.store, server._found.account
        assert store == Path((home / "pg" / "location").read_text().strip())
        assert store.parent == Path("/var/lib")
        assert account is not None
        assert {path.stat().st_uid for path in (server._found.data, server._found.sockets)} == {account.uid}
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        server.stop()
        again = EmbeddedPostgres(home, SPEEDY)
        again.start()
        assert again._found is not None
        assert (again._found.store, kept_row(again)) == (store, 42)
        again.stop()


@as_root
def test_root_copies_programs_that_the_servers_account_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_home(0o711, folder=None) as home:  # memory file systems may forbid to run what lies in them
        closed = home / "closed"
        tree = locate.find_binaries().tree
        for folder in (tree, tree.parent.with_name(f"{tree.parent.name}.libs")):  # as pip lays them out
            shutil.copytree(folder, closed / folder.relative_to(tree.parent.parent), symlinks=True)
        closed.chmod(0o700)
        there = closed / tree.parent.name / tree.name
        monkeypatch.setattr(locate, "_wheel_folders", lambda: [there / "bin"])
        server = EmbeddedPostgres(home, SPEEDY)
        server.start()
        try:
            assert server._found is not None
            copy = home / "pg" / f"postgresql-{server._found.binaries.version}"
            assert server._found.binaries.folder == copy / there.relative_to(closed) / "bin"
            assert stat.S_IMODE(closed.stat().st_mode) == 0o700
            assert execute(server.url(DatabaseRole.RUNTIME), "select 1")[0][0] == 1
        finally:
            server.stop()


@as_root
@pytest.mark.usefixtures("embedded_postgres")  # has imported whatever is imported late: another user may not read our Python
def test_an_ordinary_user_keeps_everything_below_a_private_home_at_a_long_path() -> None:
    def live(home: Path) -> None:
        server = EmbeddedPostgres(home, SPEEDY)
        assert server.start() is True
        try:
            assert server._found is not None
            assert (server._found.store, server._found.account) == (home / "pg", None)
            assert execute(server.url(DatabaseRole.RUNTIME), "select current_user")[0][0] == "turnout_runtime"
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
        finally:
            server.stop()
            shutil.rmtree(runtime_dir(home))

    with temporary_home(0o700, "p" * 120) as home:
        assert as_user(pwd.getpwnam("nobody").pw_uid, home, live) == ""


@as_root
@pytest.mark.usefixtures("embedded_postgres")
def test_a_user_without_a_name_is_told_that_it_needs_one() -> None:
    with temporary_home(0o700) as home:
        told = as_user(54321, home, lambda home: EmbeddedPostgres(home, SPEEDY).start())
    assert "User number 54321 has no entry in /etc/passwd" in told


def as_user(uid: int, home: Path, work: Callable[[Path], object]) -> str:
    """What went wrong with `work` in a child that is that user; the empty text: nothing."""
    os.chown(home, uid, uid)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = ""
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work(home)
        except BaseException:
            told = traceback.format_exc()
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as report:
        told = report.read()
    os.waitpid(child, 0)
    return told
