"""Folders for sockets: short, private, the same in every process."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from app.db.embedded.paths import is_short, own_folder, runtime_dir, temporary_dir
from app.errors import ConfigurationError

pytestmark = pytest.mark.unit


def test_a_long_home_has_its_sockets_in_a_short_folder_named_by_it(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 120)
    folder = runtime_dir(home)
    try:
        assert folder == runtime_dir(home) == temporary_dir(home, "run")
        assert is_short(folder)
        assert folder != temporary_dir(tmp_path, "run")
        assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid) == (0o700, os.geteuid())
    finally:
        folder.rmdir()


def test_the_length_that_counts_is_that_of_the_bytes() -> None:
    assert is_short(Path("/" + "x" * 69))
    assert not is_short(Path("/" + "x" * 70))
    assert not is_short(Path("/" + "é" * 35))


def test_a_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert stat.S_IMODE(own_folder(folder).stat().st_mode) == 0o700


@pytest.mark.parametrize("planted", ["link", "file"])
def test_what_is_no_folder_of_ours_is_refused(tmp_path: Path, planted: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "run"
    folder.symlink_to(tmp_path / "elsewhere") if planted == "link" else folder.touch()
    with pytest.raises(ConfigurationError, match=r"belongs to another user or is no folder|cannot be made"):
        own_folder(folder)
