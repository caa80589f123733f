"""Many rows on their way from the process that read a large request to the model: as one array of numbers, or as they were."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, starmap
from operator import itemgetter
from struct import Struct
from struct import error as NotNumbers  # noqa: N812  that is what it says here
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_EXACT_INTEGER = 2**53
_NUMBERS_AND_NULL = frozenset({float, int, type(None)})


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Rows of one shape: objects with these `names`, or lists where `names` is None. NaN stands for null, which JSON alone can hold."""

    names: tuple[str, ...] | None
    numbers: NDArray[np.float64]  # (rows, columns)

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.numbers)

    def listed(self, most: int | None = None) -> list[Any]:
        """The rows as JSON had them, the first `most`; a whole number may have become 41.0, which every column takes as it takes 41."""
        lists = [[None if value != value else value for value in row] for row in self.numbers[:most].tolist()]  # noqa: PLR0124  NaN alone
        return lists if self.names is None else [dict(zip(self.names, row, strict=True)) for row in lists]


@dataclass(frozen=True, slots=True, eq=False)
class LooseRows:
    """Rows that are more than numbers, each as JSON had it."""

    rows: list[Any]

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.rows)

    def listed(self, most: int | None = None) -> list[Any]:
        """The first `most`."""
        return self.rows if most is None else self.rows[:most]


ManyRows = PackedRows | LooseRows


def many_in(rows: Any) -> ManyRows | None:
    """What stands in the place of rows: alone, as a matrix's data do, or in a list of one, as GraphQL makes of it."""
    if type(rows) is list and len(rows) == 1:
        rows = rows[0]
    return rows if isinstance(rows, ManyRows) else None


def listed(rows: Any, most: int | None = None) -> Any:
    """Rows as JSON had them, whatever stands in their place; the first `most`."""
    many = many_in(rows)
    return rows[:most] if many is None else many.listed(most)


def pack(rows: list[Any], *, booleans: bool = True) -> PackedRows | None:
    """Objects or lists of the same columns, all numbers or null, without losing a bit; None for anything else.

    `booleans`: whether there may be true and false among them, which would become numbers.
    """
    names = tuple(rows[0]) if rows and type(rows[0]) is dict else None
    lists = _lists(rows, names)
    if not lists or not lists[0]:
        return None
    try:
        numbers = _with_null(lists) if booleans else _numbers(lists)
    except (OverflowError, ValueError):  # no double is so large; rows are not of one shape
        return None
    return None if numbers is None or _may_be_inexact(numbers) else PackedRows(names, numbers)


def _may_be_inexact(numbers: NDArray[np.float64]) -> bool:
    """Whether one is so large that two whole numbers may be one double. Largest and smallest are sooner found, and mostly say no."""
    if numbers.max(initial=0.0) < _LARGEST_EXACT_INTEGER and numbers.min(initial=0.0) > -_LARGEST_EXACT_INTEGER:
        return False
    return bool((np.abs(numbers) >= _LARGEST_EXACT_INTEGER).any())  # NaN is none


def _numbers(lists: list[Any]) -> NDArray[np.float64] | None:
    """(rows, columns), null as NaN; None where there is something else. Three times as fast as arrays are made of lists."""
    width = len(lists[0])
    try:
        packed = bytearray().join(starmap(Struct(f"{width}d").pack, lists))
    except NotNumbers:
        return _with_null(lists)
    return np.frombuffer(packed).reshape(len(lists), width)


def _with_null(lists: list[Any]) -> NDArray[np.float64] | None:
    """As `_numbers`, where there may be null, true and false."""
    if not set(map(type, chain.from_iterable(lists))) <= _NUMBERS_AND_NULL:
        return None
    return np.array(lists, dtype=np.float64)


def _lists(rows: list[Any], names: tuple[str, ...] | None) -> list[Any] | None:
    """Each row's values, of objects in the order of `names`; None where the rows are not of one shape."""
    if set(map(type, rows)) != {list if names is None else dict} or len(set(map(len, rows))) != 1:
        return None
    if names is None or len(names) < 2:
        return rows if names is None else [[row[name] for name in names if name in row] for row in rows]
    try:
        return list(map(itemgetter(*names), rows))
    except KeyError:
        return None
