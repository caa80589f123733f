"""Where the embedded server's data lies and as whom it runs. PostgreSQL refuses to run as root, so root gives it another account,
and that account must reach the data, the socket and the programs without any folder above them being opened up.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.db.embedded.locate import Binaries, find_binaries
from app.db.embedded.paths import fingerprint, is_short, own_folder, runtime_dir, temporary_dir
from app.errors import ConfigurationError

_ACCOUNTS = ("postgres", "nobody")
_PLACES = ("/var/lib", "/var/tmp", "/tmp")  # noqa: S108  the durable one first; a folder of ours, checked
_POINTER = "location"


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the server runs as, where that is not ourselves."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


@dataclass(frozen=True, slots=True)
class Place:
    """`ours` (below TURNOUT_HOME) holds passwords and the lock; `store` holds the data: the same folder, unless root had to part them."""

    ours: Path
    store: Path
    sockets: Path
    account: Account | None  # None: the server runs as ourselves
    binaries: Binaries

    @property
    def data(self) -> Path:
        return self.store / "data"

    @property
    def log(self) -> Path:
        return self.store / "server.log"

    def as_account(self) -> dict[str, Any]:
        """What subprocess needs to start something as the server's user."""
        return as_account(self.account)

    def give(self, path: Path) -> None:
        """Makes `path` the server's user's own."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


def as_account(account: Account | None) -> dict[str, Any]:
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def find_place(home: Path) -> Place:
    """The place for `home`, with its folders made. Raises ConfigurationError that says what to change."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        ours = own_folder(home / "pg")
        return Place(ours, ours, runtime_dir(home), None, find_binaries(_data_major(ours)))
    ours = own_folder(home / "pg", 0o711)  # the account may pass through; the files in it are for us alone
    store = _known_store(ours)
    account = _account(store)
    if store is None:
        store = ours if _can(account, "-x", ours) else _new_store(home, account)
        (ours / _POINTER).write_text(f"{store}\n")
    sockets = (store if is_short(store) else own_folder(temporary_dir(home, "database"), 0o711)) / "s"
    sockets.mkdir(mode=0o700, exist_ok=True)
    place = Place(ours, store, sockets, account, find_binaries(_data_major(store)))
    place.give(sockets)
    return replace(place, binaries=_reachable_binaries(place, account))


def _known_store(ours: Path) -> Path | None:
    pointer = ours / _POINTER
    if not pointer.exists():
        return None
    store = Path(pointer.read_text().strip())
    if not store.is_dir():
        raise ConfigurationError(
            f"The embedded database's data should lie in {store}, as {pointer} says, but that folder is gone. "
            "Bring it back from a backup, or remove TURNOUT_HOME to begin anew."
        )
    return own_folder(store, 0o711)


def _account(store: Path | None) -> Account:
    """The owner of the data that is there, else an unprivileged account of this system; never one made by us."""
    if store is not None and (store / "data").exists():
        owner = (store / "data").stat()
        return Account(owner.st_uid, owner.st_gid)
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "PostgreSQL does not run as root, and this system has neither an account postgres nor nobody to run it as. "
        "Run Turnout as an ordinary user, or set TURNOUT_DATABASE_OWNER_URL to a server."
    )


def _new_store(home: Path, account: Account) -> Path:
    """A folder of root's that `account` can pass through, in the most durable place there is.

    A folder that is there already belonged to a TURNOUT_HOME that was removed: its passwords are gone, its data is left alone.
    """
    name = f"turnout-{fingerprint(home)}"
    for parent in map(Path, _PLACES):
        for suffix in ("", *(f"-{count}" for count in range(2, 1000))):
            folder = parent / (name + suffix)
            try:
                folder.mkdir(mode=0o711)
            except FileExistsError:
                continue
            except OSError:
                break
            folder.chmod(0o711)  # whatever the umask
            if _can(account, "-x", folder):
                (folder / "home").write_text(f"{home}\n")  # for whoever finds it
                return folder
            folder.rmdir()
            break
    raise ConfigurationError(
        f"The account {account.name}, as which root runs PostgreSQL, can reach none of {', '.join(_PLACES)}. "
        "Run Turnout as an ordinary user, or set TURNOUT_DATABASE_OWNER_URL to a server."
    )


def _reachable_binaries(place: Place, account: Account) -> Binaries:
    """The programs in place where the account can run them, else a copy that it can: made once for each version."""
    binaries = place.binaries
    if _runs(account, binaries):
        return binaries
    if not binaries.relocatable:
        raise ConfigurationError(f"The account {account.name} cannot run {binaries.folder}/postgres. Let it, or run as an ordinary user.")
    target = place.store / f"postgresql-{binaries.version}"
    copied = replace(binaries, folder=target / binaries.tree.parent.name / binaries.tree.name / "bin")
    if not target.exists():
        _copy(binaries, target)
    if not _runs(account, copied):
        raise ConfigurationError(
            f"The account {account.name} cannot run {copied.folder}/postgres (a file system mounted noexec?). "
            "Run Turnout as an ordinary user, or set TURNOUT_DATABASE_OWNER_URL to a server."
        )
    return copied


def _copy(binaries: Binaries, target: Path) -> None:
    """The wheel's tree and, beside its package as the programs expect them, the libraries that the wheel brings."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    package = binaries.tree.parent
    libraries = package.with_name(f"{package.name}.libs")
    for tree in (binaries.tree, libraries):
        if tree.exists():
            needless = shutil.ignore_patterns("include", "pkgconfig", "*.a")
            shutil.copytree(tree, partial / tree.relative_to(package.parent), symlinks=True, ignore=needless)
    _open_up(partial)
    partial.rename(target)


def _open_up(tree: Path) -> None:
    """Everybody may read and run the copy; the original's modes may come from a strict umask."""
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _runs(account: Account, binaries: Binaries) -> bool:
    """Tried for real, as that account: modes, ACLs and mount options all count."""
    try:
        tried = subprocess.run([binaries.folder / "initdb", "-V"], capture_output=True, check=False, cwd="/", **as_account(account))
    except PermissionError:
        return False
    samples = [sample for pattern in ("share/postgres.bki", "share/*/postgres.bki") for sample in binaries.tree.glob(pattern)]
    return tried.returncode == 0 and all(_can(account, "-r", sample) for sample in samples)


def _can(account: Account, what: str, path: Path) -> bool:
    try:
        return subprocess.run(["test", what, str(path)], check=False, cwd="/", **as_account(account)).returncode == 0
    except PermissionError as error:
        raise ConfigurationError(
            "This root may not become another user, and PostgreSQL does not run as root. Run Turnout as an ordinary user, "
            "or set TURNOUT_DATABASE_OWNER_URL to a server."
        ) from error


def _data_major(store: Path) -> int | None:
    """The major version of the data in `store`; None: there is no data yet."""
    try:
        return int((store / "data" / "PG_VERSION").read_text().strip().split(".")[0])
    except FileNotFoundError:
        return None
