"""The `/graphql` endpoint. What must happen on each request happens here, in this order, and never in an extension of the schema:

request id · method and media types · who calls · room for it · one token of the rate limit · body · strict JSON · document (known, or
looked at for more tokens) · introspection · operation · its root fields' tokens · execution under the deadline · errors mapped · answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from graphql import ExecutionResult, OperationType, execute
from strawberry.execution import optimized_is_awaitable

from app.errors import AppError, BadRequest, ConfigurationError, DeadlineExceeded
from app.graphql.documents import Document, DocumentCache, DocumentStore
from app.graphql.errors import (
    MAX_DOCUMENT_ERRORS,
    MAX_FIELD_ERRORS,
    DocumentRefused,
    ErrorMapper,
    IntrospectionDisabled,
    PersistedQueryNotFound,
    PersistedQueryNotSupported,
    Problem,
    problem_of,
    unforeseen,
)
from app.graphql.http.admission import Admission, Busy, Crowded
from app.graphql.http.body import ClientGone, Parameters, from_body, from_bulk, from_object, from_query_string, read_body
from app.graphql.http.body_bytes import BodyBytes
from app.graphql.http.bulk import LARGE_BYTES, read_here
from app.graphql.http.charge import charging
from app.graphql.http.cors import CorsPolicy
from app.graphql.http.exchange import Exchange, headers_of
from app.graphql.http.large_answers import written_out
from app.graphql.http.negotiation import HttpRefusal, check_request_type, response_type
from app.graphql.http.time_limit import TimeLimit
from app.graphql.introspection import may_introspect
from app.kernel.context import logged_request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    import strawberry
    from graphql import GraphQLError
    from starlette.types import Receive, Scope, Send

    from app.graphql.http.bulk import Bulk, BulkBodies
    from app.graphql.http.charge import Charge
    from app.graphql.http.cors import Headers
    from app.graphql.http.options import EndpointOptions
    from app.graphql.http.ports import ContextFactory, Gatekeeper, RegisteredDocuments, ServedPredictions, Telemetry, Throttle
    from app.kernel.context import RequestContext

log = structlog.get_logger(__name__)

_SMALL_DIGITS = 4  # in a length of so many the process's memory has no interest
_ALLOW = ((b"allow", b"GET, POST"),)
_ALLOW_POST = ((b"allow", b"POST"),)


class GraphQLEndpoint:
    """An ASGI app that serves one schema; mount it with Starlette's `Route("/graphql", endpoint)`.

    Raises ConfigurationError where the schema has extensions or operation directives: they would be left out without a word.
    Source: GraphQL over HTTP, stage 2 draft.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        *,
        gatekeeper: Gatekeeper,
        throttle: Throttle,
        telemetry: Telemetry,
        context_factory: ContextFactory,
        registered: RegisteredDocuments,
        options: EndpointOptions,
        served: ServedPredictions | None = None,
        admission: Admission | None = None,
        bulk: BulkBodies | None = None,
    ) -> None:
        if schema.get_extensions():
            raise ConfigurationError("The schema has extensions or operation directives, which the endpoint does not run. Take them off.")
        self._schema = schema._schema  # noqa: SLF001  Strawberry has no public name for the schema that graphql-core runs
        self._gatekeeper = gatekeeper
        self._charge = charging(throttle)
        self._telemetry = telemetry
        self._context_factory = context_factory
        self._registered = registered
        self._served, self._bulk = served, bulk
        self._admission = admission or Admission(options.max_in_flight, telemetry)
        self._options = options
        self._bodies = BodyBytes(max(options.max_body_bytes_under_way, options.max_body_bytes), telemetry)
        self._time_limit = TimeLimit(options.request_timeout_s + options.grace_s)
        self._cors = CorsPolicy(options.cors_origins) if options.cors_origins else None
        self._mapper = ErrorMapper(suggestions=options.development)
        cache = DocumentCache(share_chars=options.document_share_chars, total_chars=options.document_total_chars)
        self._documents = DocumentStore(
            self._schema, limits=options.limits, mapper=self._mapper, cache=cache, suggestions=options.development, plans=options.plans
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        exchange = Exchange(scope, receive, self._options.request_timeout_s)
        logged_request_id.set(exchange.request_id)
        self._telemetry.in_flight(1)
        limited = self._time_limit.begun()
        more: Headers = []
        try:
            with limited:
                if exchange.method == "OPTIONS" and (permission := self._permission(exchange)) is not None:
                    status, body, more = 204, b"", permission
                else:
                    status, body = await self._serve(exchange)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  the last resort: whatever happens, the caller gets an answer with a request id
            status, body, more = self._instead(exchange, error, late=limited.expired)
        finally:
            self._telemetry.in_flight(-1)
            if exchange.place is not None:
                exchange.place.end()
        if self._cors is not None:
            more.extend(self._cors.headers(exchange.headers.get(b"origin")))
        await exchange.send(send, status, body, more)
        took_s = exchange.elapsed_s()
        self._telemetry.request(took_s, exchange.kind, exchange.code)
        # What the caller did wrong says nothing of how well the tenant is served.
        if self._served is not None and getattr(exchange.context, "predicts", False) and (exchange.failed or exchange.code == "OK"):
            self._served.count(exchange.context.request.tenant_id, took_s, failed=exchange.failed)
        if exchange.code != "OK" and not exchange.quiet:
            log.info("request_failed", code=exchange.code, status=status, kind=exchange.kind)

    def _permission(self, exchange: Exchange) -> Headers | None:
        """For a page of another origin that asks whether it may call; None where this is no such question, or it may not."""
        if self._cors is None or b"access-control-request-method" not in exchange.headers:
            return None
        return self._cors.preflight(exchange.headers.get(b"origin"))

    def _instead(self, exchange: Exchange, error: Exception, *, late: bool) -> tuple[int, bytes, Headers]:
        """Status, body and headers of a request that was ended by `error`. `late`: because its time was up."""
        if isinstance(error, DocumentRefused):
            return (*exchange.refuse(list(error.problems)), [])
        if late and isinstance(error, TimeoutError):
            error = _late(exchange)
        if not isinstance(error, AppError):
            return (*exchange.refuse([unforeseen(error, exchange.request_id, "request")]), [])
        exchange.quiet = isinstance(error, (Busy, Crowded))
        status, body = exchange.refuse([problem_of(error)], error.status if isinstance(error, HttpRefusal) else None)
        return status, body, headers_of(error, status)

    async def _serve(self, exchange: Exchange) -> tuple[int, bytes]:
        self._check_form(exchange)
        token = exchange.headers.get(b"authorization")
        text = None if token is None else token.decode("latin-1")
        ctx = await self._gatekeeper.admit(text, exchange.request_id, exchange.deadline, exchange.client_address)
        exchange.place = self._admission.begin(ctx.tenant_id, exchange.deadline.at, token or b"")
        if exchange.place is None:
            exchange.place = await self._admission.turn(ctx.tenant_id)
        charge = self._charge(ctx, exchange)
        parameters = await self._parameters(exchange, ctx)
        document = self._document(exchange, charge, ctx, parameters)
        operation = document.operation(parameters.operation_name)
        exchange.kind = operation.kind
        if operation.type is not OperationType.QUERY:
            _check_kind(exchange.method, operation.type)
            exchange.place = self._admission.change(ctx.tenant_id, exchange.place)
        if operation.cost > 1:
            charge.take(operation.cost - 1)
        if charge.waits:
            await charge.settle()
        if parameters.bulk is not None and self._bulk is not None:
            parameters = await _as_taken(parameters, parameters.bulk, operation.many_rows, self._bulk, ctx)
        exchange.context = context = self._context_factory(ctx)
        plan = document.plans.get(operation.name)
        running = None if plan is None else plan.run(context, parameters.variables or {})
        data, errors = await (running or self._execute(document, parameters, context))
        if getattr(context, "predicts_many", False):
            await written_out(data)
        if parameters.bulk is not None and self._bulk is not None:
            self._bulk.release(ctx.tenant_id, parameters.bulk)
        return self._with_errors(exchange, data, errors) if errors else exchange.respond({"data": data})

    async def _execute(
        self, document: Document, parameters: Parameters, context: Any
    ) -> tuple[dict[str, Any] | None, list[GraphQLError] | None]:
        """The ordinary way, which any operation can go."""
        result = execute(
            self._schema,
            document.ast,
            context_value=context,
            variable_values=parameters.variables,
            operation_name=parameters.operation_name,
            max_coercion_errors=MAX_DOCUMENT_ERRORS - 1,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # Strawberry says bool where graphql-core says TypeGuard
            hide_suggestions=not self._options.development,
        )
        done = result if isinstance(result, ExecutionResult) else await result
        return done.data, done.errors

    def _check_form(self, exchange: Exchange) -> None:
        accepted = response_type(exchange.headers.get(b"accept", b""))
        if accepted is not None:
            exchange.media_type = accepted
        if exchange.method not in {"GET", "POST"}:
            raise HttpRefusal(405, "Send a POST, or a GET for a query.", _ALLOW)
        if accepted is None:
            raise HttpRefusal(
                406,
                "The answer is application/json or application/graphql-response+json: accept one of them. "
                "This is no page for a browser: docs/clients.md says how clients ask.",
            )
        if exchange.repeated:
            raise BadRequest("A header that may stand once stands twice.")
        if exchange.method == "POST":
            check_request_type(exchange.headers.get(b"content-type", b""))
            encoding = exchange.headers.get(b"content-encoding")
            if encoding is not None and encoding.strip().lower() not in {b"", b"identity"}:
                raise HttpRefusal(415, "Send the body without a Content-Encoding.")

    async def _parameters(self, exchange: Exchange, ctx: RequestContext) -> Parameters:
        if exchange.method == "GET":
            return from_query_string(exchange.scope["query_string"])
        exchange.reading = True
        length, held = exchange.headers.get(b"content-length"), None
        if length is None or len(length) > _SMALL_DIGITS:
            exchange.place = held = self._bodies.begin(ctx.tenant_id, exchange.place)
        body = await read_body(exchange.receive, length, self._options.max_body_bytes, held)
        exchange.reading = False
        exchange.body_read = True
        if self._bulk is None or len(body) <= LARGE_BYTES:
            return from_body(body)
        others = self._admission.under_way - 1  # who would have to wait for it
        quickly = others == 0 or (others == 1 and not self._bulk.at_hand(ctx.tenant_id))
        read = read_here(body) if quickly else None
        read = read or await self._bulk.read(ctx.tenant_id, body)
        return from_body(body) if read is None else from_bulk(read)

    def _document(self, exchange: Exchange, charge: Charge, ctx: RequestContext, parameters: Parameters) -> Document:
        """A document that may be run; one that this tenant has not sent before costs more."""
        text, sha256 = self._meant(ctx, parameters)
        document = self._documents.find(ctx.tenant_id, sha256)
        if document is None:
            document = self._unseen(exchange, charge, ctx, text, sha256)
        elif document.introspects and not may_introspect(ctx, development=self._options.development):
            raise IntrospectionDisabled("The schema may be asked for by operators only.")
        if document.problems:
            raise DocumentRefused(document.problems)
        return document

    def _unseen(self, exchange: Exchange, charge: Charge, ctx: RequestContext, text: str | None, sha256: str) -> Document:
        if text is None:
            raise PersistedQueryNotFound("PersistedQueryNotFound")
        # A limit that is smaller than the price would never let a new document in.
        cost = min(self._options.unseen_document_cost, (exchange.decision.limit if exchange.decision else 1) - 1)
        if cost > 0:
            charge.take(cost)
        allowed = may_introspect(ctx, development=self._options.development)
        return self._documents.prepare(ctx.tenant_id, text, sha256, exchange.request_id, may_introspect=allowed)

    def _meant(self, ctx: RequestContext, parameters: Parameters) -> tuple[str | None, str]:
        """Text and sha256 of a registered document, else of what was sent, where the caller may send anything."""
        found = self._registered.find(ctx.tenant_id, parameters.document)
        if found is not None:
            return found.text, found.sha256
        if parameters.registered:
            shown = parameters.document[:128]
            raise PersistedQueryNotFound(f"No document is registered under the id {shown!r}: `turnout documents push` registers documents.")
        if self._registered.alone(ctx):
            raise PersistedQueryNotSupported(
                "With your roles only registered documents run, and this one is not registered. Register it with `turnout documents push`, "
                "then send its id as `documentId`, or its text unchanged."
            )
        return parameters.text, parameters.document

    def _with_errors(self, exchange: Exchange, data: dict[str, Any] | None, errors: list[GraphQLError]) -> tuple[int, bytes]:
        if data is None and not any(error.path for error in errors):
            # Nothing ran: graphql-core found variables (or conditions on the root) that do not fit their types.
            return exchange.refuse([self._mapper.input(error, exchange.request_id) for error in errors[:MAX_DOCUMENT_ERRORS]])
        seen: dict[int, Problem] = {}
        problems = [self._mapper.execution(error, exchange.request_id, seen) for error in errors[:MAX_FIELD_ERRORS]]
        exchange.note(problems)
        return exchange.respond({"errors": [problem.wire(exchange.request_id) for problem in problems], "data": data})


def _check_kind(method: str, kind: OperationType) -> None:
    """Of what is no query."""
    if kind is OperationType.SUBSCRIPTION:
        raise BadRequest("Subscriptions are not served here.")
    if method == "GET":
        raise HttpRefusal(405, "A GET may only carry a query. Send a mutation by POST.", _ALLOW_POST)


async def _as_taken(
    parameters: Parameters, bulk: Bulk, many_rows: Mapping[str, bool], bodies: BulkBodies, ctx: RequestContext
) -> Parameters:
    """The parameters as the document takes them: where it has other uses for a list than predicting batches, as they were sent."""
    body, bulk.body = bulk.body, b""
    if bulk.fits(many_rows):
        return parameters
    bodies.release(ctx.tenant_id, bulk)
    return await bodies.as_sent(ctx.tenant_id, body, from_object)


def _late(exchange: Exchange) -> AppError:
    if exchange.reading:
        return HttpRefusal(408, "The body did not arrive in time.")
    return DeadlineExceeded("The answer was not ready in time. A mutation may have been carried out: look before you repeat it.")
