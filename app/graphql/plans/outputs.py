"""From what a service answered to what the selection set asks for, as graphql-core would write it."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from operator import attrgetter
from types import NoneType
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
    from collections.abc import Iterable

    from graphql import GraphQLField

    from app.graphql.plans.selections import Selection, Selections

Write = Callable[[Any], Any]
Way = Callable[[type], Write | None]  # how values of a class are written, None: as they are; raises Odd where they have no place


class Odd(Exception):
    """A value that is not simply of its type: graphql-core converts it or says what is wrong."""


def object_writer(selections: Selections, type_: GraphQLObjectType, chosen: list[Selection]) -> Write:
    """Writes an object of `type_`; raises Odd. Of an object whose fields have resolvers of their own: Unplannable."""
    if type_.is_type_of is not None:
        raise Unplannable
    blank: dict[str, Any] = {}
    ways: dict[str, Way] = {}
    attributes: list[str] = []
    for key, same in selections.below(type_, chosen).items():
        name = same[0].node.name.value
        blank[key] = type_.name
        if name != "__typename":
            field = type_.fields[name]
            attributes.append(_attribute(field))
            ways[key] = _way(selections, field.type, same)
    read = _reader(attributes)
    changes: dict[tuple[type, ...], list[tuple[str, Write]]] = {}  # by the classes of the values, of which there are few

    def write(source: Any) -> dict[str, Any]:
        if isinstance(source, _NO_OBJECTS):
            raise Odd
        values = read(source)
        kinds = tuple(map(type, values))
        changed = changes.get(kinds)
        if changed is None:
            changed = changes[kinds] = [
                (key, change) for (key, way), kind in zip(ways.items(), kinds, strict=True) if (change := way(kind))
            ]
        written = blank | dict(zip(ways, values, strict=True))
        for key, change in changed:
            written[key] = change(written[key])
        return written

    return write


def _reader(attributes: list[str]) -> Callable[[Any], Iterable[Any]]:
    """What gives the values of these attributes, in this order."""
    if len(attributes) > 1:
        return attrgetter(*attributes)
    return lambda source: [getattr(source, attribute) for attribute in attributes]


def _way(selections: Selections, type_: Any, chosen: list[Selection]) -> Way:
    if isinstance(type_, GraphQLNonNull):
        return _way_of_some(selections, type_.of_type, chosen)
    way = _way_of_some(selections, type_, chosen)
    return lambda kind: None if kind is NoneType else way(kind)


def _way_of_some(selections: Selections, type_: Any, chosen: list[Selection]) -> Way:
    """Of values that are not null."""
    if isinstance(type_, GraphQLList):
        return _only(list, write=_list_writer(_way(selections, type_.of_type, chosen)))
    if isinstance(type_, GraphQLObjectType):
        return _any(object_writer(selections, type_, chosen))
    if isinstance(type_, GraphQLEnumType):
        return _way_of_enum(type_)
    if isinstance(type_, GraphQLScalarType):
        return _SPECIFIED.get(type_) or _any(_scalar_writer(type_))
    raise Unplannable


def _attribute(field: GraphQLField) -> str:
    """Of the source object; raises Unplannable where more than an attribute is asked."""
    definition = field.extensions.get("strawberry-definition")
    if definition is None or not definition.is_basic_field or definition.default_resolver is not getattr or field.args:
        raise Unplannable
    return str(definition.python_name)


def _only(*kinds: type, write: Write | None = None) -> Way:
    def way(kind: type) -> Write | None:
        if kind not in kinds:
            raise Odd
        return write

    return way


def _any(write: Write) -> Way:
    """Of what is looked at when it is written."""
    return lambda _: write


def _list_writer(way: Way) -> Write:
    def write(items: list[Any]) -> list[Any]:
        changes = {kind: way(kind) for kind in set(map(type, items))}
        if not any(changes.values()):
            return items
        return [item if (change := changes[type(item)]) is None else change(item) for item in items]

    return write


def _way_of_enum(type_: GraphQLEnumType) -> Way:
    python_type = getattr(type_, "wrapped_cls", None)
    if python_type is None:
        raise Unplannable
    return _only(python_type, write={member: type_.coerce_output_value(member) for member in python_type}.__getitem__)


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


def _way_of_id(kind: type) -> Write | None:
    if kind is UUID or kind is str:  # orjson writes a UUID as str() does, and faster
        return None
    if not issubclass(kind, UUID):  # a driver's own kind, which orjson does not know
        raise Odd
    return str


def _int(value: int) -> int:
    if not GRAPHQL_MIN_INT <= value <= GRAPHQL_MAX_INT:
        raise Odd
    return value


def _float(value: float) -> float:
    if not isfinite(value):
        raise Odd
    return value


_NO_OBJECTS = (NoneType, Exception)
_SPECIFIED: dict[GraphQLScalarType, Way] = {
    GraphQLBoolean: _only(bool),
    GraphQLFloat: _only(float, write=_float),
    GraphQLID: _way_of_id,
    GraphQLInt: _only(int, write=_int),
    GraphQLString: _only(str),
}
