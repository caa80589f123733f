"""One look at a document: small enough, GraphQL, and of this schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    parse,
    print_ast,
    specified_rules,
    validate,
)
from graphql.validation.validate import ValidationAbortedError
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from app.graphql.errors import MAX_DOCUMENT_ERRORS, ErrorMapper, OperationNotFound, Problem, too_complex
from app.graphql.limits import Limits, exceeded, measure
from app.graphql.plans.compiler import Plan, compile_plans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphql import GraphQLSchema

_OVERHEAD = 200  # characters: what the smallest document costs to keep
_PLANNED = 3  # characters: what a field of a plan costs to keep, some 300 bytes
_ROWS, _MATRIX = "[FeatureRow]", "FeatureMatrix"
_NOTHING = DocumentNode(definitions=())
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was looked at once. `problems` empty: it may be run; else `ast` holds nothing."""

    digest: str
    ast: DocumentNode
    problems: tuple[Problem, ...]
    introspects: bool
    operations: Mapping[str | None, OperationType]
    weight: int  # characters of text, which memory follows: some 120 to 270 bytes each
    costs: Mapping[str | None, int] = field(default_factory=dict)
    plans: Mapping[str | None, Plan] = field(default_factory=dict)  # of operations that need no executor
    taking: Mapping[str | None, Mapping[str, bool]] = field(default_factory=dict)  # by operation, what `many_rows` says

    def cost(self, operation_name: str | None) -> int:
        """Tokens of the operation that a request means: one for each field at its root."""
        if operation_name is None:
            return next(iter(self.costs.values()), 1)
        return self.costs.get(operation_name, 1)

    def plan(self, operation_name: str | None) -> Plan | None:
        """Of the operation that a request means, where it has one; `kind` has said that there is such an operation."""
        return self.plans.get(next(iter(self.operations)) if operation_name is None else operation_name)

    def many_rows(self, operation_name: str | None) -> Mapping[str, bool]:
        """Variables that may be ManyRows, or (True) whose `data` may: of the operation meant, where it only predicts batches."""
        return self.taking.get(next(iter(self.operations)) if operation_name is None else operation_name, {})

    def kind(self, operation_name: str | None) -> OperationType:
        """Of the operation that a request means; raises OperationNotFound."""
        if operation_name is None:
            if len(self.operations) == 1:
                return next(iter(self.operations.values()))
            raise OperationNotFound("The document has no or several operations: name one of them in operationName.")
        kind = self.operations.get(operation_name)
        if kind is None:
            shown = operation_name if len(operation_name) <= 80 else operation_name[:80] + "…"
            raise OperationNotFound(f"The document has no operation named {shown!r}.")
        return kind


class Examiner:
    """Looks at documents for one schema. `suggestions`: tell names of the schema that nobody asked about. `plans`: compile documents."""

    def __init__(self, schema: GraphQLSchema, limits: Limits, mapper: ErrorMapper, *, suggestions: bool, plans: bool = True) -> None:
        self._schema, self._limits, self._mapper, self._suggestions, self._plans = schema, limits, mapper, suggestions, plans

    def look_at(self, digest: str, text: str, request_id: str, *, may_introspect: bool) -> Document:
        """The document under `digest`. One that introspects and may not comes back unvalidated, so that nobody pays for it."""
        limits = self._limits
        if len(text) > limits.characters:
            return _refused(digest, [too_complex(f"The document has {len(text)} characters; at most {limits.characters} are taken.")])
        try:
            ast = parse(text, max_lexical_tokens=limits.tokens, max_comments=limits.comments, max_source_length=limits.characters)
        except GraphQLSyntaxError as error:
            return _refused(digest, [self._mapper.syntax(error)])
        measurement = measure(ast)
        if over := exceeded(measurement, limits):
            return _refused(digest, [too_complex(over)])
        if measurement.introspects and not may_introspect:
            return Document(digest, _NOTHING, (), True, {}, 0)  # the caller raises before it is kept
        problems = self._problems(ast, request_id)
        if problems:
            return _refused(digest, problems)
        nodes = [node for node in ast.definitions if isinstance(node, OperationDefinitionNode)]
        names = [node.name.value if node.name else None for node in nodes]
        operations = dict(zip(names, (node.operation for node in nodes), strict=True))
        costs = dict(zip(names, (counts.cost for counts in measurement.operations), strict=True))
        plans, planned = compile_plans(self._schema, ast) if self._plans else ({}, 0)
        weight = len(text) + _OVERHEAD + _PLANNED * planned
        counted = zip(nodes, names, measurement.operations, strict=True)
        taking = {name: _many_rows(node) for node, name, counts in counted if counts.batches == counts.charged > 0}
        return Document(digest, ast, (), measurement.introspects, operations, weight, costs, plans, taking)

    def _problems(self, ast: DocumentNode, request_id: str) -> list[Problem]:
        try:
            errors = validate(self._schema, ast, _RULES, MAX_DOCUMENT_ERRORS, hide_suggestions=not self._suggestions)
        except RecursionError:
            return [too_complex("The document is nested too deeply.")]
        except GraphQLError as error:
            errors = [error]
        told = [error for error in errors if not (isinstance(error, ValidationAbortedError) and error.message.startswith("Too many"))]
        return [self._mapper.validation(error, request_id) for error in told]


def _many_rows(operation: OperationDefinitionNode) -> dict[str, bool]:
    types = {each.variable.name.value: print_ast(each.type).replace("!", "") for each in operation.variable_definitions or ()}
    return {name: type_ == _MATRIX for name, type_ in types.items() if type_ in {_ROWS, _MATRIX}}


def _refused(digest: str, problems: list[Problem]) -> Document:
    """Kept too: a client that sends the same broken text all day is told so from memory."""
    weight = _OVERHEAD + sum(len(problem.message) for problem in problems)
    return Document(digest, _NOTHING, tuple(problems), False, {}, weight)
