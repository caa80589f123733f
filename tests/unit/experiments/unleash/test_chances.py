"""The exact probability of each outcome of a flag, against counting every possible pair of numbers."""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.experiments.flags.document import FLEXIBLE_ROLLOUT, Choice, Flag, Parent, Strategy
from app.experiments.unleash.chances import NOTHING, Draw, chances_of, outcome_of

pytestmark = pytest.mark.unit

QUARTERS = (1, 26, 51, 76)  # of a hundred: rollouts here are multiples of 25, so these stand for all numbers
GROUPS = ("a", "b")
FEW = settings(max_examples=40, deadline=None)


@dataclass
class Fixed:
    numbers: dict

    def within(self, draw: Draw, bound: int) -> bool:
        return self.numbers[draw.kind, draw.group] <= bound


def counted(flag, parents, holds):
    """By trying every combination of the numbers that are looked at: quarters of rollouts, and the four buckets of choices."""
    draws = sorted(set().union(*(looked_at(each) for each in (flag, *parents.values()))))
    every = list(product(*(QUARTERS if kind == "rollout" else (1, 2, 3, 4) for kind, _ in draws)))
    found = Counter(outcome_of(flag, parents, holds, Fixed(dict(zip(draws, numbers, strict=True)))) for numbers in every)
    return {outcome: Fraction(count, len(every)) for outcome, count in found.items()}


def looked_at(flag):
    return {(kind, each.group_id) for each in flag.strategies for kind in ("rollout", "choice")} | {("choice", flag.name)}


choices = st.sampled_from([(), (Choice("x", 4),), (Choice("x", 1), Choice("y", 3)), (Choice("y", 2), Choice("z", 0), Choice("x", 2))])
strategies = st.builds(
    lambda rollout, group, drawn: Strategy(FLEXIBLE_ROLLOUT, rollout=rollout, group_id=group, choices=drawn),
    st.sampled_from([0, 25, 50, 75, 100]), st.sampled_from(GROUPS), choices,
)  # fmt: skip


def flags(name):
    return st.builds(
        lambda on, listed, own: Flag(name, enabled=on, strategies=tuple(listed), choices=own),
        st.sampled_from([True, True, True, False]), st.lists(strategies, max_size=3), choices,
    )  # fmt: skip


@FEW
@given(flags("f"), st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_chances_of_a_flag_are_those_that_counting_gives(flag, conditions):
    def holds(_name, number):
        return conditions[number]

    assert chances_of(flag, {}, holds) == counted(flag, {}, holds)


@FEW
@given(flags("f"), flags("p"), st.booleans(), st.sampled_from([(), ("x",), ("x", "y")]))
def test_also_with_a_parent_whether_or_not_they_share_a_hash(flag, above, on, names):
    flag = Flag(flag.name, flag.enabled, flag.strategies[:2], flag.choices, parents=(Parent("p", on, names if on else ()),))
    above = Flag("p", above.enabled, above.strategies[:2], above.choices)
    assert chances_of(flag, {"p": above}, lambda *_: True) == counted(flag, {"p": above}, lambda *_: True)


def test_rollouts_of_one_group_are_one_number_and_of_two_groups_two():
    def flag(second_group):
        first = Strategy(FLEXIBLE_ROLLOUT, rollout=20, group_id="a", choices=(Choice("x", 1000),))
        second = Strategy(FLEXIBLE_ROLLOUT, rollout=50, group_id=second_group, choices=(Choice("y", 1000),))
        return Flag("f", strategies=(first, second))

    assert chances_of(flag("a"), {}, lambda *_: True) == {(0, 0): Fraction(20, 100), (1, 0): Fraction(30, 100), None: Fraction(50, 100)}
    assert chances_of(flag("b"), {}, lambda *_: True) == {(0, 0): Fraction(20, 100), (1, 0): Fraction(40, 100), None: Fraction(40, 100)}


def test_two_parents_that_share_a_hash_are_not_taken_for_independent():
    half = Strategy(FLEXIBLE_ROLLOUT, rollout=50, group_id="same")
    flag = Flag("f", strategies=(Strategy("default", choices=(Choice("x", 1),)),), parents=(Parent("p"), Parent("q")))
    parents = {name: Flag(name, strategies=(half,)) for name in ("p", "q")}
    assert chances_of(flag, parents, lambda *_: True) == {(0, 0): Fraction(1, 2), None: Fraction(1, 2)}


def test_thirty_strategies_with_parents_of_thirty_are_told_exactly():
    many = tuple(Strategy(FLEXIBLE_ROLLOUT, rollout=1, group_id=f"g{n}", choices=(Choice("x", 1), Choice("y", 3))) for n in range(30))
    above = tuple(Strategy(FLEXIBLE_ROLLOUT, rollout=2, group_id=f"h{n}") for n in range(30))
    flag = Flag("f", strategies=many, parents=(Parent("p"),))
    found = chances_of(flag, {"p": Flag("p", strategies=above)}, lambda *_: True)
    let_in, inside = 1 - Fraction(98, 100) ** 30, 1 - Fraction(99, 100) ** 30
    assert sum(found.values()) == 1
    assert found[None] == 1 - let_in * inside


def test_a_flag_without_anything_to_give_lets_in_and_says_so():
    assert chances_of(Flag("f"), {}, lambda *_: True) == {NOTHING: 1}


def test_one_hash_with_two_sums_of_weights_has_no_chance_that_is_told():
    above = Flag("p", strategies=(Strategy("default", group_id="a", choices=(Choice("x", 3), Choice("y", 4))),))
    flag = Flag(
        "f",
        strategies=(Strategy("default", group_id="a", choices=(Choice("v", 1), Choice("w", 1))),),
        parents=(Parent("p", choices=("x",)),),
    )
    assert chances_of(flag, {"p": above}, lambda *_: True) is None
