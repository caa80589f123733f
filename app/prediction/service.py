"""One prediction, or many rows by one route: route, check, ask the model, write it down, answer. Reads memory only."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from app.errors import AppError, InvalidFeatures, InvalidInput, ModelFailed, ModelUnavailable, NotFound, PermissionDenied, Unavailable
from app.experiments.flags.context import check_attributes
from app.kernel.context import Action
from app.kernel.names import check_unit
from app.kernel.packed import PackedRows, many_in
from app.prediction import said
from app.prediction.asking import check_answer_size
from app.prediction.captures import captured
from app.prediction.features import CELLS_OFF_LOOP, LARGEST_BATCH
from app.prediction.routing import check_pin
from app.prediction.types import BatchRows, RoutingReason
from app.registry.types import PRODUCTION

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from app.kernel.context import RequestContext
    from app.kernel.ids import IdMint
    from app.kernel.tensors import Batch, Scores
    from app.prediction.asking import Versions
    from app.prediction.bulkheads import TenantThreads
    from app.prediction.choosing import Chooser, Chosen
    from app.prediction.fallbacks import Fallbacks
    from app.prediction.ports import Journal, PredictionTelemetry, RowBudget
    from app.prediction.routing import RoutedVersion
    from app.prediction.shadows import Shadows
    from app.prediction.types import BatchPrediction, Prediction, RouteRequest
    from app.tenancy.directory import TenantDirectory, TenantEntry

    _Tell = Callable[[UUID, RouteRequest, Chosen, Scores], "T"]

T = TypeVar("T")
_PACKED_CELLS_OFF_LOOP = 100_000  # as CELLS_OFF_LOOP, of rows that are arrays already


class Predictor:
    """Answers predictions for any tenant; one a serving process."""

    def __init__(
        self,
        directory: TenantDirectory,
        chooser: Chooser,
        versions: Versions,
        fallbacks: Fallbacks,
        shadows: Shadows,
        journal: Journal,
        budget: RowBudget,
        mint: IdMint,
        telemetry: PredictionTelemetry,
        threads: TenantThreads,
    ) -> None:
        self._directory = directory
        self._chooser = chooser
        self._versions = versions
        self._fallbacks = fallbacks
        self._shadows = shadows
        self._journal = journal
        self._budget = budget
        self._mint = mint
        self._telemetry = telemetry
        self._threads = threads

    async def predict(self, ctx: RequestContext, request: RouteRequest, features: Any) -> Prediction:
        """The prediction for one row, in the log before it is returned.

        Raises NotFound, InvalidFeatures, InvalidInput, PermissionDenied, RateLimited, QuotaExceeded, ModelFailed, ModelUnavailable,
        DeadlineExceeded, LogUnavailable.
        """
        with self._budget.under_way(ctx.tenant_id):
            asked = await self._admitted(ctx, request)
            batch = asked.chosen.routed.checker.row(features)
            return await self._answer(ctx, request, asked, batch, features, said.one)

    async def predict_batch(self, ctx: RequestContext, request: RouteRequest, sent: BatchRows) -> BatchPrediction:
        """Predictions for up to 10,000 rows, all by one version and under one id; raises as `predict`."""
        count, packed = _count(sent)
        with self._budget.under_way(ctx.tenant_id):
            asked = await self._admitted(ctx, request)
            routed = asked.chosen.routed
            check_answer_size(count, len(routed.route.classes or ()))
            if count * len(routed.route.signature.columns) > (_PACKED_CELLS_OFF_LOOP if packed else CELLS_OFF_LOOP):
                loop = asyncio.get_running_loop()
                batch = await loop.run_in_executor(self._threads.of(ctx.tenant_id), _checked, routed, sent)
            else:
                batch = _checked(routed, sent)
            return await self._answer(ctx, request, asked, batch, sent, partial(said.many, batch.rows))

    async def _admitted(self, ctx: RequestContext, request: RouteRequest) -> _Asked:
        """Who answers the caller; raises where the caller may not ask this, or nobody can answer."""
        unit = _admit(ctx, request)
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:  # erased since the caller was admitted
            raise NotFound(f"There is no model named {request.model!r}.")
        unit_hash = None if unit is None else entry.keys.unit_pseudonym(unit)
        try:
            if request.alias is None and request.version is None:
                return _Asked(entry, unit_hash, self._chooser.of_unit(ctx.tenant_id, request, unit_hash))
            return _Asked(entry, unit_hash, await self._chooser.named(ctx.tenant_id, request))
        except (NotFound, ModelUnavailable) as nobody:
            chosen = self._fallbacks.for_nobody(ctx.tenant_id, request)
            if chosen is None:
                raise
            return _Asked(entry, unit_hash, chosen, nobody)

    async def _answer(self, ctx: RequestContext, request: RouteRequest, asked: _Asked, batch: Batch, sent: Any, tell: _Tell[T]) -> T:
        entry, unit_hash, chosen, nobody = asked
        settings, keys = entry.tenant.settings, entry.keys
        self._journal.check_room(settings.durability)
        if (charging := self._budget.charge(ctx.tenant_id, batch.rows)) is not None:
            await charging
        if nobody is not None:
            chosen, answer = await self._fallbacks.for_nobody_answer(ctx, chosen, batch, nobody)
        else:
            model = chosen.model
            deadline = ctx.deadline if model.fallback is None else self._fallbacks.first_deadline(ctx, request, model)
            try:
                answer = await self._versions.ask(ctx.tenant_id, model, chosen.routed, batch, deadline)
            except (ModelFailed, Unavailable) as error:  # what its model falls back on answers, else this is raised again
                threads = self._threads.of(ctx.tenant_id)
                chosen, answer = await self._fallbacks.answer(ctx, request, chosen, batch, sent, error, threads)
        scores, seconds, served_by = answer
        prediction_id = self._mint.mint(keys.ids)
        record = said.record(ctx.tenant_id, prediction_id, chosen, unit_hash, keys.pseudonym_generation, batch, scores, seconds)
        if (writing := self._journal.append(record, settings.durability, ctx.deadline)) is not None:
            await writing
        if settings.capture_inputs:
            sealed = await captured(keys, record, asked.chosen.routed.route.signature, batch)
            if (writing := self._journal.append(sealed, settings.durability, ctx.deadline)) is not None:
                await writing
        self._telemetry.prediction(
            tenant=ctx.tenant, model=record.model, version=record.version, seconds=seconds, rows=batch.rows, runtime=served_by
        )
        if chosen.reason is RoutingReason.EXPERIMENT:
            self._shadows.consider(record, chosen, batch, scores, sent)
        return tell(prediction_id, request, chosen, scores)


class _Asked(NamedTuple):
    """A request that is admitted: whose it is, for which unit, and who answers. `nobody`: why that is a fallback from the first."""

    entry: TenantEntry
    unit_hash: str | None
    chosen: Chosen
    nobody: AppError | None = None


def _admit(ctx: RequestContext, request: RouteRequest) -> str | None:
    """The unit; raises where the caller may not ask this."""
    ctx.require(Action.PREDICT)
    if request.alias is not None or request.version is not None:
        check_pin(request.alias, request.version)
        if request.alias != PRODUCTION:
            ctx.require(Action.CHOOSE_VERSION)
    unit = request.unit
    if ctx.unit is not None:
        if unit is not None and unit != ctx.unit:
            raise PermissionDenied("Your token speaks for one unit, and this is another: leave unit out.")
        unit = ctx.unit
    if unit is not None:
        check_unit(unit)
    if request.attributes is not None:
        check_attributes(request.attributes)
    return unit


def _count(sent: BatchRows) -> tuple[int, bool]:
    """How many rows there are, and whether they are arrays already; raises where there are none, too many, or both forms."""
    if (sent.rows is None) == (sent.matrix is None):
        raise InvalidInput("Send exactly one of rows and matrix.")
    data = sent.rows if sent.rows is not None else sent.matrix.get("data") if isinstance(sent.matrix, dict) else None
    many = many_in(data)
    count = many.count if many is not None else len(data) if isinstance(data, list) else 1
    if count == 0:
        raise InvalidFeatures(
            "There are no rows.", problems=[{"name": None, "problem": "SHAPE", "expected": "1 to 10,000 rows", "got": "0"}]
        )
    if count > LARGEST_BATCH:
        raise InvalidInput(f"There are {count:,} rows; one call takes at most {LARGEST_BATCH:,}.")
    return count, isinstance(many, PackedRows)


def _checked(routed: RoutedVersion, sent: BatchRows) -> Batch:
    return routed.checker.matrix(sent.matrix) if sent.rows is None else routed.checker.rows(sent.rows)
