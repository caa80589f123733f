"""The GraphQL endpoint twice over the same predictor, with plans and without, and what each answers to a request."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from graphql import GraphQLError
from structlog.testing import capture_logs

from app.errors import AppError, DeadlineExceeded, InvalidFeatures, NotFound, RateLimited
from app.graphql.context import GraphQLContext
from app.graphql.http.handler import GraphQLEndpoint
from app.graphql.http.options import EndpointOptions
from app.graphql.schema import build_schema
from app.prediction.types import BatchPrediction, ClassProbability, Prediction, RoutingReason
from tests.support.asgi import Answer, call
from tests.support.toy_schema import ToyDocuments, ToyGatekeeper, ToyTelemetry, ToyThrottle

if TYPE_CHECKING:
    from app.graphql.documents import Document, DocumentStore
    from app.graphql.examining import Examiner
    from tests.support.prediction_documents import Request

_ERRORS = {
    "nobody": lambda _: NotFound("There is no model named 'nobody'."),
    "columns": lambda _: InvalidFeatures(
        "A column is wrong.", problems=[{"name": "a", "problem": "MISSING", "expected": "NUMBER", "got": None}]
    ),
    "late": lambda _: DeadlineExceeded("Too late.", retry_after_ms=250),
    "limited": lambda _: RateLimited("Too many rows.", retry_after_ms=10),
    "surprise": lambda _: RuntimeError("pg://owner:hunter2@10.1.2.3/turnout"),
    "core": lambda _: GraphQLError("from a library"),
    "located": lambda _: GraphQLError("with a path of its own", path=["elsewhere", 3]),
    "value": lambda _: ValueError("no such thing"),
}


@dataclass
class Seer:
    """Answers as the service does, from the model's name and what was asked alone. `asked`: what it was called with."""

    asked: list[Any] = field(default_factory=list)

    async def predict(self, _ctx: Any, request: Any, features: Any) -> Any:
        self.asked.append(repr((request, features)))
        await _come_to(request.model)
        return _changed(request.model, _prediction(request, features))

    async def predict_batch(self, _ctx: Any, request: Any, sent: Any) -> Any:
        self.asked.append(repr((request, sent.rows, sent.matrix)))
        await _come_to(request.model)
        return _changed(request.model, _batch(request, sent))


async def _come_to(model: str) -> None:
    for _ in range({"slow": 2, "slower": 5, "late": 3, "nobody": 1}.get(model, 0)):
        await asyncio.sleep(0)
    if (error := _ERRORS.get(model)) is not None:
        raise error(model)


def _number(*of: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:16], "big")


def _prediction(request: Any, features: Any) -> Prediction:
    number = _number(request, features)
    regressor, share = request.model == "regressor", (number % 997) / 997
    return Prediction(
        id=UUID(int=number),
        model=request.model,
        version=request.version or 1 + number % 5,
        variant="red" if number % 3 else None,
        experiment="colour" if number % 3 else None,
        reason=list(RoutingReason)[number % len(RoutingReason)],
        label=None if regressor else "løk",
        probability=None if regressor else share,
        classes=None if regressor else ("løk", "ost")[: number % 4],
        shares=None if regressor else [share, 1 - share][: number % 4],
        value=share * 1e6 if regressor else None,
        degraded=number % 7 == 0,
    )


def _batch(request: Any, sent: Any) -> BatchPrediction:
    number = _number(request, sent.rows, sent.matrix)
    rows, regressor = number % 4, request.model == "regressor"
    shares = np.linspace(0, 1, rows * 2).reshape(rows, 2)
    return BatchPrediction(
        id=UUID(int=number),
        model=request.model,
        version=1 + number % 5,
        variant=None,
        experiment=None,
        reason=list(RoutingReason)[number % len(RoutingReason)],
        degraded=False,
        row_count=rows,
        classes=None if regressor else ["løk", "ost"],
        labels=None if regressor else ["løk"] * rows,
        probabilities=None if regressor else shares,
        values=shares[:, 0].copy() if regressor else None,
    )


_CHANGES: dict[str, dict[str, Any]] = {
    "hollow": {"id": None, "row_count": None, "reason": None, "label": None},
    "odd": {
        "id": 7, "version": True, "label": 5, "probability": np.float64(0.25), "value": 3, "degraded": 1, "row_count": 2**40, "reason": "ALIAS",
        "classes": ("løk", None, 5), "labels": "one text", "variant": ValueError("a value that is an error"),
        "probabilities": [ClassProbability("a", 0.5), ClassProbability("b", float("inf")), None, ClassProbability(7, 1)], "values": {"a": 1},
    },
    "nan": {
        "probability": float("nan"), "value": float("inf"), "version": 2**31, "probabilities": [ClassProbability("a", float("nan"))],
        "values": np.array([1.0, float("nan")]), "model": AppError("an error as a value"),
    },
    "surrogate": {"label": "\ud800", "labels": ["\ud800"], "classes": ["\ud800"]},
    "foreign": {"reason": object(), "values": object(), "labels": {1, 2}, "id": [], "probabilities": 5, "classes": "text", "variant": b"x"},
}  # fmt: skip


def _changed(model: str, answer: Any) -> Any:
    """An answer as no service of ours should give it."""
    if model == "nothing":
        return None
    if model == "error":
        return NotFound("an error as an answer")
    changes = _CHANGES.get(model)
    if changes is None:
        return answer
    told = {name: getattr(answer, name) for name in dir(answer) if not name.startswith("_")}
    return SimpleNamespace(**told | {name: value for name, value in changes.items() if name in told})


class _Counting(GraphQLEndpoint):
    executed = 0

    async def _execute(self, *given: Any) -> Any:
        self.executed += 1
        return await super()._execute(*given)


class _SameDocuments:
    """An examiner's answers without their plans, so that each document is validated once."""

    def __init__(self, known: DocumentStore, own: Examiner) -> None:
        self._known, self._own = known, own

    def look_at(self, digest: str, text: str, request_id: str, *, may_introspect: bool) -> Document:
        document = self._known._cache.shared(digest)
        return replace(document, plans={}) if document else self._own.look_at(digest, text, request_id, may_introspect=may_introspect)


class Way:
    """One endpoint. `ran`: operations that were run at all; of these `executed` by graphql-core. `real`: a predictor instead of a Seer."""

    def __init__(self, *, plans: bool, real: Any = None, gatekeeper: Any = None) -> None:
        self.seer = Seer()
        self.predictor = real or self.seer
        self.contexts: list[GraphQLContext] = []
        self.telemetry = ToyTelemetry()
        self.ran = 0
        self.endpoint = _Counting(
            build_schema(),
            gatekeeper=gatekeeper or ToyGatekeeper(),
            throttle=ToyThrottle(budget=10**12),
            telemetry=self.telemetry,
            context_factory=self._context,
            registered=ToyDocuments(),
            options=EndpointOptions(plans=plans, request_timeout_s=3600.0),  # a machine that stands still is no difference
        )

    @property
    def executed(self) -> int:
        return self.endpoint.executed

    def _context(self, request: Any) -> GraphQLContext:
        self.ran += 1
        context = GraphQLContext(request, SimpleNamespace(predictor=self.predictor))  # type: ignore[arg-type]
        self.contexts.append(context)
        return context

    async def ask(self, request: Request) -> Told:
        """Everything that anybody sees of the request's answer."""
        del self.seer.asked[:], self.contexts[:], self.telemetry.requests[:]
        headers = {"accept": request.accept, "x-request-id": "request-1"}
        with capture_logs() as logs:
            if request.get:
                answer = await call(self.endpoint, "GET", query=request.query_string, headers=headers)
            else:
                answer = await call(self.endpoint, body=request.body, headers=headers)
        logged = [(entry["event"], repr(entry.get("exc_info", ("", ""))[1])) for entry in logs]
        predicts = [context.predicts for context in self.contexts]
        return Told(answer, list(self.seer.asked), predicts, list(self.telemetry.requests), logged)


@dataclass(frozen=True)
class Told:
    answer: Answer | None
    asked: list[str]
    predicts: list[bool]
    counted: list[tuple[str, str]]
    logged: list[tuple[str, str]]


class TwoWays:
    """`planned` and `ordinary`; `ask` gives what each tells, in this order."""

    def __init__(self, *, real: Any = None, gatekeeper: Any = None) -> None:
        self.planned, self.ordinary = (Way(plans=plans, real=real, gatekeeper=gatekeeper) for plans in (True, False))
        store = self.ordinary.endpoint._documents
        store._examiner = _SameDocuments(self.planned.endpoint._documents, store._examiner)
        self.asked = 0
        self._runner = asyncio.Runner()

    def ask(self, request: Request) -> tuple[Told, Told]:
        self.asked += 1
        return self._runner.run(self._both(request))

    async def _both(self, request: Request) -> tuple[Told, Told]:
        return await self.planned.ask(request), await self.ordinary.ask(request)

    def run(self, awaitable: Any) -> Any:
        """In the loop that the requests run in."""
        return self._runner.run(awaitable)

    def close(self) -> None:
        self._runner.close()
