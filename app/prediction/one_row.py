"""One row checked against a signature without arrays: for a single row, making and reducing them costs more than looking at each value."""

from __future__ import annotations

from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from app.kernel.signature import Column, ColumnType, Signature
from app.kernel.tensors import Row

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_EXACT_INTEGER = 2**53
_NUMBERS = frozenset({float, int})
_NULL = type(None)
_INFINITE = float("inf")
Values = tuple[Any, ...] | list[Any]


class OneRow:
    """`fits(row)` gives the row's batch where everything is in order, and None where that is not plain at once: then others look."""

    def __init__(self, signature: Signature) -> None:
        columns = signature.columns
        self._width = len(columns)
        self._by_name = _picker(tuple(column.name for column in columns))
        texts = [k for k, column in enumerate(columns) if column.type is ColumnType.STRING]
        self._texts = [(k, None if (found := columns[k].categories) is None else frozenset(found)) for k in texts]
        numbers = [k for k in range(len(columns)) if k not in set(texts)]
        self._numbers = _picker(numbers) if texts else None  # None: all of them
        kept = [columns[k] for k in numbers]
        self._booleans = tuple(column.type is ColumnType.BOOLEAN for column in kept)
        self._has_booleans = any(self._booleans)
        self._required = [k for k, column in enumerate(kept) if column.required]
        self._whole = [k for k, column in enumerate(kept) if column.type is ColumnType.INTEGER]
        self._inside = [_inside(column) for column in kept]  # what stands for null
        self._bounds = [
            (k, -_INFINITE if column.minimum is None else column.minimum, _INFINITE if column.maximum is None else column.maximum)
            for k, column in enumerate(kept)
            if column.minimum is not None or column.maximum is not None
        ]

    def fits(self, row: Any) -> Row | None:
        """A row as an object keyed by column name, or a list in column order."""
        kind = type(row)
        if (kind is not list and kind is not dict) or len(row) != self._width:
            return None
        try:
            values = row if kind is list else self._by_name(row)
        except KeyError:
            return None
        texts = self._texts_of(values) if self._texts else ()
        if texts is None:
            return None
        numbers = values if self._numbers is None else self._numbers(values)
        kinds = set(map(type, numbers))
        filled = numbers if _NULL not in kinds else self._filled(numbers, kinds)
        return Row(numbers, texts) if self._are_in_order(filled, kinds) else None

    def _texts_of(self, values: Values) -> tuple[tuple[str], ...] | None:
        texts = tuple([(values[k],) for k, categories in self._texts if _fits(values[k], categories)])
        return texts if len(texts) == len(self._texts) else None

    def _filled(self, numbers: Values, kinds: set[type]) -> Values:
        """With a number that is in order for each null that may be there."""
        if self._has_booleans or any(numbers[k] is None for k in self._required):
            return numbers
        kinds.discard(_NULL)
        return [self._inside[k] if value is None else value for k, value in enumerate(numbers)]

    def _are_in_order(self, numbers: Values, kinds: set[type]) -> bool:
        """A number that is not finite makes the sum so, and a whole number beyond the floats makes an error."""
        if self._has_booleans:
            if tuple([type(value) is bool for value in numbers]) != self._booleans:
                return False
            kinds.discard(bool)
        if not kinds <= _NUMBERS:
            return False
        try:
            if not isfinite(sum(numbers, 0.0)):
                return False
        except OverflowError:
            return False
        for k, low, high in self._bounds:
            if not low <= numbers[k] <= high:
                return False
        for k in self._whole:
            value = numbers[k]
            if not -LARGEST_EXACT_INTEGER <= value <= LARGEST_EXACT_INTEGER or value != int(value):
                return False
        return True


def _fits(value: Any, categories: frozenset[str] | None) -> bool:
    return type(value) is str and (categories is None or value in categories)


def _inside(column: Column) -> float:
    low, high = column.minimum, column.maximum
    return low if low is not None else high if high is not None else 0.0


def _picker(keys: tuple[str, ...] | list[int]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of these keys, in this order."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda values: tuple([values[key] for key in keys])
