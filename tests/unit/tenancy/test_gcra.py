from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tenancy.limits.gcra import NS, decide, period_ns, units_left, wait_ns

pytestmark = pytest.mark.unit

rates = st.integers(1, 1_000_000)
bursts = st.integers(1, 10_000)
steps = st.lists(st.tuples(st.integers(0, 3 * NS), st.integers(0, 200)), max_size=40)  # (ns passed, cost)


class Budget:
    """The oracle's other half: a bucket of tokens in exact fractions."""

    def __init__(self, rate: int, burst: int) -> None:
        self.per_ns, self.burst, self.tokens = Fraction(1, period_ns(rate)), burst, Fraction(burst)

    def step(self, passed: int, cost: int) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + passed * self.per_ns)
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True


@given(rates, bursts, steps)
def test_it_decides_as_a_bucket_of_tokens_does(rate: int, burst: int, walk: list[tuple[int, int]]) -> None:
    period, oracle, now, tat = period_ns(rate), Budget(rate, burst), 10**12, 0
    for passed, cost in walk:
        now += passed
        expected = oracle.step(passed, cost)
        allowed, tat = decide(tat, now, cost * period, burst * period)
        assert allowed == expected
        assert units_left(tat, now, period, burst * period) == int(oracle.tokens)


@given(rates, bursts, steps)
def test_in_any_stretch_of_time_no_more_than_burst_and_rate_get_through(rate: int, burst: int, walk: list[tuple[int, int]]) -> None:
    period, now, tat, taken = period_ns(rate), 0, 0, [(0, 0)]
    for passed, cost in walk:
        now += passed
        allowed, tat = decide(tat, now, cost * period, burst * period)
        taken.append((now, cost if allowed else 0))
    for first in range(1, len(taken)):
        total = 0
        for at, cost in taken[first:]:
            total += cost
            assert total <= burst + Fraction(at - taken[first][0], NS) * rate


@given(rates, bursts, steps, st.integers(0, 20_000))
def test_after_the_wait_that_it_names_the_cost_fits_and_not_a_nanosecond_sooner(
    rate: int, burst: int, walk: list[tuple[int, int]], cost: int
) -> None:
    period, now, tat = period_ns(rate), 0, 0
    window = burst * period
    for passed, spent in walk:
        now += passed
        _, tat = decide(tat, now, spent * period, window)
    wait = wait_ns(tat, now, cost * period, window)
    if cost > burst:
        assert wait is None
        return
    assert wait is not None
    assert decide(tat, now + wait, cost * period, window)[0]
    assert wait == 0 or not decide(tat, now + wait - 1, cost * period, window)[0]


@given(rates, bursts, st.integers(0, 10**18), st.integers(0, 10**18))
def test_whatever_the_memory_holds_a_budget_is_full_again_after_one_window(rate: int, burst: int, tat: int, now: int) -> None:
    window = burst * period_ns(rate)
    assert units_left(tat, now, period_ns(rate), window) >= 0
    later = decide(tat, now, 0, window)[1]
    assert decide(later, now + window, window, window)[0]


def test_a_refusal_costs_nothing() -> None:
    period = period_ns(10)
    _, tat = decide(0, 0, 5 * period, 10 * period)
    assert decide(tat, 0, 6 * period, 10 * period) == (False, tat)
    assert decide(tat, 0, 5 * period, 10 * period)[0]
