"""What a model version takes: columns with types, and how its estimator is called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any


class Task(StrEnum):
    CLASSIFICATION = "CLASSIFICATION"
    REGRESSION = "REGRESSION"


class ColumnType(StrEnum):
    NUMBER = "NUMBER"  # any finite JSON number
    INTEGER = "INTEGER"  # a whole number: 41 and 41.0
    STRING = "STRING"
    BOOLEAN = "BOOLEAN"


class InputKind(StrEnum):
    """How the estimator was trained, and so how it is called."""

    FRAME = "FRAME"  # a pandas data frame of these columns
    ARRAY = "ARRAY"  # a two-dimensional array: float64, or object where a column is STRING
    TEXT = "TEXT"  # a sequence of strings: one STRING column


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: ColumnType
    required: bool = True  # False: takes null, which stands for a missing value
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None  # None: any

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type.value,
            "required": self.required,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "categories": None if self.categories is None else list(self.categories),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Column:
        categories = data.get("categories")
        plain = (data["name"], ColumnType(data["type"]), data.get("required", True), data.get("minimum"), data.get("maximum"))
        return _column(*plain) if categories is None else cls(*plain, categories=tuple(categories))


@lru_cache(maxsize=10_000, typed=True)
def _column(*fields: Any) -> Column:
    """One object for all plain columns that are the same: a process knows very many, and models of a tenant share most."""
    return Column(*fields)


@dataclass(frozen=True, slots=True)
class Signature:
    """The columns in order, and the call. `none_columns` names STRING columns whose estimator learnt a missing value as
    None rather than NaN.
    """

    columns: tuple[Column, ...]
    kind: InputKind
    none_columns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"columns": [c.to_json() for c in self.columns], "kind": self.kind.value, "noneColumns": list(self.none_columns)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Signature:
        return cls(
            columns=tuple(Column.from_json(c) for c in data["columns"]),
            kind=InputKind(data["kind"]),
            none_columns=tuple(data.get("noneColumns", ())),
        )
