"""What a writer that was killed half-way leaves behind, and who sweeps it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.kernel.home import LAST_GOOD, MASTER_KEY
from app.settings import Settings
from app.supervisor.home import sweep_home
from app.supervisor.supervisor import Supervisor, supervise
from app.tenancy.drafts import draft_of, sweep_drafts
from app.tenancy.keys import MasterKey
from app.tenancy.private_files import create_private, read_private
from app.tenancy.sealed_files import SealedFolder

pytestmark = pytest.mark.integration

KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from app.tenancy.keys import MasterKey
from app.tenancy.private_files import create_private
from app.tenancy.sealed_files import SealedFolder
home = Path(sys.argv[1])
os.fsync = lambda _: os._exit(9)
if sys.argv[2] == "sealed":
    SealedFolder(home / "last-good", MasterKey(bytes(32)).box("last-good")).write("head.json", b"half")
else:
    create_private(home / "master.key", b"half", "The master key file")
"""


def killed(home: Path, kind: str) -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(home), kind], cwd=root, timeout=60, check=False)
    assert done.returncode == 9


def test_a_start_sweeps_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    kept = SealedFolder(tmp_path / LAST_GOOD, MasterKey(bytes(32)).box(LAST_GOOD))
    kept.write("head.json", b"whole")
    create_private(tmp_path / MASTER_KEY, b"whole", "The key")
    others = [tmp_path / ".limits.bin.lock", tmp_path / LAST_GOOD / "portion.0123456789ab", tmp_path / ".x.0123456789abcd"]
    for other in others:
        other.touch()
    (tmp_path / LAST_GOOD / ".folder.0123456789ab").mkdir()
    everything = sorted(tmp_path.rglob("*"))
    killed(tmp_path, "sealed")
    killed(tmp_path, "private")
    left = sorted(set(tmp_path.rglob("*")) - set(everything))
    assert len(left) == 2

    sweep_home(tmp_path)
    assert sorted(tmp_path.rglob("*")) == sorted([*everything, *(path for path in left if path.parent == tmp_path)])
    for path in left:
        if path.exists():
            os.utime(path, (0, 0))  # a command's, which may still write, for a minute
    sweep_home(tmp_path)
    assert sorted(tmp_path.rglob("*")) == everything
    assert (kept.read("head.json"), read_private(tmp_path / MASTER_KEY, "The key")) == (b"whole", b"whole")


def test_where_nobody_has_written_nothing_is_swept(tmp_path: Path) -> None:
    assert sweep_drafts(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()


def test_a_draft_lies_beside_its_file_is_swept_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    drafts = {draft_of(tmp_path / "head.json") for _ in range(50)}
    for draft in drafts:
        draft.touch()
    assert (len(drafts), sweep_drafts(tmp_path), list(tmp_path.iterdir())) == (50, 50, [])


def test_the_parent_sweeps_before_it_starts_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    killed(home, "sealed")
    seen: list[list[Path]] = []

    def run(*_: object, **__: object) -> int:
        seen.append(list((home / LAST_GOOD).iterdir()))
        return 0

    monkeypatch.setattr(Supervisor, "run", run)
    assert supervise(Settings.from_env({"TURNOUT_HOME": str(home)}), {}, demo=False) == 0
    assert seen == [[]]
