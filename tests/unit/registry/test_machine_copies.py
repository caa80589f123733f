"""Which files of compiled graphs may go: never the one that is needed, and what is kept beside is bounded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.machine_copies import MOST_SPARE_BYTES, FlatFile, spare

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOUR_S = 3600.0


def file(name: str, hours: float, size: int = 10, digest: str | None = "d") -> FlatFile:
    return FlatFile(Path(name), digest, size, NOW.timestamp() - hours * HOUR_S)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_the_last_used_file_that_an_alias_needs_stays_however_long_ago_that_was() -> None:
    files = [file("of-another-onnxruntime", 2000), file("mapped", 1000)]
    assert names(spare(files, {"d"}, {"d"}, NOW)) == ["of-another-onnxruntime"]


def test_what_serves_no_version_goes_and_what_may_be_asked_for_stays_for_a_week() -> None:
    files = [file("asked-for", 7 * 24 - 1, digest="a"), file("forgotten", 7 * 24 + 1, digest="b"), file("withdrawn", 2, digest="c")]
    assert names(spare(files, {"a", "b"}, set(), NOW)) == ["withdrawn", "forgotten"]


def test_what_was_left_half_made_goes_after_an_hour() -> None:
    assert names(spare([file("being-made", 0.9, digest=None), file("left", 1.1, digest=None)], set(), set(), NOW)) == ["left"]


def test_what_is_kept_without_need_is_bounded_and_the_last_used_stay() -> None:
    third = MOST_SPARE_BYTES // 3
    files = [file(f"{hours}", hours, third, digest=f"{hours}") for hours in (2, 5, 3, 4)]
    assert names(spare(files, {"2", "3", "4", "5"}, set(), NOW)) == ["5"]
    assert names(spare(files, {"2", "3", "4", "5"}, {"5"}, NOW)) == []


FILES = st.lists(
    st.builds(file, st.uuids().map(str), st.floats(0, 500), st.integers(0, MOST_SPARE_BYTES), st.sampled_from([None, "a", "b", "c", "d"]))
)


@given(FILES, st.sets(st.sampled_from("abc")))
def test_each_graph_that_an_alias_needs_keeps_a_file_and_nothing_else_is_beyond_the_bound(files: list[FlatFile], aliased: set[str]) -> None:
    going = set(spare(files, {"a", "b", "c"}, aliased, NOW))
    left = [each for each in files if each.path not in going]
    assert {each.digest for each in files} & aliased == {each.digest for each in left} & aliased
    old = [each for each in left if NOW.timestamp() - each.used_at >= HOUR_S]
    newest = {
        digest: max((f for f in files if f.digest == digest), key=lambda f: f.used_at) for digest in {f.digest for f in files} & aliased
    }
    assert sum(each.size_bytes for each in old if newest.get(each.digest or "") is not each) <= MOST_SPARE_BYTES
