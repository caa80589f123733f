"""Which fields an operation asks for, decided by graphql-core itself for each way that its conditions can fall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, InlineFragmentNode, VariableNode
from graphql.execution.collect_fields import FieldDetails as Selection
from graphql.execution.collect_fields import FragmentDetails, collect_fields, collect_subfields
from graphql.execution.values import VariableValues

from app.graphql.plans.inputs import Unplannable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from graphql import DirectiveNode, DocumentNode, GraphQLObjectType, GraphQLSchema, OperationDefinitionNode, SelectionSetNode

__all__ = ["Budget", "Selection", "Selections", "conditions", "fragments_of"]

_CONDITIONS = frozenset({"include", "skip"})


class Budget:
    """Counts what is compiled of one document: its text can ask for much more than its length."""

    def __init__(self, fields: int) -> None:
        self.left = fields

    def take(self, fields: int) -> None:
        """Raises Unplannable where there is no room for so many."""
        self.left -= fields
        if self.left < 0:
            raise Unplannable


class Selections:
    """The fields of one operation where its conditions fall as `decided`."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        operation: OperationDefinitionNode,
        decided: Mapping[str, bool],
        budget: Budget,
    ) -> None:
        self._schema, self._operation, self._budget = schema, operation, budget
        self._fragments = {name: FragmentDetails(definition) for name, definition in fragments.items()}
        self._decided = VariableValues({}, dict(decided))

    def root(self, type_: GraphQLObjectType) -> dict[str, list[Selection]]:
        """By response key, in the order of the answer; what stands more than once is merged."""
        return self._taken(collect_fields(self._schema, self._fragments, self._decided, type_, self._operation).grouped_field_set)

    def below(self, type_: GraphQLObjectType, chosen: list[Selection]) -> dict[str, list[Selection]]:
        """Of an object of `type_` for which `chosen` asks."""
        found = collect_subfields(self._schema, self._fragments, self._decided, self._operation, type_, chosen)
        return self._taken(found.grouped_field_set)

    def _taken(self, grouped: dict[str, list[Selection]]) -> dict[str, list[Selection]]:
        self._budget.take(sum(len(same) for same in grouped.values()))
        return dict(grouped)


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}


def conditions(operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> list[str]:
    """Variables on which it depends what the operation asks for; raises Unplannable of a directive that is no condition."""
    if operation.directives:
        raise Unplannable
    names: dict[str, None] = {}
    seen: set[str] = set()
    waiting: list[SelectionSetNode] = [operation.selection_set]
    while waiting:
        for selection in waiting.pop().selections:
            names.update(dict.fromkeys(_variables(selection.directives or ())))
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name not in seen:
                    seen.add(name)
                    names.update(dict.fromkeys(_variables(fragments[name].directives or ())))
                    waiting.append(fragments[name].selection_set)
            elif isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set:
                waiting.append(selection.selection_set)
    return list(names)


def _variables(directives: Iterable[DirectiveNode]) -> Iterable[str]:
    for directive in directives:
        if directive.name.value not in _CONDITIONS:
            raise Unplannable
        for argument in directive.arguments or ():
            if isinstance(argument.value, VariableNode):
                yield argument.value.name.value
