"""What is asked of the store that machines share, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Question(NamedTuple):
    """One budget that is asked. `kind`, `x`, `y`, `cost` and `used` as the script has them."""

    key: str
    kind: str
    x: float
    y: float
    cost: int
    used: float


class Answer(NamedTuple):
    """`value`: microseconds until all is there again ("r"), or the sum so far ("c")."""

    fits: bool
    value: int


@dataclass(frozen=True, slots=True)
class StoreState:
    """How it is with the server. `failures`: in a row, up to now; `silent_s`: seconds since its last good answer, None: never."""

    ready: bool
    failures: int
    silent_s: float | None
