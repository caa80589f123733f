"""What lies on the disk is what was written, or it is refused: cut anywhere, changed anywhere, mixed, of another key or program."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from app.prediction.last_good.state import HEAD, Head, LastGoodFiles, StateRefused, part_of
from app.tenancy.keys import MasterKey
from app.tenancy.sealed_files import SealedFolder

pytestmark = pytest.mark.unit

SHAPE = "0123456789abcdef"
ALICE, BOB = UUID(int=1 << 120), UUID(int=2 << 120)  # of two portions


def folder_of(path, key=bytes(32), purpose="last-good"):
    return SealedFolder(path, MasterKey(key).box(purpose))


def written(path):
    """A state of two tenants."""
    files = LastGoodFiles(folder_of(path), SHAPE)
    parts = {part_of(t): files.write_part(part_of(t), {t: {"tenants": [[str(t), n]]}}, None) for n, t in enumerate((ALICE, BOB))}
    files.write_head(Head(7, 1000, parts))
    return files


def test_what_was_written_is_read(tmp_path):
    written(tmp_path)
    head, rows = LastGoodFiles(folder_of(tmp_path), SHAPE).read()
    assert (head.generation, head.confirmed_ms) == (7, 1000)
    assert rows == [{"tenants": [[str(ALICE), 0]]}, {"tenants": [[str(BOB), 1]]}]


def test_nothing_written_is_no_state(tmp_path):
    assert LastGoodFiles(folder_of(tmp_path / "none"), SHAPE).read() is None


def test_a_state_that_is_cut_short_at_any_byte_is_refused(tmp_path):
    files = written(tmp_path)
    cuts = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(StateRefused):
                files.read()
            cuts += 1
        path.write_bytes(whole)
    assert cuts > 400
    assert files.read() is not None


def test_a_state_with_one_changed_byte_is_refused(tmp_path):
    files = written(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(StateRefused):
                files.read()
        path.write_bytes(whole)


def test_a_portion_in_anothers_place_is_refused(tmp_path):
    files = written(tmp_path)
    parts = files.head().parts
    one, other = (tmp_path / part.file for part in parts.values())
    one.write_bytes(other.read_bytes())
    with pytest.raises(StateRefused, match="something else"):
        files.read()


def test_an_older_portion_in_the_place_of_a_newer_one_is_refused(tmp_path):
    """Whoever may write the disk must not bring back one tenant's revoked tokens beside everybody else's newer state."""
    files = written(tmp_path)
    head = files.head()
    name = part_of(ALICE)
    older = (tmp_path / head.parts[name].file).read_bytes()
    newer = files.write_part(name, {ALICE: {"tenants": [[str(ALICE), "SUSPENDED"]]}}, head.parts[name])
    files.write_head(Head(8, 2000, head.parts | {name: newer}))
    (tmp_path / newer.file).write_bytes(older)
    with pytest.raises(StateRefused, match="an older one"):
        files.read()


def test_a_missing_portion_is_refused(tmp_path):
    files = written(tmp_path)
    (tmp_path / files.head().parts[part_of(BOB)].file).unlink()
    with pytest.raises(StateRefused, match="missing"):
        files.read()


def test_a_state_of_another_master_key_is_refused_and_says_which(tmp_path):
    written(tmp_path)
    other = MasterKey(bytes(31) + b"\x01")
    with pytest.raises(StateRefused, match=f"sealed under master key {MasterKey(bytes(32)).fingerprint}; .* {other.fingerprint}"):
        LastGoodFiles(SealedFolder(tmp_path, other.box("last-good")), SHAPE).read()


def test_a_state_for_another_purpose_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(StateRefused):
        LastGoodFiles(folder_of(tmp_path, purpose="other"), SHAPE).read()


def test_a_state_whose_rows_have_other_columns_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(StateRefused, match="other columns"):
        LastGoodFiles(folder_of(tmp_path), "f" * 16).read()


def test_a_state_of_an_unknown_format_is_refused(tmp_path):
    written(tmp_path)
    folder_of(tmp_path).write(HEAD, b'{"format": 2}')
    with pytest.raises(StateRefused, match="format 2, and this program reads 1"):
        LastGoodFiles(folder_of(tmp_path), SHAPE).read()


def test_files_and_folder_are_for_their_owner_alone(tmp_path):
    written(tmp_path / "last")
    assert (tmp_path / "last").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "last").iterdir()} == {0o600}


def test_what_a_portion_held_before_is_gone_from_the_disk(tmp_path):
    files = written(tmp_path)
    head = files.head()
    before = head.parts[part_of(ALICE)]
    assert files.write_part(part_of(ALICE), {}, before) is None
    files.write_head(Head(8, 2000, {part_of(BOB): head.parts[part_of(BOB)]}))
    assert {path.name for path in tmp_path.iterdir()} == {HEAD, head.parts[part_of(BOB)].file}


def test_of_a_portion_that_is_as_it_was_nothing_is_written(tmp_path):
    files = written(tmp_path)
    before = files.head().parts[part_of(ALICE)]
    names = {path.name for path in tmp_path.iterdir()}
    assert files.write_part(part_of(ALICE), {ALICE: {"tenants": [[str(ALICE), 0]]}}, before) is before
    assert {path.name for path in tmp_path.iterdir()} == names


def test_tenants_are_spread_over_portions():
    assert len({part_of(uuid4()) for _ in range(20_000)}) == 256
