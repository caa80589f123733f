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
_NO_ROWS: Mapping[str, bool] = {}
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of one operation before a request runs it."""

    name: str | None
    type: OperationType
    kind: str  # the type as a word
    cost: int  # tokens: one for each field at its root
    many_rows: Mapping[str, bool]  # variables that may be ManyRows, or (True) whose `data` may: where it only predicts batches


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was looked at once. `problems` empty: it may be run; else `ast` holds nothing."""

    digest: str
    ast: DocumentNode
    problems: tuple[Problem, ...]
    introspects: bool
    operations: Mapping[str | None, Operation]
    weight: int  # characters of text, which memory follows: some 120 to 270 bytes each
    plans: Mapping[str | None, Plan] = field(default_factory=dict)  # of operations that need no executor

    def operation(self, name: str | None) -> Operation:
        """The one that a request means; raises OperationNotFound."""
        operation = self.operations.get(name)  # under None: one without a name, which stands alone
        if operation is not None:
            return operation
        if name is not None:
            shown = name if len(name) <= 80 else name[:80] + "…"
            raise OperationNotFound(f"The document has no operation named {shown!r}.")
        if len(self.operations) != 1:
            raise OperationNotFound("The document has no or several operations: name one of them in operationName.")
        return next(iter(self.operations.values()))


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
        plans, planned = compile_plans(self._schema, ast) if self._plans else ({}, 0)
        nodes = (node for node in ast.definitions if isinstance(node, OperationDefinitionNode))
        operations: dict[str | None, Operation] = {}
        for node, counts in zip(nodes, measurement.operations, strict=True):
            name = node.name.value if node.name else None
            many_rows = _many_rows(node) if counts.batches == counts.charged > 0 else _NO_ROWS
            operations[name] = Operation(name, node.operation, node.operation.value, counts.cost, many_rows)
        weight = len(text) + _OVERHEAD + _PLANNED * planned
        return Document(digest, ast, (), measurement.introspects, operations, weight, plans)

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
