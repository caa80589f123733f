"""Rows of several queries as plain values that JSON holds, and back: exactly what the database would have answered."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections import defaultdict, namedtuple
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from sqlalchemy import DateTime, LargeBinary, Uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Select

    from app.db.together import Rows

Plain = dict[str, list[list[Any]]]  # by query's name


class FrozenRows:
    """For the rows of `queries`. `owner`: the column that says whose a row is; rows of a query without it are `nobody`'s."""

    def __init__(self, queries: Mapping[str, Select[*tuple[Any, ...]]], owner: str, nobody: UUID) -> None:
        self._nobody = nobody
        self._columns = {name: [(str(column.key), column.type) for column in query.selected_columns] for name, query in queries.items()}
        self._places = {name: _place(owner, columns) for name, columns in self._columns.items()}
        self._rows: dict[str, Any] = {
            name: namedtuple(name, [key for key, _ in columns])  # noqa: PYI024  known at run time
            for name, columns in self._columns.items()
        }

    @property
    def shape(self) -> str:
        """16 hex digits: the queries, their columns and types. Rows that were kept under another shape are of another program."""
        said = {name: [(key, type(kind).__name__) for key, kind in columns] for name, columns in sorted(self._columns.items())}
        return hashlib.sha256(orjson.dumps(said)).hexdigest()[:16]

    def by_owner(self, rows: Mapping[str, Rows]) -> dict[UUID, Plain]:
        """The rows as plain values, by whose they are. The same rows give the same values, in whatever order they came."""
        found: dict[UUID, Plain] = defaultdict(dict)
        for name, columns in self._columns.items():
            writers = [_writer(kind) for _, kind in columns]
            place = self._places[name]
            for row in rows[name]:
                whose = self._nobody if place is None else UUID(str(row[place]))
                plain = [value if write is None or value is None else write(value) for write, value in zip(writers, row, strict=True)]
                found[whose].setdefault(name, []).append(plain)
        for plain_rows in found.values():
            for each in plain_rows.values():
                each.sort(key=_by_first)
        return found

    def thaw(self, kept: Iterable[Plain]) -> dict[str, Rows]:
        """All of them together, as the queries gave them. Raises ValueError, TypeError or KeyError for what is no such thing."""
        rows: dict[str, Rows] = {name: [] for name in self._columns}
        readers = {name: [_reader(kind) for _, kind in columns] for name, columns in self._columns.items()}
        for each in kept:
            for name, plain_rows in each.items():
                make, of = self._rows[name]._make, readers[name]
                rows[name] += [
                    make(value if read is None or value is None else read(value) for read, value in zip(of, plain, strict=True))
                    for plain in plain_rows
                ]
        return rows


def _by_first(row: list[Any]) -> bytes:
    """The first columns tell the rows of each query apart; the others may be large."""
    return orjson.dumps(row[:4])


def _place(owner: str, columns: list[tuple[str, Any]]) -> int | None:
    names = [key for key, _ in columns]
    return names.index(owner) if owner in names else None


def _writer(kind: Any) -> Callable[[Any], Any] | None:
    if isinstance(kind, Uuid):
        return str
    if isinstance(kind, DateTime):
        return datetime.isoformat
    if isinstance(kind, LargeBinary):
        return lambda value: b64encode(value).decode()
    return None


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    if isinstance(kind, Uuid):
        return UUID
    if isinstance(kind, DateTime):
        return datetime.fromisoformat
    if isinstance(kind, LargeBinary):
        return b64decode
    return None
