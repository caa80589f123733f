"""From what a service answered to what the selection set asks for, as graphql-core would write it."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import UUID

from graphql import (
    GRAPHQL_MAX_INT,
    GRAPHQL_MIN_INT,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLString,
    Undefined,
)
from strawberry.execution import optimized_is_awaitable

from app.graphql.plans.inputs import Unplannable

if TYPE_CHECKING:
    from graphql import GraphQLField

    from app.graphql.plans.selections import Selection, Selections

Write = Callable[[Any], Any]
Fits = Callable[[Any], bool]


class Odd(Exception):
    """A value that is not simply of its type: graphql-core converts it or says what is wrong."""


def object_writer(selections: Selections, type_: GraphQLObjectType, chosen: list[Selection]) -> Write:
    """Writes an object of `type_`; raises Odd. Of an object whose fields have resolvers of their own: Unplannable."""
    if type_.is_type_of is not None:
        raise Unplannable
    blank: dict[str, Any] = {}
    fields: list[tuple[str, str, type, Fits | None, Write, bool]] = []
    for key, same in selections.below(type_, chosen).items():
        name = same[0].node.name.value
        if name == "__typename":
            blank[key] = type_.name
            continue
        field = type_.fields[name]
        nullable = not isinstance(field.type, GraphQLNonNull)
        fields.append((key, _attribute(field), *_plain(field), _writer(selections, field.type, same), nullable))
        blank[key] = None

    def write(source: Any) -> dict[str, Any]:
        if isinstance(source, _NO_OBJECTS):
            raise Odd
        written = blank.copy()
        for key, attribute, plain, fits, write_value, nullable in fields:
            value = getattr(source, attribute)
            if type(value) is plain and (fits is None or fits(value)):
                written[key] = value
            elif value is not None:
                written[key] = write_value(value)
            elif not nullable:
                raise Odd
        return written

    return write


def _writer(selections: Selections, type_: Any, chosen: list[Selection]) -> Write:
    if isinstance(type_, GraphQLNonNull):
        return _writer(selections, type_.of_type, chosen)
    if isinstance(type_, GraphQLList):
        return _list_writer(_writer(selections, type_.of_type, chosen), nullable=not isinstance(type_.of_type, GraphQLNonNull))
    if isinstance(type_, GraphQLObjectType):
        return object_writer(selections, type_, chosen)
    if isinstance(type_, GraphQLEnumType):
        return _enum_writer(type_)
    if isinstance(type_, GraphQLScalarType):
        return _SPECIFIED.get(type_) or _scalar_writer(type_)
    raise Unplannable


def _attribute(field: GraphQLField) -> str:
    """Of the source object; raises Unplannable where more than an attribute is asked."""
    definition = field.extensions.get("strawberry-definition")
    if definition is None or not definition.is_basic_field or definition.default_resolver is not getattr or field.args:
        raise Unplannable
    return str(definition.python_name)


def _plain(field: GraphQLField) -> tuple[type, Fits | None]:
    """Which values are written as they are, without a call of their writer: of which class, and of what holds besides."""
    return _PLAIN.get(field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type, (Odd, None))


def _list_writer(write_item: Write, *, nullable: bool) -> Write:
    def write(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Odd
        if nullable:
            return [None if item is None else write_item(item) for item in value]
        return [write_item(item) for item in value]

    return write


def _enum_writer(type_: GraphQLEnumType) -> Write:
    python_type = getattr(type_, "wrapped_cls", None)
    if python_type is None:
        raise Unplannable
    names = {member: type_.coerce_output_value(member) for member in python_type}

    def write(value: Any) -> str:
        if type(value) is not python_type:
            raise Odd
        return names[value]

    return write


def _scalar_writer(type_: GraphQLScalarType) -> Write:
    serialize = type_.coerce_output_value

    def write(value: Any) -> Any:
        if isinstance(value, _NO_OBJECTS) or optimized_is_awaitable(value):
            raise Odd
        written = serialize(value)
        if written is None or written is Undefined:
            raise Odd
        return written

    return write


def _string(value: Any) -> Any:
    if type(value) is not str:
        raise Odd
    return value


def _id(value: Any) -> Any:
    if type(value) is UUID or type(value) is str:  # orjson writes a UUID as str() does, and faster
        return value
    if not isinstance(value, UUID):  # a driver's own kind, which orjson does not know
        raise Odd
    return str(value)


def _int(value: Any) -> Any:
    if type(value) is not int or not GRAPHQL_MIN_INT <= value <= GRAPHQL_MAX_INT:
        raise Odd
    return value


def _float(value: Any) -> Any:
    if type(value) is not float or not isfinite(value):
        raise Odd
    return value


def _boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise Odd
    return value


_NO_OBJECTS = (type(None), Exception)
_SPECIFIED: dict[GraphQLScalarType, Write] = {
    GraphQLBoolean: _boolean,
    GraphQLFloat: _float,
    GraphQLID: _id,
    GraphQLInt: _int,
    GraphQLString: _string,
}
_PLAIN: dict[Any, tuple[type, Fits | None]] = {
    GraphQLBoolean: (bool, None),
    GraphQLFloat: (float, isfinite),
    GraphQLID: (UUID, None),
    GraphQLInt: (int, range(GRAPHQL_MIN_INT, GRAPHQL_MAX_INT + 1).__contains__),
    GraphQLString: (str, None),
}
