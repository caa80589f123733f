"""Shares in buckets, and whose they are: never two experiments', monotone in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Conflict, InvalidInput
from app.experiments.rules import Slots, buckets_of, percent_of, slots_for
from app.experiments.types import BUCKETS

pytestmark = pytest.mark.unit


def held(slots: Slots) -> int:
    """Every bucket as a bit, each held once."""
    bits = 0
    for start, end in slots:
        assert 0 <= start < end <= BUCKETS
        slot = (1 << end) - (1 << start)
        assert not bits & slot
        bits |= slot
    return bits


@pytest.mark.parametrize(
    ("rollout", "buckets"), [(0.1, 100), (0.101, 101), (1, 1000), (33.333, 33_333), (99.999, 99_999), (100, BUCKETS), (0.3, 300)]
)
def test_a_share_is_a_whole_number_of_buckets(rollout: float, buckets: int) -> None:
    assert buckets_of(rollout) == buckets
    assert percent_of(buckets) == rollout


@given(st.integers(100, BUCKETS))
def test_every_share_in_steps_of_a_thousandth_comes_back_as_it_was_sent(buckets: int) -> None:
    assert buckets_of(percent_of(buckets)) == buckets


@pytest.mark.parametrize("rollout", [0, 0.099, -1, 100.001, float("nan"), float("inf")])
def test_a_share_outside_a_tenth_to_a_hundred_percent_is_refused(rollout: float) -> None:
    with pytest.raises(InvalidInput, match=r"it must be 0\.1 to 100 percent of units"):
        buckets_of(rollout)


def test_a_finer_share_than_a_thousandth_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most three decimals"):
        buckets_of(33.3333)


def test_alone_an_experiment_has_one_slot_from_the_first_bucket() -> None:
    assert slots_for(None, (), [], 20_000) == ((0, 20_000),)
    assert slots_for(None, ((0, 20_000),), [], 50_000) == ((0, 50_000),)
    assert slots_for(None, ((0, 20_000),), [], 1000) == ((0, 1000),)


def test_what_is_free_is_taken_lowest_first_and_what_was_taken_last_goes_back_first() -> None:
    others = [((1000, 2000),), ((5000, 6000),)]
    five = slots_for("ranking", (), others, 5000)
    assert five == ((0, 1000), (2000, 5000), (6000, 7000))
    assert slots_for("ranking", five, others, 2000) == ((0, 1000), (2000, 3000))
    assert slots_for("ranking", ((0, 1000), (2000, 3000)), others, 5000) == five
    assert slots_for("ranking", five, others, 4000) == ((0, 1000), (2000, 5000))


def test_a_gap_that_opened_below_is_taken_after_what_it_has() -> None:
    assert slots_for("ranking", ((5000, 6000),), [], 3000) == ((5000, 6000), (0, 2000))
    assert slots_for("ranking", ((5000, 6000), (0, 2000)), [], 2000) == ((5000, 6000), (0, 1000))


def test_no_room_says_how_much_is_free_and_asked_for() -> None:
    with pytest.raises(Conflict) as caught:
        slots_for("ranking", ((0, 10_000),), [((10_000, 70_000),)], 50_000)
    assert caught.value.message == (
        "30 % of the layer 'ranking' is free, and 40 % more is asked for. It has 10 % now. Ask for less, or ramp down, stop or conclude"
        " another experiment of the layer."
    )


STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, BUCKETS // 3)), max_size=25)


@settings(deadline=None)  # bits are many, and the machine is shared
@given(STEPS)
def test_whatever_is_ramped_no_two_share_a_bucket_and_nobody_is_moved(steps: list[tuple[str, int]]) -> None:
    layer: dict[str, Slots] = {}
    for name, buckets in steps:
        before = layer.get(name, ())
        others = [slots for other, slots in layer.items() if other != name]
        free = BUCKETS - sum(end - start for slots in others for start, end in slots)
        if buckets > free:
            with pytest.raises(Conflict):
                slots_for("ranking", before, others, buckets)
            continue
        after = slots_for("ranking", before, others, buckets)
        mine, mine_before = held(after), held(before)
        assert mine.bit_count() == buckets
        kept, smaller = mine & mine_before, min(buckets, mine_before.bit_count())
        assert kept.bit_count() == smaller
        assert all(not mine & held(slots) for slots in others)
        layer[name] = after


@given(st.integers(0, BUCKETS), st.integers(0, BUCKETS), st.lists(st.integers(0, BUCKETS), max_size=6))
def test_down_and_up_again_are_the_same_buckets(low: int, high: int, cuts: list[int]) -> None:
    edges = sorted(set(cuts))
    others = [tuple(zip(edges[::2], edges[1::2], strict=False))]
    free = BUCKETS - sum(end - start for start, end in others[0])
    low, high = sorted((min(low, free), min(high, free)))
    up = slots_for("ranking", (), others, high)
    assert slots_for("ranking", slots_for("ranking", up, others, low), others, high) == up
