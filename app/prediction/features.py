"""Rows as the client sent them, checked against a signature and turned into arrays. Pure: the sandbox uses it too.

Three ways to one result. `OneRow` takes a single row that is plainly in order. `_fast` looks at all rows at once and answers only where
everything is in order; `_explain` walks the cells of what it refused and names each wrong column. None of them changes a value: "41" is
no NUMBER, 1 is no BOOLEAN.
"""

from __future__ import annotations

import sys
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from app.errors import InvalidFeatures, InvalidInput
from app.kernel.packed import ManyRows, PackedRows, many_in
from app.kernel.signature import Column, ColumnType, Signature
from app.kernel.tensors import Batch, joined
from app.prediction.one_row import LARGEST_EXACT_INTEGER, OneRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

LARGEST_BATCH = 10_000
LARGEST_ANSWER_CELLS = 500_000  # rows x classes
CELLS_OFF_LOOP = 20_000  # checking more than this would hold the loop for longer than another request should wait
_SLICE_CELLS = 10_000
_MOST_PROBLEMS = 100
_MOST_SHOWN, _LONGEST_LIST, _LONGEST_NAME = 500, 1_000, 256  # of names and categories in a problem's text
_PLAIN_NUMBERS = frozenset({float, int})
_NUMBERS_AND_NULL = frozenset({float, int, type(None)})
_EXPECTED = {
    ColumnType.NUMBER: "a finite number",
    ColumnType.INTEGER: "a whole number",
    ColumnType.STRING: "a text",
    ColumnType.BOOLEAN: "true or false",
}
_JSON_NAMES = {bool: "a boolean", int: "a number", float: "a number", str: "a text", type(None): "null", dict: "an object", list: "a list"}


def batch_from_rows(signature: Signature, rows: Sequence[Any]) -> Batch:
    """The rows (objects keyed by column name, or lists in column order) as arrays; raises InvalidFeatures naming every wrong column."""
    return RowChecker(signature).rows(rows)


class RowChecker:
    """A signature made ready to check rows; one a version, kept for its life."""

    def __init__(self, signature: Signature) -> None:
        self.columns = signature.columns
        self._names = tuple(column.name for column in signature.columns)
        self._known = frozenset(self._names)
        self._names_shown = _shown(self._names)
        self._categories = {c.name: frozenset(c.categories) for c in signature.columns if c.categories is not None}
        self._number_at = [i for i, c in enumerate(signature.columns) if c.type is not ColumnType.STRING]
        self._text_at = [i for i, c in enumerate(signature.columns) if c.type is ColumnType.STRING]
        numeric = [self.columns[i] for i in self._number_at]
        self._only_numbers = not self._text_at
        self._booleans = [k for k, c in enumerate(numeric) if c.type is ColumnType.BOOLEAN]
        self._integers = np.array([k for k, c in enumerate(numeric) if c.type is ColumnType.INTEGER], dtype=np.intp)
        self._required = np.array([c.required for c in numeric], dtype=bool)
        self._bounded = any(c.minimum is not None or c.maximum is not None for c in numeric)
        self._low = np.array([-np.inf if c.minimum is None else c.minimum for c in numeric])
        self._high = np.array([np.inf if c.maximum is None else c.maximum for c in numeric])
        self._one_row = OneRow(signature)

    def row(self, row: Any) -> Batch:
        """Checked arrays of one object or positional list; raises InvalidFeatures."""
        return self._one_row.fits(row) or self._at_once((row,))

    def rows(self, rows: Sequence[Any]) -> Batch:
        """Checked arrays of objects, positional lists or ManyRows; raises InvalidFeatures."""
        many = many_in(rows)
        if many is not None:
            return (isinstance(many, PackedRows) and self._packed(many)) or self.rows(many.listed())
        return self.row(rows[0]) if len(rows) == 1 else self._at_once(rows)

    def matrix(self, matrix: Any) -> Batch:
        """Checked arrays of {"columns": [...], "data": [[...], ...]}, `columns` left out: signature order; raises InvalidFeatures."""
        names, data = _matrix_parts(matrix)
        if names is None or names == list(self._names):
            return self.rows(data)
        self._check_names(names)
        many = many_in(data)
        if isinstance(many, PackedRows) and many.names is None:
            named = PackedRows(tuple(names), many.numbers)
            return self._packed(named) or self.rows(self._named_rows(names, many.listed()))
        return self.rows(self._named_rows(names, data if many is None else many.listed()))

    def _packed(self, packed: PackedRows) -> Batch | None:
        """As `_fast`, of rows that are an array already; None where it cannot tell, or something is wrong."""
        numbers = packed.numbers
        if not self._only_numbers or self._booleans or numbers.shape[1] != len(self._names):
            return None
        if packed.names is not None and packed.names != self._names:
            place = {name: at for at, name in enumerate(packed.names)}
            if place.keys() != self._known:
                return None
            numbers = np.ascontiguousarray(numbers[:, [place[name] for name in self._names]])
        missing = np.isnan(numbers)
        return Batch(packed.count, numbers) if self._in_range(numbers, missing if missing.any() else None) else None

    def _at_once(self, rows: Sequence[Any]) -> Batch:
        return self._in_slices(rows) or self._explain(rows)

    def _in_slices(self, rows: Sequence[Any]) -> Batch | None:
        """All rows' arrays; each slice takes so little time that a thread does not keep the interpreter from others."""
        batches = []
        for _, part in self._slices(rows):
            batch = self._fitting(part)
            if batch is None:
                return None
            batches.append(batch)
        return batches[0] if len(batches) == 1 else joined(batches)

    def _slices(self, rows: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Each with the number of its first row; of no rows one that is empty."""
        each = max(1, _SLICE_CELLS // max(1, len(self._names)))
        for start in range(0, max(1, len(rows)), each):
            yield start, rows[start : start + each]

    def _fitting(self, rows: Sequence[Any]) -> Batch | None:
        lists = [self._positional(row) for row in rows]
        return None if any(values is None for values in lists) else self._fast(lists)

    def _positional(self, row: Any) -> list[Any] | None:
        """The row's values in column order, None for a column left out; None where the row itself is out of shape."""
        if type(row) is dict:
            if row.keys() == self._known:
                return [row[name] for name in self._names]
            return [row.get(name) for name in self._names] if row.keys() <= self._known else None
        return row if type(row) is list and len(row) == len(self._names) else None

    def _fast(self, lists: list[Any]) -> Batch | None:
        numbers = lists if self._only_numbers else [[values[i] for i in self._number_at] for values in lists]
        matrix = self._numbers(numbers)
        if matrix is None:
            return None
        texts = []
        for i in self._text_at:
            column = tuple(values[i] for values in lists)
            if not _texts_fit(self.columns[i], column, self._categories.get(self._names[i])):
                return None
            texts.append(column)
        return Batch(len(lists), matrix, tuple(texts))

    def _numbers(self, rows: list[list[Any]]) -> NDArray[np.float64] | None:
        """(rows, k) float64 where every value fits its column, else None."""
        if not self._number_at:
            return np.empty((len(rows), 0))
        kinds = set(map(type, chain.from_iterable(rows)))
        if self._booleans:
            if not self._booleans_fit(rows):
                return None
            kinds.discard(bool)
        if not kinds <= _NUMBERS_AND_NULL:
            return None
        try:
            matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(self._number_at))
        except OverflowError:
            return None
        missing = np.array([[value is None for value in row] for row in rows], dtype=bool) if type(None) in kinds else None
        return matrix if self._in_range(matrix, missing) else None

    def _booleans_fit(self, rows: list[list[Any]]) -> bool:
        boolean = set(self._booleans)
        return all((type(value) is bool) == (k in boolean) or value is None for row in rows for k, value in enumerate(row))

    def _in_range(self, matrix: NDArray[np.float64], missing: NDArray[np.bool_] | None) -> bool:
        present = matrix
        if missing is not None:
            if (missing & self._required).any():
                return False
            present = np.where(
                missing, np.where(np.isfinite(self._low), self._low, np.where(np.isfinite(self._high), self._high, 0.0)), matrix
            )
        if not np.isfinite(present).all():
            return False
        if self._integers.size:
            whole = matrix[:, self._integers] if missing is None else np.where(missing, 0.0, matrix)[:, self._integers]
            if (whole != np.floor(whole)).any() or (np.abs(whole) > LARGEST_EXACT_INTEGER).any():
                return False
        return not self._bounded or bool(((present >= self._low) & (present <= self._high)).all())

    def _check_names(self, names: list[str]) -> None:
        """Raises InvalidInput, before anything is made of the rows."""
        if len(names) > len(self._names) + _MOST_PROBLEMS:
            raise InvalidInput(f"matrix.columns names {len(names):,} columns; the model has {len(self._names):,}.")
        if len(set(names)) != len(names):
            raise InvalidInput("matrix.columns names a column twice.")

    @staticmethod
    def _named_rows(names: list[str], data: list[Any]) -> list[Any]:
        for number, row in enumerate(data):
            if type(row) is not list or len(row) != len(names):
                raise InvalidInput(f"matrix.data[{number}] must be a list of {len(names)} values, one for each of matrix.columns.")
        return [dict(zip(names, row, strict=True)) for row in data]

    def _explain(self, rows: Sequence[Any]) -> NoReturn:
        problems: list[dict[str, Any]] = []
        many = len(rows) > 1
        suspects = chain.from_iterable(enumerate(part, start) for start, part in self._slices(rows) if self._fitting(part) is None)
        for number, row in suspects:
            found = islice(self._row_problems(row), _MOST_PROBLEMS - len(problems))
            problems += [{**problem, "row": number} for problem in found] if many else found
            if len(problems) == _MOST_PROBLEMS:
                break
        named = ", ".join(dict.fromkeys(map(_where, problems[:10])))
        more = ", …" if len(problems) > 10 else ""
        raise InvalidFeatures(f"The features do not fit the model's signature: {named}{more}. See problems.", problems=problems)

    def _row_problems(self, row: Any) -> Iterator[dict[str, Any]]:
        if type(row) is list:
            if len(row) != len(self._names):
                yield _problem(None, "SHAPE", f"{len(self._names)} values in the order {self._names_shown}", f"{len(row)} values")
                return
            row = dict(zip(self._names, row, strict=True))
        if type(row) is not dict:
            got = _JSON_NAMES.get(type(row), "something else")
            yield _problem(None, "SHAPE", "an object keyed by column name, or a list in column order", got)
            return
        for column in self.columns:
            if problem := _cell_problem(column, row, self._categories.get(column.name)):
                yield problem
        for name in row:
            if name not in self._known:
                yield _problem(_cut(name), "UNKNOWN", f"one of {self._names_shown}", "a column that the model does not have")


def _matrix_parts(matrix: Any) -> tuple[list[str] | None, Any]:
    if type(matrix) is not dict or not set(matrix) <= {"columns", "data"} or not isinstance(matrix.get("data"), list | ManyRows):
        raise InvalidInput('matrix must be {"columns": ["age", "city"], "data": [[41, "Oslo"]]}; "columns" may be left out.')
    names = matrix.get("columns")
    if names is not None and (type(names) is not list or not all(type(name) is str for name in names)):
        raise InvalidInput("matrix.columns must be a list of column names.")
    return names, matrix["data"]


def _texts_fit(column: Column, values: tuple[Any, ...], categories: frozenset[str] | None) -> bool:
    kinds = set(map(type, values))
    if type(None) in kinds:
        if column.required:
            return False
        kinds.discard(type(None))
    if not kinds <= {str}:
        return False
    return categories is None or {value for value in values if value is not None} <= categories


def _problem(name: str | None, problem: str, expected: str, got: str) -> dict[str, Any]:
    return {"name": name, "problem": problem, "expected": expected, "got": got}


def _where(problem: dict[str, Any]) -> str:
    """What a sentence calls the problem by: its column, or the row that is out of shape."""
    name = problem["name"]
    if name is None:
        return f"the shape of row {problem['row']}" if "row" in problem else "the shape of the row"
    return name or '""'


def _shown(texts: Sequence[str]) -> str:
    """The first of them, as many as a message takes."""
    return ", ".join(texts[:_MOST_SHOWN])[:_LONGEST_LIST]


def _cut(name: str) -> str:
    """A name that the client made up, as short as a column's own may be."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _cell_problem(column: Column, row: dict[str, Any], categories: frozenset[str] | None) -> dict[str, Any] | None:
    """What is wrong with one column of one row: MISSING, TYPE, NOT_FINITE, RANGE or CATEGORY; None where nothing is."""
    value = row.get(column.name)
    if value is None:
        if not column.required:
            return None
        return _problem(column.name, "MISSING", _EXPECTED[column.type], "null" if column.name in row else "nothing")
    if not _type_fits(column.type, value):
        return _problem(column.name, "TYPE", _EXPECTED[column.type], _JSON_NAMES.get(type(value), "something else"))
    if column.type is ColumnType.STRING:
        if categories is not None and value not in categories:
            return _problem(column.name, "CATEGORY", f"one of {_shown(column.categories or ())}", "a text that is none of them")
        return None
    if not abs(value) <= sys.float_info.max:
        return _problem(column.name, "NOT_FINITE", _EXPECTED[column.type], "a number beyond the range of a 64-bit float")
    low, high = column.minimum, column.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        wanted = f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
        return _problem(column.name, "RANGE", wanted, f"{value:g}")
    return None


def _type_fits(kind: ColumnType, value: Any) -> bool:
    if kind is ColumnType.STRING:
        return type(value) is str
    if kind is ColumnType.BOOLEAN:
        return type(value) is bool
    if type(value) not in _PLAIN_NUMBERS:
        return False
    return kind is ColumnType.NUMBER or (abs(value) <= LARGEST_EXACT_INTEGER and value == int(value))
