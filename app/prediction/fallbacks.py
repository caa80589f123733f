"""Who answers where the routed version does not: what the model's owner said with `fallback`.

The caller who names a version gets that version or an error; who names an alias, or nothing, left the version to the registry and gets
the fallback. PREVIOUS of an alias is what a rollback would go back to; of an experiment's arm it is the version of the alias itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from app.errors import AppError, InvalidFeatures
from app.kernel.clock import Deadline
from app.kernel.packed import ManyRows, PackedRows, many_in
from app.kernel.signature import InputKind, Signature, Task
from app.kernel.tensors import Batch, Scores
from app.prediction.asking import check_answer_size
from app.prediction.breakers import LeftAlone
from app.prediction.choosing import Chosen
from app.prediction.features import RowChecker
from app.prediction.resending import as_taken_by
from app.prediction.routing import RoutedVersion
from app.prediction.types import RoutingReason
from app.registry.types import PRODUCTION, FallbackKind, VersionRoute, VersionStatus

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from uuid import UUID

    from app.kernel.context import RequestContext
    from app.prediction.asking import Answer, Versions
    from app.prediction.ports import FallbackTelemetry
    from app.prediction.routing import RoutingTable, TenantRoutes
    from app.prediction.types import RouteRequest
    from app.registry.types import Fallback, ModelRoute

NO_VERSION = 0  # versions begin at 1: who reads a fixed answer is not told of a version that did not answer
_FIRST_SHARE = {FallbackKind.PREVIOUS: 0.5, FallbackKind.VERSION: 0.5, FallbackKind.ANSWER: 0.9}
log = structlog.get_logger()


class Fallbacks:
    """One a serving process."""

    def __init__(self, table: RoutingTable, versions: Versions, telemetry: FallbackTelemetry) -> None:
        self._table = table
        self._versions = versions
        self._telemetry = telemetry

    def first_deadline(self, ctx: RequestContext, request: RouteRequest, model: ModelRoute) -> Deadline:
        """How long the routed version of a model with a fallback has. Where the caller may have that, half of what is left: one that
        hangs must leave the fallback as much time as it took itself. A fixed answer takes none, and gets a tenth.
        """
        fallback = _fallback(model, request)
        if fallback is None:
            return ctx.deadline
        left = ctx.deadline.remaining_s()
        return ctx.deadline if left <= 0 else Deadline(ctx.deadline.at - left * (1 - _FIRST_SHARE[fallback.kind]))

    def for_nobody(self, tenant_id: UUID, request: RouteRequest) -> Chosen | None:
        """Who answers where no version can be routed to at all: nothing is in production yet, or what is there cannot serve."""
        routes = self._table.tenant(tenant_id)
        model = routes.models.get(request.model)
        alias = request.alias or PRODUCTION
        if model is None or (request.alias not in {None, PRODUCTION} and alias not in model.aliases):
            return None
        routed = stand_in(routes, model, request, model.aliases.get(alias))
        return None if routed is None else Chosen(model, routed, RoutingReason.FALLBACK, degraded=True)

    async def answer(
        self, ctx: RequestContext, request: RouteRequest, failed: Chosen, batch: Batch, sent: Any, error: AppError, threads: Executor
    ) -> tuple[Chosen, Answer]:
        """What the fallback says in the place of `failed`, which raised `error`, and as what it is told and written down.

        Raises `error` again where nobody can answer.
        """
        model = failed.model
        if _fallback(model, request) is None:
            raise error
        kind = _kind(model)
        routed = stand_in(self._table.tenant(ctx.tenant_id), model, request, failed.routed.route.number, failed.routed.route.classes)
        if routed is None:
            self._telemetry.fallback(kind, "missing")
            raise error
        try:
            answer = await self._ask(ctx, model, routed, await self._rows(routed, failed, batch, sent, threads))
        except AppError as second:
            log.warning("fallback_failed", model=model.name, version=routed.route.number, code=second.code, why=second.message)
            self._telemetry.fallback(kind, "failed")
            raise error from None
        if not isinstance(error, LeftAlone):  # which was told when it began
            log.warning("fallback_answered", model=model.name, version=failed.routed.route.number, code=error.code, why=error.message)
        self._telemetry.fallback(kind, "answered")
        return _as_fallen_back(failed, routed), answer

    async def for_nobody_answer(self, ctx: RequestContext, chosen: Chosen, batch: Batch, error: AppError) -> tuple[Chosen, Answer]:
        """What `for_nobody` chose says; raises `error` where it cannot."""
        kind = _kind(chosen.model)
        try:
            answer = await self._ask(ctx, chosen.model, chosen.routed, batch)
        except AppError:
            self._telemetry.fallback(kind, "failed")
            raise error from None
        self._telemetry.fallback(kind, "answered")
        return chosen, answer

    async def _ask(self, ctx: RequestContext, model: ModelRoute, routed: RoutedVersion, batch: Batch) -> Answer:
        if routed.route.number == NO_VERSION:
            return _said(model, batch.rows), 0.0, "fixed"
        return await self._versions.ask(ctx.tenant_id, model, routed, batch, ctx.deadline)

    async def _rows(self, routed: RoutedVersion, failed: Chosen, batch: Batch, sent: Any, threads: Executor) -> Batch:
        if routed.route.number == NO_VERSION:
            return batch
        check_answer_size(batch.rows, len(routed.route.classes or ()))
        return await as_taken_by(routed, failed.routed, batch, sent, threads)


def stand_in(
    routes: TenantRoutes, model: ModelRoute, request: RouteRequest, failed: int | None, classes: tuple[str, ...] | None = None
) -> RoutedVersion | None:
    """Who answers in the place of version `failed` (None: of no version); None where nobody does.

    `classes`: of that version; a fixed answer that is none of them is not given.
    """
    fallback = _fallback(model, request)
    if fallback is None:
        return None
    if fallback.kind is FallbackKind.ANSWER:
        return _fixed(model, fallback.answer, classes)
    number = fallback.version
    if fallback.kind is FallbackKind.PREVIOUS:
        alias = request.alias or PRODUCTION
        present = model.aliases.get(alias)
        number = present if failed is not None and failed != present else model.previous.get(alias)
    routed = None if number is None or number == failed else routes.aliased.get((model.model_id, number))
    return routed if routed is not None and routed.route.status is VersionStatus.READY else None


def _fallback(model: ModelRoute, request: RouteRequest) -> Fallback | None:
    """What this caller may fall back on; nothing where the caller named a version."""
    return None if request.version is not None else model.fallback


def _kind(model: ModelRoute) -> str:
    return FallbackKind.NONE if model.fallback is None else model.fallback.kind


def _as_fallen_back(failed: Chosen, routed: RoutedVersion) -> Chosen:
    """The request stays its arm's (intention to treat); of what was no exposure before the variant is left out, so that it becomes none."""
    exposed = failed.reason is RoutingReason.EXPERIMENT
    return Chosen(
        failed.model,
        routed,
        RoutingReason.FALLBACK,
        failed.experiment,
        failed.variant if exposed else None,
        failed.propensity if exposed else None,
        failed.flag_revision,
        degraded=True,
    )


class _TakesAnything(RowChecker):
    """Of an answer that does not depend on the row."""

    def __init__(self) -> None:
        super().__init__(_NOTHING)

    def row(self, row: Any) -> Batch:
        return self.rows((row,))

    def rows(self, rows: Any) -> Batch:
        many = many_in(rows)
        if isinstance(many, PackedRows):
            return Batch(many.count, np.empty((many.count, 0)))
        rows = rows if many is None else many.listed()
        if not all(isinstance(row, dict | list) for row in rows):
            problem = {"name": None, "problem": "SHAPE", "expected": "rows that are objects or lists", "got": "something else"}
            raise InvalidFeatures("A row must be an object or a list.", problems=[problem])
        return Batch(len(rows), np.empty((len(rows), 0)))

    def matrix(self, matrix: Any) -> Batch:
        data = matrix.get("data") if isinstance(matrix, dict) else None
        return self.rows(data if isinstance(data, list | ManyRows) else [None])


_NOTHING = Signature((), InputKind.ARRAY)
_ANYTHING = _TakesAnything()


def _fixed(model: ModelRoute, answer: Any, classes: tuple[str, ...] | None) -> RoutedVersion | None:
    """The fixed answer as if it were a version; None where it is no answer of such a model, or of the version that it stands in for."""
    if model.task is Task.CLASSIFICATION:
        if not isinstance(answer, str) or (classes is not None and answer not in classes):
            return None
    elif isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        return None
    labels = (answer,) if model.task is Task.CLASSIFICATION else None
    route = VersionRoute(model.model_id, NO_VERSION, model.task, VersionStatus.READY, "", 0, _NOTHING, labels)
    return RoutedVersion(route, _ANYTHING)


def _said(model: ModelRoute, rows: int) -> Scores:
    if model.task is Task.CLASSIFICATION:
        return Scores(labels=np.zeros(rows, dtype=np.int32))
    answer: Any = None if model.fallback is None else model.fallback.answer
    return Scores(values=np.full(rows, float(answer)))
