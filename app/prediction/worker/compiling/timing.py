"""What both children of a proof do alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from app.kernel.tensors import Scores

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMED_S = 1.0
_TIMED_CALLS = 100


def median_us(call: Callable[[], Any]) -> float:
    """The median time of a call, in microseconds; a second's worth of calls at most."""
    call()
    times = []
    until = time.perf_counter() + _TIMED_S
    for _ in range(_TIMED_CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        if time.perf_counter() > until:
            break
    return float(np.median(times)) * 1e6


def joined(parts: list[Scores]) -> Scores:
    """One after the other."""

    def all_of(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    return Scores(all_of("labels"), all_of("probabilities"), all_of("values"))
