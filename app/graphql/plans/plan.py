"""A compiled operation: variables to arguments, direct calls, answers to data. Rare ends of it go through graphql-core after all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphql import ExecutionResult, GraphQLError, GraphQLResolveInfo, execute, located_error
from strawberry.execution import optimized_is_awaitable

from app.graphql.plans.inputs import read_variables

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from graphql import DocumentNode, FieldNode, GraphQLSchema

    from app.graphql.plans.inputs import Arguments, Values, Variable
    from app.graphql.plans.outputs import Write

    Executed = tuple[dict[str, Any] | None, list[GraphQLError] | None]  # data and errors, as in graphql-core's ExecutionResult


@dataclass(frozen=True, slots=True)
class Call:
    """One field at the root under its response key. `nodes`: where it stands in the document."""

    key: str
    ask: Callable[..., Awaitable[Any]]
    arguments: Arguments
    write: Write
    nodes: tuple[FieldNode, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """What the operation does where its conditions fall one way. `blank`: the answer, null where a call's will be."""

    blank: dict[str, Any]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation of a valid document. `flows`: by the values of its `conditions`; `only`: where it has none."""

    schema: GraphQLSchema
    document: DocumentNode
    operation_name: str | None
    variables: tuple[Variable, ...]
    conditions: tuple[str, ...]
    flows: Mapping[tuple[Any, ...], Flow]
    only: Flow | None

    def run(self, context: Any, sent: dict[str, Any]) -> Awaitable[Executed] | None:
        """To be awaited: what `execute` of graphql-core gives; None, before anything was done, where that should be asked itself."""
        values = read_variables(self.variables, sent)
        if values is None:
            return None
        flow = self.only or self.flows.get(tuple(map(values.get, self.conditions)))
        if flow is None:
            return None
        if len(flow.calls) != 1:
            return self._several(flow, values, context, sent)
        (call,) = flow.calls
        arguments = call.arguments.of(values)
        return None if arguments is None else self._answer(call, arguments, context, sent, flow.blank.copy(), [])

    def _several(self, flow: Flow, values: Values, context: Any, sent: dict[str, Any]) -> Awaitable[Executed] | None:
        data = flow.blank.copy()
        errors: list[GraphQLError] = []
        asked: list[tuple[Call, dict[str, Any]]] = []
        for call in flow.calls:
            arguments = call.arguments.of(values)
            if arguments is None:
                return None
            asked.append((call, arguments))
        return _all([self._answer(call, arguments, context, sent, data, errors) for call, arguments in asked], data, errors)

    async def _answer(
        self, call: Call, arguments: dict[str, Any], context: Any, sent: dict[str, Any], data: dict[str, Any], errors: list[GraphQLError]
    ) -> Executed:
        """Puts the field's value into `data`, which has null there: it stays beside an error where the call raised."""
        try:
            found = await call.ask(context, **arguments)
        except Exception as error:  # noqa: BLE001  whatever a resolver raises is that field's error
            errors.append(located_error(error, list(call.nodes), [call.key]))
            return data, errors
        try:
            data[call.key] = call.write(found)
        except Exception:  # noqa: BLE001  an answer that is not plainly of its type
            data[call.key] = await self._completed(call, found, context, sent, errors)
        return data, errors or None

    async def _completed(self, call: Call, found: Any, context: Any, sent: dict[str, Any], errors: list[GraphQLError]) -> Any:
        """What graphql-core makes of the answer that is there: the field's value, and the errors of what lies below."""

        def instead(resolve: Callable[..., Any], source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
            if info.path.prev is not None or info.field_name == "__typename":
                return resolve(source, info, **arguments)
            return found if info.path.key == call.key else None

        result = execute(
            self.schema,
            self.document,
            context_value=context,
            variable_values=sent,
            operation_name=self.operation_name,
            middleware=[instead],
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # Strawberry says bool where graphql-core says TypeGuard
        )
        done = result if isinstance(result, ExecutionResult) else await result
        errors.extend(done.errors or ())
        return None if done.data is None else done.data[call.key]


async def _all(answers: list[Awaitable[Executed]], data: dict[str, Any], errors: list[GraphQLError]) -> Executed:
    """What they give together, at once."""
    await asyncio.gather(*answers)
    return data, errors or None
