"""From a request's variables to the arguments of a call. What does not fit is left to graphql-core, which says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from graphql import (
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    ListValueNode,
    ObjectValueNode,
    Undefined,
    VariableNode,
)
from graphql.execution.get_variable_signature import get_variable_signature
from graphql.execution.values import VariableValues
from graphql.utilities import coerce_input_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from graphql import FieldNode, GraphQLField, GraphQLSchema, ValueNode, VariableDefinitionNode

Values = dict[str, Any]  # coerced variables by name; one that was left out and has no default is not there


class Unplannable(Exception):
    """The operation has something that a plan does not cover."""


class Unfit(Exception):
    """A value that does not fit its type."""


class Variable(NamedTuple):
    """One declared variable. `read` takes what was sent and is not null; `default` makes the value of one that was left out."""

    name: str
    read: Callable[[Any], Any]
    nullable: bool
    default: Callable[[], Any] | None


class FromVariable(NamedTuple):
    """An argument that is a variable, which may be null or left out."""

    argument: str
    variable: str
    required: bool


class Computed(NamedTuple):
    """An argument that is made for each request: it holds variables, or is a list or an object, which no two requests may share."""

    argument: str
    node: ValueNode
    type: Any


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call. `given`: those that are variables that always have a value, by name."""

    constants: dict[str, Any]
    given: tuple[tuple[str, str], ...]
    variables: tuple[FromVariable, ...]
    computed: tuple[Computed, ...]

    def of(self, values: Values) -> dict[str, Any] | None:
        """By name, without those that were left out; None where graphql-core would refuse one."""
        arguments = self.constants.copy()
        for argument, variable in self.given:
            arguments[argument] = values[variable]
        for argument, variable, required in self.variables:
            value = values.get(variable, Undefined)
            if required and (value is None or value is Undefined):
                return None
            if value is not Undefined:
                arguments[argument] = value
        for argument, node, type_ in self.computed:
            value = coerce_input_literal(node, type_, VariableValues({}, values))
            if value is Undefined:
                return None
            arguments[argument] = value
        return arguments


def compile_variables(schema: GraphQLSchema, nodes: Iterable[VariableDefinitionNode]) -> tuple[Variable, ...]:
    """Raises Unplannable where one is of an enum or an input type."""
    return tuple(_variable(schema, node) for node in nodes)


def read_variables(variables: tuple[Variable, ...], sent: Mapping[str, Any]) -> Values | None:
    """The variables as their types take them; None where one does not fit."""
    values: Values = {}
    try:
        for name, read, nullable, default in variables:
            if (value := sent.get(name)) is not None:
                values[name] = read(value)
            elif name in sent:
                if not nullable:
                    return None
                values[name] = None
            elif default is not None:
                values[name] = default()
            elif not nullable:
                return None
    except Exception:  # noqa: BLE001  a scalar's way to refuse a value; graphql-core asks it again, and tells
        return None
    return values


def compile_arguments(field: GraphQLField, node: FieldNode, declared: Iterable[Variable]) -> Arguments:
    """Of one field of a valid document, whose operation has `declared` these variables; raises Unplannable."""
    if any(definition.default is not None or definition.default_value is not Undefined for definition in field.args.values()):
        raise Unplannable
    never_null = {variable.name for variable in declared if not variable.nullable}
    constants: dict[str, Any] = {}
    given: list[tuple[str, str]] = []
    variables: list[FromVariable] = []
    computed: list[Computed] = []
    for argument in node.arguments or ():
        name, value, type_ = argument.name.value, argument.value, field.args[argument.name.value].type
        _reader(type_)
        if isinstance(value, VariableNode) and value.name.value in never_null:
            given.append((name, value.name.value))
        elif isinstance(value, VariableNode):
            variables.append(FromVariable(name, value.name.value, isinstance(type_, GraphQLNonNull)))
        elif isinstance(value, ListValueNode | ObjectValueNode) or _changes(constant := _constant(value, type_)):
            computed.append(Computed(name, value, type_))
        else:
            constants[name] = constant
    return Arguments(constants, tuple(given), tuple(variables), tuple(computed))


def _variable(schema: GraphQLSchema, node: VariableDefinitionNode) -> Variable:
    signature = get_variable_signature(schema, node)
    if isinstance(signature, GraphQLError):
        raise Unplannable
    nullable = not isinstance(signature.type, GraphQLNonNull)
    default = _default(node.default_value, signature.type) if node.default_value else None
    return Variable(signature.name, _reader(signature.type), nullable, default)


def _default(node: ValueNode, type_: Any) -> Callable[[], Any]:
    value = _constant(node, type_)
    if _changes(value):
        return lambda: _constant(node, type_)
    return lambda: value


def _changes(value: Any) -> bool:
    """Whether it could be changed by whom it is given to, so that each request needs its own."""
    return not (value is None or isinstance(value, str | int | float))


def _constant(node: ValueNode, type_: Any) -> Any:
    value = coerce_input_literal(node, type_)
    if value is Undefined:
        raise Unplannable
    return value


def _reader(type_: Any) -> Callable[[Any], Any]:
    """Coerces a JSON value that is not null to `type_`: a scalar, or a list of what it takes. Raises Unplannable of any other type."""
    if isinstance(type_, GraphQLNonNull):
        return _reader(type_.of_type)
    if isinstance(type_, GraphQLList):
        return _list_reader(type_)
    if not isinstance(type_, GraphQLScalarType):
        raise Unplannable
    return type_.coerce_input_value


def _list_reader(type_: GraphQLList[Any]) -> Callable[[Any], Any]:
    nullable = not isinstance(type_.of_type, GraphQLNonNull)
    read_item = _reader(type_.of_type)

    def read(value: Any) -> list[Any]:
        items = value if isinstance(value, list) else [value]
        if None not in items:
            return [read_item(item) for item in items]
        if not nullable:
            raise Unfit
        return [None if item is None else read_item(item) for item in items]

    return read
