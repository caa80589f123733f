"""What orchestrators and operators look at: `/`, `/livez`, `/readyz`, `/health`, `/metrics`."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.errors import AppError
from app.kernel.clock import Deadline
from app.kernel.context import Role
from app.observability.health import HealthReport, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from app.graphql.http.ports import Gatekeeper
    from app.observability.health import HealthProbe

PROBE_TIMEOUT_S = 1.5
_NO_STORE = {"Cache-Control": "no-store"}


class SystemPages:
    """The routes. `ready` says why this process cannot serve yet, None where it can; `models` lists what is loaded."""

    def __init__(
        self,
        version: str,
        probes: Sequence[HealthProbe],
        ready: Callable[[], str | None],
        models: Callable[[bool], list[dict[str, Any]]],
        exposition: Callable[[bool], bytes],
        gatekeeper: Gatekeeper,
        metrics_token: str | None,
        development: bool,
    ) -> None:
        self._version = version
        self._probes = probes
        self._ready = ready
        self._models = models
        self._exposition = exposition
        self._gatekeeper = gatekeeper
        self._metrics_token = metrics_token
        self._development = development

    def routes(self) -> list[Route]:
        pages = {"/": self.index, "/livez": self.livez, "/readyz": self.readyz, "/health": self.health, "/metrics": self.metrics}
        return [Route(path, page, methods=["GET"]) for path, page in pages.items()]

    async def index(self, _request: Request) -> Response:
        links = {"graphql": "/graphql", "artifacts": "/artifacts", "health": "/health", "metrics": "/metrics"}
        what = "GraphQL prediction service with a multi-tenant, A/B-testable model registry"
        return JSONResponse({"name": "Turnout", "what": what, "version": self._version, "links": links})

    async def livez(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_NO_STORE)

    async def readyz(self, _request: Request) -> Response:
        why_not = self._ready()
        if why_not is None:
            return JSONResponse({"status": "ready"}, headers=_NO_STORE)
        return JSONResponse({"status": "not ready", "reason": why_not}, 503, headers={**_NO_STORE, "Retry-After": "1"})

    async def health(self, request: Request) -> Response:
        """Details without secrets; names of tenants and models for an operator's token alone."""
        report = await HealthReport.collect(self._probes, PROBE_TIMEOUT_S)
        parts = {name: {"status": result.status.value, **result.details} for name, result in report.probes.items()}
        models = self._models(await self._is_operator(request))
        body = {"status": report.status.value, "version": self._version, **parts, "models": models}
        return JSONResponse(body, 503 if report.status is Status.DOWN else 200, headers=_NO_STORE)

    async def metrics(self, request: Request) -> Response:
        """Prometheus text. Tenant, model and version labels need the metrics token; without one set, development shows them."""
        text = await asyncio.to_thread(self._exposition, self._shows_tenants(request))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8", headers=_NO_STORE)

    def _shows_tenants(self, request: Request) -> bool:
        if self._metrics_token is None:
            return self._development
        sent = request.headers.get("authorization", "")
        return hmac.compare_digest(sent.encode(), f"Bearer {self._metrics_token}".encode())

    async def _is_operator(self, request: Request) -> bool:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return False
        address = "unknown" if request.client is None else request.client.host
        try:
            ctx = await self._gatekeeper.admit(authorization, "health", Deadline.after(PROBE_TIMEOUT_S), address)
        except AppError:
            return False
        return Role.OPERATOR in ctx.roles
