"""Kept answers: given again to the same input of the same version of the same tenant, and to nobody else."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch, Scores
from app.prediction.cache import PredictionCache, cache_key
from app.registry.types import RuntimeKind, VersionRoute, VersionStatus
from tests.support.clock import ManualClock

pytestmark = pytest.mark.unit

SIGNATURE = Signature((Column("x", ColumnType.NUMBER), Column("t", ColumnType.STRING, required=False)), InputKind.FRAME)
ROUTE = VersionRoute(uuid4(), 1, Task.REGRESSION, VersionStatus.READY, "a" * 64, 10, SIGNATURE, None)
CLINIC, BANK, SHOP = UUID(int=1), UUID(int=2), UUID(int=3)
ENTRY = 600 + 8


def batch(*rows, texts=()):
    return Batch(len(rows), np.array(rows, dtype=np.float64).reshape(len(rows), -1), texts)


def key(*rows, texts=(), route=ROUTE):
    return cache_key(route, batch(*rows, texts=texts))


def answer(value):
    return Scores(values=np.array([value]))


def cache(entries=100, size=10**6, clock=None):
    return PredictionCache(size, entries, clock or ManualClock())


def test_an_answer_is_given_again_until_it_is_as_old_as_the_model_says_now():
    clock = ManualClock()
    kept = cache(clock=clock)
    kept.put(CLINIC, b"k", answer(1.5))
    clock.advance(9)
    assert kept.get(CLINIC, b"k", 10).values.tolist() == [1.5]
    assert kept.get(CLINIC, b"k", 9) is None, "cacheSeconds was lowered: an old answer goes at once"
    assert kept.get(CLINIC, b"k", 10) is None
    assert (len(kept), kept.size_bytes) == (0, 0)


def test_an_answer_is_never_another_tenants():
    kept = cache()
    kept.put(CLINIC, b"k", answer(1.5))
    assert kept.get(BANK, b"k", 10) is None


def test_an_answer_is_of_one_version_served_in_one_way():
    routes = [
        ROUTE,
        replace(ROUTE, number=2),
        replace(ROUTE, model_id=uuid4()),
        replace(ROUTE, artifact_digest="b" * 64),
        replace(ROUTE, runtime=RuntimeKind.ONNX, compiled_digest="c" * 64),
        replace(ROUTE, runtime=RuntimeKind.SKLEARN, compiled_digest="c" * 64),
    ]
    assert len({key([1.0], route=route) for route in routes}) == 6


def test_what_is_kept_is_a_copy_that_nobody_can_change():
    """A row's answer is often a view of a batch's: keeping the view would keep the batch."""
    kept = cache()
    whole = np.arange(5000.0)
    kept.put(CLINIC, b"k", Scores(values=whole[3:4]))
    whole[3] = -1.0
    found = kept.get(CLINIC, b"k", 10)
    assert (found.values.tolist(), found.values.base) == ([3.0], None)
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 0


def test_a_tenant_within_its_part_is_never_evicted_for_another_ones_sake():
    kept = cache(entries=9)
    for i in range(3):
        kept.put(CLINIC, bytes([i]), answer(i))
        kept.put(BANK, bytes([i]), answer(i))
    for i in range(50):
        kept.put(SHOP, bytes([i]), answer(i))
    assert [kept.get(CLINIC, bytes([i]), 10).values.tolist() for i in range(3)] == [[0.0], [1.0], [2.0]]
    assert [kept.get(BANK, bytes([i]), 10) is not None for i in range(3)] == [True] * 3
    assert [i for i in range(50) if kept.get(SHOP, bytes([i]), 10)] == [47, 48, 49]


def test_the_least_recently_used_answer_goes_first():
    kept = cache(size=2 * ENTRY)
    kept.put(CLINIC, b"a", answer(1))
    kept.put(CLINIC, b"b", answer(2))
    kept.get(CLINIC, b"a", 10)
    kept.put(CLINIC, b"c", answer(3))
    assert [bool(kept.get(CLINIC, k, 10)) for k in (b"a", b"b", b"c")] == [True, False, True]


def test_an_answer_larger_than_all_room_is_not_kept_and_evicts_nothing():
    kept = cache(size=2 * ENTRY)
    kept.put(CLINIC, b"a", answer(1))
    kept.put(CLINIC, b"b", Scores(values=np.zeros(10_000)))
    assert (kept.get(CLINIC, b"b", 10), len(kept)) == (None, 1)


def test_inputs_too_large_to_come_twice_have_no_key():
    assert key([0.0] * 8192) is not None
    assert key([0.0] * 8193) is None
    assert key([0.0], texts=(("x" * 70_000,),)) is None


def test_a_missing_text_is_not_an_empty_one():
    assert key([1.0], texts=((None,),)) != key([1.0], texts=(("",),))


NUMBERS = st.floats(allow_nan=False)
ROWS = st.lists(st.tuples(NUMBERS, st.none() | st.text(max_size=4), st.none() | st.text(max_size=4)), min_size=1, max_size=3)


def key_of_rows(rows):
    return key(*([n] for n, _, _ in rows), texts=(tuple(a for _, a, _ in rows), tuple(b for _, _, b in rows)))


@given(ROWS, ROWS)
def test_two_inputs_share_a_key_only_where_they_are_the_same(one, other):
    same = repr(one) == repr(other)  # 0.0 and -0.0 are two inputs: a model may tell them apart
    assert (key_of_rows(one) == key_of_rows(other)) is same


@given(st.lists(st.tuples(st.sampled_from([CLINIC, BANK, SHOP]), st.integers(0, 9), st.integers(1, 60)), max_size=60))
def test_the_bounds_hold_and_the_accounts_balance_whatever_comes(steps):
    kept = cache(entries=7, size=4000)
    for tenant, name, length in steps:
        kept.put(tenant, bytes([name]), Scores(values=np.zeros(length)))
        held = [e for share in kept._shares.values() for e in share.entries.values()]
        assert len(kept) == len(held) <= 7
        assert kept.size_bytes == sum(e.bytes for e in held) <= 4000
        assert all(share.bytes == sum(e.bytes for e in share.entries.values()) > 0 for share in kept._shares.values())
