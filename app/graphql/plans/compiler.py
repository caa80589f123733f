"""The door: operations that can run without graphql-core's executor, compiled once a document.

A plan answers as the executor does, byte for byte, or not at all: whatever it cannot say exactly goes the ordinary way. So this room may
be taken away, and only time is lost.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from graphql import GraphQLError, GraphQLObjectType, OperationDefinitionNode, OperationType

from app.graphql.plans.inputs import Unplannable, compile_arguments, compile_variables
from app.graphql.plans.outputs import object_writer
from app.graphql.plans.plan import Call, Flow, Plan
from app.graphql.plans.selections import Budget, Selections, conditions, fragments_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphql import DocumentNode, FragmentDefinitionNode, GraphQLSchema

    from app.graphql.plans.inputs import Variable
    from app.graphql.plans.selections import Selection

__all__ = ["Plan", "compile_plans"]

_MOST_FIELDS = 400  # of a document's plans together
_MOST_CONDITIONS = 3  # variables in @include and @skip; each doubles the plan


def compile_plans(schema: GraphQLSchema, document: DocumentNode) -> tuple[dict[str | None, Plan], int]:
    """Plans by the operation's name, of those that can be planned, and how many fields they hold. `document`: valid in `schema`.

    Planned are queries whose fields at the root have a direct function (`root_field(direct=...)`).
    """
    budget = Budget(_MOST_FIELDS)
    plans: dict[str | None, Plan] = {}
    fragments = fragments_of(document)
    held = 0
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode) and operation.operation is OperationType.QUERY:
            before = budget.left
            try:
                plan = _plan(schema, document, fragments, operation, budget)
            except (Unplannable, GraphQLError, RecursionError):
                continue
            plans[plan.operation_name] = plan
            held += before - budget.left
    return plans, held


def _plan(
    schema: GraphQLSchema,
    document: DocumentNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    operation: OperationDefinitionNode,
    budget: Budget,
) -> Plan:
    budget.take(len(operation.variable_definitions or ()))
    names = conditions(operation, fragments)
    if schema.query_type is None or len(names) > _MOST_CONDITIONS:
        raise Unplannable
    variables = compile_variables(schema, operation.variable_definitions or ())
    flows: dict[tuple[Any, ...], Flow] = {}
    for values in product((True, False), repeat=len(names)):
        decided = dict(zip(names, values, strict=True))
        flows[values] = _flow(Selections(schema, fragments, operation, decided, budget), schema.query_type, variables)
    name = operation.name.value if operation.name else None
    return Plan(schema, document, name, variables, tuple(names), flows, None if names else flows[()])


def _flow(selections: Selections, root: GraphQLObjectType, variables: tuple[Variable, ...]) -> Flow:
    blank: dict[str, Any] = {}
    calls: list[Call] = []
    for key, same in selections.root(root).items():
        blank[key] = None
        if same[0].node.name.value == "__typename":
            blank[key] = root.name
        else:
            calls.append(_call(selections, root, key, same, variables))
    return Flow(blank, tuple(calls))


def _call(selections: Selections, root: GraphQLObjectType, key: str, same: list[Selection], variables: tuple[Variable, ...]) -> Call:
    field = root.fields.get(same[0].node.name.value)
    definition = None if field is None else field.extensions.get("strawberry-definition")
    direct = None if definition is None else definition.metadata.get("direct")
    if field is None or direct is None or not isinstance(field.type, GraphQLObjectType):
        raise Unplannable
    arguments = compile_arguments(field, same[0].node, variables)
    write = object_writer(selections, field.type, same)
    return Call(key, direct, arguments, write, tuple(selection.node for selection in same))
