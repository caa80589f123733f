"""A time that UTC cannot hold is no time, wherever the schema takes one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from graphql import ExecutionResult, GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType, execute, get_named_type, parse

from app.graphql.codes import ErrorCode
from app.graphql.errors import ErrorMapper
from app.graphql.schema import build_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit
SCHEMA = build_schema()._schema
TIMES = frozenset({"DateTime", "Date", "Time"})


def taken() -> Iterator[tuple[str, Any]]:
    """Each argument and each field of an input object that takes a time, and its type."""
    for name, type_ in SCHEMA.type_map.items():
        if isinstance(type_, GraphQLInputObjectType):
            yield from ((f"{name}.{field}", each.type) for field, each in type_.fields.items() if get_named_type(each.type).name in TIMES)
        elif isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for field, each in type_.fields.items():
                yield from ((f"{field}({arg})", a.type) for arg, a in each.args.items() if get_named_type(a.type).name in TIMES)


PLACES = dict(taken())


def asked(place: str, value: Any) -> ExecutionResult:
    """What a variable of the place's type comes to."""
    found = execute(SCHEMA, parse(f"query($at: {PLACES[place]}) {{ __typename }}"), variable_values={"at": value})
    assert isinstance(found, ExecutionResult)
    return found


def test_the_schema_takes_times_where_we_think_it_does() -> None:
    assert set(PLACES) >= {"usage(from)", "usage(to)", "auditLog(from)", "auditLog(to)", "OutcomeInput.occurredAt"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0001-01-01T00:00:00+14:00", "of the years 1 to 9999 in UTC"),
        ("9999-12-31T23:59:59-14:00", "of the years 1 to 9999 in UTC"),
        ("9999-12-31T24:00:00Z", "of the years 1 to 9999 in UTC"),
        ("0000-01-01T00:00:00Z", "in ISO 8601 with its offset"),
        ("soon", "in ISO 8601 with its offset"),
        (1_767_225_600, "in ISO 8601 with its offset"),
        (True, "in ISO 8601 with its offset"),
    ],
)
def test_no_place_takes_what_is_no_time(place: str, text: Any, why: str) -> None:
    found = asked(place, text)
    assert found.errors is not None
    problem = ErrorMapper(suggestions=False).input(found.errors[0], "r-1")
    assert problem.code is ErrorCode.BAD_USER_INPUT
    assert problem.message.startswith(f"Variable '$at' has invalid value: DateTime must be a time {why}")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-03-01T12:00:00+14:00", "2026-03-01"])
def test_every_place_takes_the_times_that_utc_holds(place: str, text: str) -> None:
    assert asked(place, text).errors is None
    moment = get_named_type(PLACES[place]).coerce_input_value(text)
    assert moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC) >= datetime(1, 1, 1, tzinfo=UTC)
