"""Memory for models: never more than the bound, who is needed stays, and the others go in the order of their last use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prediction.budget import MemoryLedger

pytestmark = pytest.mark.unit


def anybody(_):
    return True


def filled(limit, *names, size=10):
    ledger = MemoryLedger(limit)
    for name in names:
        assert ledger.take(name, size, (), anybody) == []
    return ledger


def test_who_was_not_used_for_longest_goes_first_and_no_more_than_must():
    ledger = filled(40, "a", "b", "c", "d")
    ledger.touch("a")
    assert ledger.take("e", 15, (), anybody) == ["b", "c"]
    assert (list(ledger), ledger.used) == (["d", "a", "e"], 35)


def test_a_needed_one_never_goes_for_one_that_is_merely_asked_for():
    ledger = filled(30, "a", "b", "c")
    assert ledger.take("d", 10, {"a", "b", "c"}, anybody) is None
    assert ledger.take("d", 10, {"a", "b"}, anybody) == ["c"]


def test_needed_ones_make_room_for_one_another_after_all_others():
    ledger = filled(30, "a", "b", "c")
    assert ledger.take("d", 20, {"a", "b", "d"}, anybody) == ["c", "a"]


def test_what_an_alias_has_just_left_is_waited_for_rather_than_another_aliass_version_closed():
    ledger = filled(30, "left", "other", "third")
    needed = {"other", "third", "new"}
    assert ledger.take("new", 10, needed, lambda key: key != "left") is None
    assert ledger.take("new", 10, needed, anybody) == ["left"]


def test_who_is_busy_stays():
    ledger = filled(20, "a", "b")
    assert ledger.take("c", 10, (), lambda key: key != "a") == ["b"]


def test_booking_again_replaces_what_was_booked_and_never_sends_the_one_itself_away():
    ledger = filled(30, "a", "b", "c")
    assert ledger.take("a", 15, (), anybody) == ["b"]
    assert (list(ledger), ledger.used) == (["c", "a"], 25)
    assert ledger.take("a", 5, (), anybody) == []
    assert ledger.used == 15
    assert ledger.take("a", 31, {"a"}, anybody) is None
    assert (list(ledger), ledger.used) == (["c", "a"], 15)


def test_one_larger_than_everything_is_refused_and_nobody_goes():
    ledger = filled(20, "a", "b")
    assert ledger.take("c", 21, {"c"}, anybody) is None
    assert (list(ledger), ledger.used) == (["a", "b"], 20)


STEPS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40), st.sampled_from(["take", "touch", "leave"])), max_size=60)


@given(STEPS, st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12)))
def test_the_bound_holds_and_the_accounts_balance_whatever_comes(steps, needed, busy):
    ledger = MemoryLedger(100)
    sizes = {}
    for key, size, step in steps:
        if step == "take":
            before = dict(sizes)
            gone = ledger.take(key, size, needed, lambda each: each not in busy)
            assert gone is None or not busy & set(gone)
            assert gone is None or key in needed or not needed & set(gone)
            if gone is not None:
                sizes = {name: held for name, held in before.items() if name not in gone} | {key: size}
        elif step == "touch" and key in ledger:
            ledger.touch(key)
            assert list(ledger)[-1] == key
        elif step == "leave":
            ledger.give_back(key)
            sizes.pop(key, None)
        assert set(ledger) == set(sizes)
        assert ledger.used == sum(sizes.values()) <= 100
