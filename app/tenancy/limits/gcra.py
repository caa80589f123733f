"""The generic cell rate algorithm as pure arithmetic: a budget is one whole number, and a refusal costs nothing.

The number is the theoretical arrival time (tat, ns): when the budget will be full again. Each unit of cost moves it `period_ns`
ahead, and it may be at most `window_ns` (burst times period) ahead of now.
Source: ITU-T I.371 annex A, the virtual scheduling algorithm.
"""

from __future__ import annotations

NS = 1_000_000_000


def period_ns(units: int, seconds: int = 1) -> int:
    """Nanoseconds between two of `units` that spread over `seconds`, rounded up: the rate is never exceeded."""
    return -(-NS * seconds // units)


def decide(tat_ns: int, now_ns: int, cost_ns: int, window_ns: int) -> tuple[bool, int]:
    """Whether `cost_ns` fits into the budget now, and the tat after that."""
    start = now_ns if tat_ns <= now_ns else _start(tat_ns, now_ns, window_ns)  # as a rule it is full again
    after = start + cost_ns
    return (True, after) if after - now_ns <= window_ns else (False, start)


def units_left(tat_ns: int, now_ns: int, period: int, window_ns: int) -> int:
    """How many units of cost 1 fit at once."""
    return (window_ns - (_start(tat_ns, now_ns, window_ns) - now_ns)) // period


def wait_ns(tat_ns: int, now_ns: int, cost_ns: int, window_ns: int) -> int | None:
    """How long until `cost_ns` fits, if nothing else is taken meanwhile; None where it never does."""
    if cost_ns > window_ns:
        return None
    return max(0, _start(tat_ns, now_ns, window_ns) + cost_ns - window_ns - now_ns)


def _start(tat_ns: int, now_ns: int, window_ns: int) -> int:
    """The tat as it counts now: an old one is forgotten, and none is further ahead than the window, whatever the memory holds.

    So a smaller limit, a clock that began anew with the machine and a damaged file cost at most one window.
    """
    if tat_ns <= now_ns:
        return now_ns
    latest = now_ns + window_ns
    return min(tat_ns, latest)
