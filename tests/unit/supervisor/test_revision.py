"""What older and newer code make of a schema."""

import pytest

from app.supervisor.revision import Standing, newest_revision, standing_of

pytestmark = pytest.mark.unit


@pytest.fixture
def versions(tmp_path):
    for down, revision in ((None, "0001"), ("0001", "0002"), ("0002", "0003")):
        (tmp_path / f"{revision}_x.py").write_text(f'revision = "{revision}"\ndown_revision = {down!r}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("revision", "said", "standing"),
    [
        (None, None, Standing.BEHIND),
        ("0001", None, Standing.BEHIND),
        ("0002", "oldest code: 0001", Standing.BEHIND),
        ("0003", None, Standing.CURRENT),
        ("0003", "oldest code: 0003", Standing.CURRENT),
        ("0004", "oldest code: 0003", Standing.AHEAD),
        ("0005", "oldest code: 0002", Standing.AHEAD),
        ("0004", "oldest code: 0004", Standing.FOREIGN),
        ("0004", None, Standing.FOREIGN),
        ("0004", "something else", Standing.FOREIGN),
    ],
)
def test_a_newer_schema_is_served_where_it_says_that_this_code_may(versions, revision, said, standing):
    assert standing_of(revision, said, versions) is standing


def test_a_history_with_two_ends_has_no_newest_revision(versions):
    (versions / "x.py").write_text('revision = "0009"\ndown_revision = "0001"\n')
    assert newest_revision(versions) is None
