"""Scalars of the contract. Rows and results pass through as plain JSON or arrays: the services check and make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.schema.types.base_scalars import DateTimeDefinition
from strawberry.types.scalar import ScalarDefinition

from app.errors import InvalidInput

FeatureRow = NewType("FeatureRow", object)
FeatureMatrix = NewType("FeatureMatrix", object)
FloatVector = NewType("FloatVector", object)
FloatMatrix = NewType("FloatMatrix", object)
StringVector = NewType("StringVector", object)
Attributes = NewType("Attributes", object)
BigInt = NewType("BigInt", int)

_read_date_time: Any = DateTimeDefinition.parse_value
_LARGEST_BIG_INT = 2**53
_MOST_ATTRIBUTES = 64
_LONGEST_ATTRIBUTE = 256


def _same(value: Any) -> Any:
    return value


def _attributes(value: Any) -> Any:
    """A JSON object of strings; ValueError says what is wrong."""
    many = isinstance(value, dict) and len(value) > _MOST_ATTRIBUTES  # counted before anything is walked
    if not many and (not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values())):
        raise ValueError('Attributes must be a JSON object of strings, like {"country": "NO"}.')
    if many or any(len(k) > _LONGEST_ATTRIBUTE or len(v) > _LONGEST_ATTRIBUTE for k, v in value.items()):
        raise ValueError(f"Attributes may have {_MOST_ATTRIBUTES} entries of {_LONGEST_ATTRIBUTE} characters each.")
    return value


def _big_int(value: Any) -> int:
    """A whole number up to 2^53; ValueError otherwise."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_BIG_INT:
        raise ValueError("BigInt must be a whole number up to 2^53, as a JSON number.")
    return value


def _date_time(value: Any) -> datetime:
    """A time, aware where it has an offset; ValueError for one that UTC cannot hold, so that nobody behind has to think of it."""
    try:
        moment: datetime = _read_date_time(value)
        if moment.tzinfo is not None:
            moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("DateTime must be a time of the years 1 to 9999 in UTC.") from None
    except GraphQLError:
        raise ValueError("DateTime must be a time in ISO 8601 with its offset, like 2026-03-01T00:00:00Z.") from None
    return moment


def _scalar(name: str, description: str, parse: Any = _same, serialize: Any = _same) -> ScalarDefinition:
    return strawberry.scalar(name=name, description=description, serialize=serialize, parse_value=parse)


SCALARS: dict[object, ScalarDefinition] = {
    FeatureRow: _scalar(
        "FeatureRow",
        "One row of model input: an object keyed by column name, or a list in the signature's column order. "
        "null stands for a missing value and is taken only by a column that is not required.",
    ),
    FeatureMatrix: _scalar(
        "FeatureMatrix",
        'Many rows at once: {"columns": ["age", "city"], "data": [[41, "Oslo"]]}. "columns" may be left out: signature order.',
    ),
    FloatVector: _scalar("FloatVector", "A flat JSON list of numbers, one a row."),
    FloatMatrix: _scalar("FloatMatrix", "A JSON list of lists of numbers, one list a row."),
    StringVector: _scalar("StringVector", "A flat JSON list of strings, one a row."),
    Attributes: _scalar("Attributes", "Targeting attributes, a JSON object of strings. The tenant never comes from here.", _attributes),
    datetime: _scalar("DateTime", "Date with time (isoformat)", _date_time, DateTimeDefinition.serialize),
    BigInt: _scalar("BigInt", "A whole number up to 2^53, as a JSON number: counts outgrow Int.", _big_int, _big_int),
}


def given(value: Any) -> Any:
    """An optional argument as the services take it: None where it was left out."""
    return None if value is strawberry.UNSET else value


def moment(name: str, value: datetime | None) -> Any:
    """An optional time argument as the services take it: aware, None where it was left out. Raises InvalidInput without a UTC offset."""
    if given(value) is None:
        return None
    if value is None or value.utcoffset() is None:
        raise InvalidInput(f"{name} needs a UTC offset, like 2026-03-01T00:00:00Z.")
    return value
