"""Several queries as one statement: one journey to the server, one snapshot, no transaction to begin and end.

A process that serves has much to do between two answers of the database, so that each journey may take it several milliseconds.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB, asyncpg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select

Rows = list[Any]  # named tuples, fields named as the query's columns


class Together:
    """The rows of each of `queries`, by its name. Their parameters are given to `read` by name, those without a value of their own."""

    def __init__(self, queries: Mapping[str, Select[*tuple[Any, ...]]]) -> None:
        arrays = [_as_array(query).label(name) for name, query in queries.items()]
        dialect = asyncpg.PGDialect_asyncpg()  # type: ignore[no-untyped-call]
        compiled = select(*arrays).compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        self._sql = str(compiled)
        self._places: list[str] = list(getattr(compiled, "positiontup", None) or ())
        self._values = dict(compiled.params)
        self._shapes = [_Shape(name, query) for name, query in queries.items()]

    async def read(self, connection: Any, **parameters: Any) -> dict[str, Rows]:
        """The rows, read over a connection of the driver (asyncpg), whose errors pass."""
        values = self._values | parameters
        found = await connection.fetchrow(self._sql, *(values[name] for name in self._places))
        return {shape.name: shape.rows(found[index]) for index, shape in enumerate(self._shapes)}


class _Shape:
    """What the rows of one query look like."""

    def __init__(self, name: str, query: Select[Any]) -> None:
        columns = list(query.selected_columns)
        self.name = name
        self._row: Any = namedtuple(name, [str(column.key) for column in columns])  # type: ignore[misc]  # noqa: PYI024  known at run time
        self._json = [index for index, column in enumerate(columns) if isinstance(column.type, JSONB)]

    def rows(self, found: list[tuple[Any, ...]] | None) -> Rows:
        return [self._row._make(self._decoded(values)) for values in found or ()]

    def _decoded(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._json:
            return values
        decoded = list(values)
        for index in self._json:
            if decoded[index] is not None:
                decoded[index] = orjson.loads(decoded[index])
        return tuple(decoded)


def _as_array(query: Select[Any]) -> Any:
    # As text: whether a connection of the driver decodes JSON depends on who made it.
    plain = [cast(column, Text).label(column.key) if isinstance(column.type, JSONB) else column for column in query.selected_columns]
    rows = query.with_only_columns(*plain).subquery()
    return select(func.array_agg(rows.table_valued())).scalar_subquery()
