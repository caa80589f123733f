"""A small schema that fails in every way a resolver can, and the ports of the GraphQL endpoint answered from memory."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from uuid import NAMESPACE_DNS, uuid5

import numpy as np
import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig

from app.errors import AppError, DeadlineExceeded, InvalidFeatures, InvalidInput, NotFound, NotPromotable, Unauthenticated
from app.graphql.codes import ErrorCode as Code
from app.graphql.http.handler import GraphQLEndpoint
from app.graphql.http.options import EndpointOptions
from app.kernel.context import Action, RequestContext, Role

SECRET = "pg://owner:hunter2@10.1.2.3/turnout /srv/secret.key"


def _row(value):
    if isinstance(value, (dict, list)):
        return value
    if value == "explode":
        raise RuntimeError(SECRET)
    raise InvalidInput("A row is an object or a list.")


FeatureRow = strawberry.scalar(name="FeatureRow", parse_value=_row, serialize=lambda value: value)
FloatVector = strawberry.scalar(name="FloatVector", parse_value=list, serialize=lambda value: value)


class Row:
    pass


class Vector:
    pass


@strawberry.type
class Prediction:
    id: str
    model: str
    version: int
    label: str | None
    probability: float | None
    degraded: bool
    reason: str
    variant: str | None

    @strawberry.field
    def again(self) -> "Prediction":
        return self

    @strawberry.field
    def must(self) -> str:
        raise RuntimeError(SECRET)


def _prediction(model: str) -> Prediction:
    return Prediction(id="1", model=model, version=1, label="x", probability=0.5, degraded=False, reason="ALIAS", variant=None)


def _raise(kind: str) -> None:
    errors = {
        "features": InvalidFeatures(
            "Two columns are wrong.", problems=[{"name": "age", "problem": "MISSING", "expected": "NUMBER", "got": None}]
        ),
        "blocked": NotPromotable("Not now.", blockers=[{"code": "NOT_READY", "message": "It is FAILED.", "overridable": False}]),
        "missing": NotFound("There is no such model."),
        "late": DeadlineExceeded("Too late.", retry_after_ms=250),
        "secret": RuntimeError(SECRET),
        "core": GraphQLError(SECRET),
        "exit": ExceptionGroup(SECRET, [ValueError(SECRET)]),
        "deep": RecursionError(SECRET),
        "time": TimeoutError(SECRET),
    }
    raise errors.get(kind) or AppError("An error of no kind.")


@strawberry.type
class Query:
    @strawberry.field
    async def predict(self, info: strawberry.Info, model: str, features: Row) -> Prediction | None:
        assert isinstance(info.context["request"], RequestContext)
        assert features is not None
        return _prediction(model)

    @strawberry.field
    def prediction(self, model: str = "m") -> Prediction:
        return _prediction(model)

    @strawberry.field
    def vector(self, size: int = 3) -> Vector:
        return np.arange(size, dtype=np.float64) / 2

    @strawberry.field
    def unsayable(self) -> Vector | None:
        return object()

    @strawberry.field
    def not_a_number(self) -> float | None:
        return float("nan")

    @strawberry.field
    def fail(self, kind: str) -> str | None:
        _raise(kind)

    @strawberry.field
    async def fail_must(self, kind: str) -> str:
        _raise(kind)

    @strawberry.field
    def add(self, one: int = 1, two: int = 2) -> int:
        return one + two

    @strawberry.field
    def code(self, code: Code = Code.NOT_FOUND) -> str:
        return code.value

    @strawberry.field
    def subject(self, info: strawberry.Info) -> str:
        return info.context["request"].subject

    @strawberry.field
    async def wait(self, info: strawberry.Info) -> str | None:
        events = info.context["events"]
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise


@strawberry.type
class Mutation:
    @strawberry.mutation
    def bump(self, info: strawberry.Info) -> int:
        info.context["events"].append("bumped")
        return 1


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> int:
        yield 1


def toy_schema() -> strawberry.Schema:
    config = StrawberryConfig(scalar_map={Row: FeatureRow, Vector: FloatVector})
    return strawberry.Schema(Query, Mutation, Subscription, config=config)


@dataclass
class Allowance:
    """A limiter's word: `remaining` of `limit`."""

    allowed: bool = True
    limit: int = 100
    remaining: int = 99
    retry_after_ms: int | None = None
    reset_s: float = 0.5


@dataclass
class ToyThrottle:
    """Each tenant has `budget` tokens for good here, and `elsewhere` so many on all machines, where that is given."""

    budget: int = 1_000_000
    spent: dict = field(default_factory=dict)
    elsewhere: int | None = None
    asked: list = field(default_factory=list)

    def take(self, ctx, cost):
        return self._take(ctx.tenant, cost)

    def shared(self, ctx, cost, here):
        if self.elsewhere is None:
            return None
        self.asked.append(cost)
        return SimpleNamespace(decision=lambda: self._everywhere(ctx, cost))

    async def _everywhere(self, ctx, cost):
        return self._take(f"all of {ctx.tenant}", cost, self.elsewhere)

    def _take(self, who, cost, budget=None):
        budget = self.budget if budget is None else budget
        spent = self.spent.get(who, 0)
        if spent + cost > budget:
            return Allowance(False, budget, budget - spent, 1500, 1.5)
        self.spent[who] = spent + cost
        return Allowance(True, budget, budget - spent - cost, None, 0.5)


class ToyGatekeeper:
    """`Bearer tenant[:ROLE]`. Tenants: any word; "suspended", "away" and "broken" are refused in their ways."""

    def __init__(self):
        self.asked = 0
        self.addresses = []

    async def admit(self, authorization, request_id, deadline, address):
        from app.errors import RateLimited, TenantSuspended, Unavailable

        self.asked += 1
        self.addresses.append(address)
        scheme, _, token = (authorization or "").partition(" ")
        tenant, _, role = token.partition(":")
        if scheme != "Bearer" or not tenant.isalnum() or not tenant.isascii() or (role and role not in set(Role)):
            raise Unauthenticated(SECRET)
        if tenant == "hammering":
            raise RateLimited("Too many failed attempts.", retry_after_ms=1500)
        if tenant == "suspended":
            raise TenantSuspended("This tenant is suspended.")
        if tenant == "away":
            raise Unavailable("Tokens cannot be checked right now.", retry_after_ms=2500)
        if tenant == "broken":
            raise RuntimeError(SECRET)
        return caller(tenant, Role(role or "READER"), request_id, deadline)


def caller(tenant="clinic", role=Role.READER, request_id="request-1", deadline=None) -> RequestContext:
    return RequestContext(
        tenant_id=uuid5(NAMESPACE_DNS, tenant), tenant=tenant, subject="somebody", roles=frozenset({role}), allowed=frozenset({Action.PREDICT}),
        unit=None, request_id=request_id, deadline=deadline,
    )  # fmt: skip


@dataclass
class ToyDocuments:
    """Registered texts by tenant's uuid and id; `only`: roles that may run nothing else."""

    texts: dict = field(default_factory=dict)
    only: frozenset = frozenset()

    def register(self, tenant, text, name=None):
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        document = SimpleNamespace(text=text, sha256=sha256)
        self.texts[uuid5(NAMESPACE_DNS, tenant), name or sha256] = document
        return sha256

    def find(self, tenant_id, sent):
        return self.texts.get((tenant_id, sent.removeprefix("sha256:")))

    def alone(self, ctx):
        return ctx.roles <= self.only


class ToyTelemetry:
    def __init__(self):
        self.requests = []

    def in_flight(self, change):
        self.flying = getattr(self, "flying", 0) + change

    def turned_away(self, reason):
        self.turned = [*getattr(self, "turned", ()), reason]

    def request(self, seconds, operation_kind, code):
        self.requests.append((operation_kind, code))


@dataclass
class Toy:
    """The endpoint and what stands around it."""

    options: EndpointOptions = field(default_factory=EndpointOptions)
    throttle: ToyThrottle = field(default_factory=ToyThrottle)
    gatekeeper: ToyGatekeeper = field(default_factory=ToyGatekeeper)
    telemetry: ToyTelemetry = field(default_factory=ToyTelemetry)
    documents: ToyDocuments = field(default_factory=ToyDocuments)
    events: list = field(default_factory=list)
    schema: strawberry.Schema = field(default_factory=toy_schema)
    endpoint: GraphQLEndpoint = field(init=False)

    def __post_init__(self):
        self.endpoint = GraphQLEndpoint(
            self.schema,
            gatekeeper=self.gatekeeper,
            throttle=self.throttle,
            telemetry=self.telemetry,
            context_factory=lambda ctx: {"request": ctx, "events": self.events},
            registered=self.documents,
            options=self.options,
        )
