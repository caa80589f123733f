"""What may be registered, and what stands in the way of a promotion."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.registry.rules import check_fallback, check_registration, promotion_blockers, registration_hash, signature_breaks
from app.registry.store import pack_sample, unpack_sample
from app.registry.types import Fallback, FallbackKind, VersionRegistration, VersionStatus

pytestmark = pytest.mark.unit

AGE = Column("age", ColumnType.NUMBER, minimum=0, maximum=150)
CITY = Column("city", ColumnType.STRING, categories=("Oslo", "Riga"))
NOTE = Column("note", ColumnType.STRING, required=False)
OLD = Signature((AGE, CITY, NOTE), InputKind.FRAME)
GOOD = VersionRegistration("credit-risk", Task.CLASSIFICATION, "a" * 64, None, (), None, None, None)


def with_columns(*columns: Column) -> Signature:
    return Signature(columns, InputKind.FRAME)


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (with_columns(AGE, NOTE), "COLUMN_REMOVED"),
        (with_columns(AGE, CITY, NOTE, Column("income", ColumnType.NUMBER)), "COLUMN_ADDED"),
        (with_columns(replace(AGE, type=ColumnType.INTEGER), CITY, NOTE), "COLUMN_RETYPED"),
        (with_columns(AGE, CITY, replace(NOTE, required=True)), "COLUMN_REQUIRED"),
        (with_columns(replace(AGE, minimum=1), CITY, NOTE), "RANGE_NARROWED"),
        (with_columns(replace(AGE, maximum=149), CITY, NOTE), "RANGE_NARROWED"),
        (with_columns(AGE, replace(CITY, categories=("Oslo",)), NOTE), "CATEGORIES_NARROWED"),
        (with_columns(AGE, CITY, replace(NOTE, categories=("a",))), "CATEGORIES_NARROWED"),
        (with_columns(CITY, AGE, NOTE), "COLUMNS_REORDERED"),
    ],
)
def test_a_change_that_breaks_callers_is_a_blocker_that_can_be_overridden(new: Signature, code: str) -> None:
    blockers = promotion_blockers(VersionStatus.READY, new, ("a", "b"), OLD, ("a", "b"))
    assert [(b.code, b.overridable) for b in blockers] == [(code, True)]


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        with_columns(AGE, CITY, NOTE, Column("income", ColumnType.NUMBER, required=False)),
        with_columns(replace(AGE, minimum=None, maximum=None), replace(CITY, categories=None), NOTE),
        with_columns(AGE, replace(CITY, categories=("Oslo", "Riga", "Bergen")), NOTE),
        with_columns(replace(AGE, required=False), CITY, NOTE),
    ],
)
def test_a_change_that_every_caller_can_bear_is_no_blocker(new: Signature) -> None:
    assert promotion_blockers(VersionStatus.READY, new, ("b", "a"), OLD, ("a", "b")) == []


columns = st.builds(
    Column,
    st.sampled_from("abcd"),
    st.sampled_from([ColumnType.NUMBER, ColumnType.INTEGER]),
    st.booleans(),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(4, 9),
)
signatures = st.lists(columns, min_size=1, max_size=4, unique_by=lambda c: c.name).map(lambda cs: with_columns(*cs))


def test_alike_blockers_are_one_that_counts_the_columns_and_names_the_first_few() -> None:
    free = with_columns(*(Column(f"c{i}", ColumnType.NUMBER, required=False) for i in range(30)), NOTE)
    strict = with_columns(*(Column(f"c{i}", ColumnType.NUMBER) for i in range(30)))
    blockers = promotion_blockers(VersionStatus.READY, strict, None, free, None)
    assert [(b.code, b.message) for b in blockers] == [
        ("COLUMN_REMOVED", "Callers send 'note', which this version does not know."),
        ("COLUMN_REQUIRED", "Callers may leave out 30 columns that this version requires: 'c0', 'c1', 'c2' and 27 more."),
    ]
    assert len(signature_breaks(free, strict)) == 31  # a comparison tells each


def test_names_of_columns_however_long_and_many_leave_a_blocker_short() -> None:
    wide = with_columns(*(Column(f"{i}{'x' * 190}", ColumnType.NUMBER) for i in range(1_000)))
    (removed, added) = promotion_blockers(VersionStatus.READY, wide, None, with_columns(AGE, CITY), None)
    assert removed.message == "Callers send 2 columns that this version does not know: 'age', 'city'."
    assert len(added.message) < 400
    assert added.message.endswith(" and 997 more.")


@given(signatures, signatures)
def test_folding_keeps_every_kind_of_blocker(a: Signature, b: Signature) -> None:
    kinds = list(dict.fromkeys(code for code, _ in signature_breaks(a, b)))
    assert [blocker.code for blocker in promotion_blockers(VersionStatus.READY, b, None, a, None)] == kinds


def test_changed_classes_are_a_blocker() -> None:
    blockers = promotion_blockers(VersionStatus.READY, OLD, ("a", "c"), OLD, ("a", "b"))
    assert [b.code for b in blockers] == ["CLASSES_CHANGED"]


@pytest.mark.parametrize("status", [s for s in VersionStatus if s is not VersionStatus.READY])
def test_a_version_that_is_not_ready_cannot_be_promoted_by_anybody(status: VersionStatus) -> None:
    assert [b.overridable for b in promotion_blockers(status, OLD, None, None, None)] == [False]


@given(signatures)
def test_a_signature_never_breaks_itself(signature: Signature) -> None:
    assert signature_breaks(signature, signature) == []


@given(signatures, signatures, signatures)
def test_what_breaks_nobody_twice_breaks_nobody(a: Signature, b: Signature, c: Signature) -> None:
    if not signature_breaks(a, b) and not signature_breaks(b, c):
        assert [code for code, _ in signature_breaks(a, c) if code != "COLUMNS_REORDERED"] == []


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"model": "Credit Risk"}, "model name"),
        ({"model": "a" * 49}, "model name"),
        ({"artifact_digest": "A" * 64}, "artifactDigest"),
        ({"sample": ({"a": 1},) * 4}, "sample has 4 rows"),
        ({"sample": ({"a": 1},) * 1001}, "sample has 1001 rows"),
        ({"columns": ()}, "0 columns"),
        ({"columns": (AGE, AGE)}, "twice"),
        ({"columns": (replace(AGE, minimum=9, maximum=1),)}, "minimum above its maximum"),
        ({"columns": (replace(CITY, minimum=1),)}, "minimum and maximum are for"),
        ({"columns": (replace(AGE, categories=("a",)),)}, "categories are for STRING"),
        ({"metrics": [1]}, "metrics must be a JSON object"),
        ({"tags": {"a": "x" * 70_000}}, "tags is larger"),
        ({"description": "a\0b"}, "NUL"),
        ({"tags": {"a": ["b\0"]}}, "tags holds a NUL"),
        ({"metrics": {"a": float("inf")}}, "metrics holds a number that is not finite"),
        ({"metrics": {"a": 10**30}}, "beyond 2"),
        ({"sample": ({"a": "x\0"},) * 5}, "sample holds a NUL"),
        ({"columns": (replace(AGE, maximum=float("inf")),)}, "not finite"),
    ],
)
def test_a_bad_registration_is_refused_with_the_field_named(wrong: dict, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        check_registration(replace(GOOD, **wrong))


def test_the_same_registration_has_the_same_hash_whatever_the_order_of_keys() -> None:
    a = replace(GOOD, sample=({"x": 1, "y": 2},) * 5, metrics={"auc": 0.9, "n": 3})
    b = replace(GOOD, sample=({"y": 2, "x": 1},) * 5, metrics={"n": 3, "auc": 0.9})
    assert registration_hash(a) == registration_hash(b)
    assert registration_hash(a) != registration_hash(replace(a, metrics={"auc": 0.91, "n": 3}))


def test_a_sample_keeps_the_order_of_its_keys_through_the_database() -> None:
    rows = ({"zeta": 1, "a": 2}, {"a": 3, "zeta": 4, "m": 5})
    stored = pack_sample(rows)
    stored["rows"] = [dict(sorted(row.items())) for row in stored["rows"]]  # what jsonb does
    assert [list(row) for row in unpack_sample(stored)] == [["zeta", "a"], ["zeta", "a", "m"]]
    assert unpack_sample(pack_sample(())) == ()
    assert unpack_sample(pack_sample(([1, 2],))) == ([1, 2],)


@pytest.mark.parametrize(
    "fallback",
    [
        Fallback(FallbackKind.VERSION),
        Fallback(FallbackKind.NONE, version=1),
        Fallback(FallbackKind.ANSWER),
        Fallback(FallbackKind.ANSWER, answer=[1]),
    ],
)
def test_a_fallback_that_is_not_whole_is_refused(fallback: Fallback) -> None:
    with pytest.raises(InvalidInput):
        check_fallback(fallback)


def test_large_metrics_are_refused_by_their_size_before_they_are_walked() -> None:
    large = {"a": [[1]] * 1_000_000}
    began = time.process_time()
    with pytest.raises(InvalidInput, match="64 KiB"):
        check_registration(replace(GOOD, metrics=large))
    assert time.process_time() - began < 0.2


def test_a_number_beyond_64_bits_in_metrics_is_named() -> None:
    with pytest.raises(InvalidInput, match="2\\^53"):
        check_registration(replace(GOOD, metrics={"a": 10**30}))
