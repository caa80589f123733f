"""The parts of one served prediction: which functions make up which part; and what calls the application as a server does."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

from app.experiments.flags.selector import TenantFlags
from app.graphql.http import handler
from app.graphql.http.admission import Admission, Share
from app.graphql.http.charge import Charge
from app.graphql.http.exchange import Exchange
from app.graphql.http.handler import GraphQLEndpoint
from app.graphql.http.time_limit import Limited, TimeLimit
from app.graphql.plans.plan import Plan
from app.journal.journal import Journal
from app.kernel.ids import IdMint
from app.observability.metrics import Telemetry
from app.prediction import said
from app.prediction.asking import Versions
from app.prediction.choosing import Chooser
from app.prediction.features import RowChecker
from app.prediction.live_proof import LiveProof
from app.prediction.runtimes.onnx import OnnxRuntime
from app.prediction.service import Predictor
from app.prediction.shadows import Shadows
from app.tenancy.answers import TenantAnswers
from app.tenancy.identity.gatekeeper import Gatekeeper
from app.tenancy.keys import TenantKeys
from app.tenancy.limits.under_way import OfTenant
from app.tenancy.service_levels import ServiceLevels
from app.web.front import Front

if TYPE_CHECKING:
    from tools.probes import Probes

# In the order in which a request meets them. What is within one part and named by another counts for that one.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "endpoint: order of things": [(Front, "__call__"), *((GraphQLEndpoint, name) for name in ("__call__", "_serve"))],
    "head, request id": [(Exchange, "__init__"), (GraphQLEndpoint, "_check_form")],
    "deadline": [(TimeLimit, "begun"), (Limited, "__exit__")],
    "who calls": [(Gatekeeper, "admit")],
    "admission": [(Admission, "begin"), (Share, "end")],
    "rate limit": [(Charge, "__init__"), (Charge, "take"), (Charge, "settle")],
    "body read": [(handler, "read_body")],
    "JSON, parameters": [(handler, "from_body")],
    "document look-up": [(GraphQLEndpoint, "_document")],
    "GraphQL: plan": [(Plan, "run"), (Plan, "_answer"), (GraphQLEndpoint, "_execute")],
    "predictor: order of things": [(Predictor, "predict"), (Predictor, "_admitted"), (Predictor, "_answer")],
    "predictions under way": [(OfTenant, "__enter__"), (OfTenant, "__exit__")],
    "unit's pseudonym": [(TenantKeys, "unit_pseudonym")],
    "route": [(Chooser, "of_unit")],
    "flags": [(TenantFlags, "decide")],
    "features checked": [(RowChecker, "row")],
    "budget of rows": [(TenantAnswers, "charge")],
    "breaker, pool, cache": [(Versions, "ask")],
    "model (ONNX)": [(OnnxRuntime, "infer")],
    "live proof, shadows considered": [(LiveProof, "consider"), (Shadows, "consider")],
    "prediction's id": [(IdMint, "mint")],
    "journal": [(Journal, "check_room"), (Journal, "append"), (said, "record")],
    "answer as values": [(said, "one")],
    "answer as bytes": [(Exchange, "respond")],
    "sending": [(Exchange, "send")],
    "metrics": [(Telemetry, "request"), (Telemetry, "in_flight"), (Telemetry, "prediction")],
    "service level": [(ServiceLevels, "count")],
}  # fmt: skip


def watch_all(probes: Probes) -> None:
    """Puts a probe on each part's functions. Before the application is made: it keeps some of them."""
    for part, places in PARTS.items():
        for owner, name in places:
            probes.watch(part, owner, name)


class Driver:
    """Requests one after the other, as a server hands them to an application. `answer`: the last body."""

    def __init__(self, app: Any, token: str, bodies: list[bytes]) -> None:
        self._app = app
        head = [(b"host", b"bench"), (b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")]
        self._asked = itertools.cycle([(body, [*head, (b"content-length", str(len(body)).encode())]) for body in bodies])
        self.answer = b""

    async def one(self) -> None:
        body, headers = next(self._asked)
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/graphql", "raw_path": b"/graphql", "query_string": b"", "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000), "state": {},
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            self.answer = message.get("body", b"")

        await self._app(scope, receive, send)

    async def many(self, count: int) -> list[float]:
        """Microseconds of each."""
        await asyncio.sleep(0)
        taken = []
        for _ in range(count):
            began = time.perf_counter_ns()
            await self.one()
            taken.append((time.perf_counter_ns() - began) / 1000)
        return taken

    async def at_once(self, count: int) -> None:
        """So many under way together."""
        for task in [asyncio.ensure_future(self.one()) for _ in range(count)]:
            await task


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """What driving costs."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
