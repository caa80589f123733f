"""One prediction, or many rows by one route: route, check, ask the model, write it down, answer. Reads memory only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import InvalidFeatures, InvalidInput, NotFound, PermissionDenied
from app.experiments.flags.context import check_attributes
from app.kernel.context import Action
from app.kernel.names import check_unit
from app.prediction import said
from app.prediction.cache import cache_key
from app.prediction.captures import captured
from app.prediction.features import LARGEST_ANSWER_CELLS, LARGEST_BATCH
from app.prediction.routing import check_pin
from app.prediction.types import BatchRows, RoutingReason
from app.registry.types import PRODUCTION

if TYPE_CHECKING:
    from uuid import UUID

    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.ids import IdMint
    from app.kernel.tensors import Batch, Scores
    from app.prediction.bulkheads import TenantThreads
    from app.prediction.cache import PredictionCache
    from app.prediction.choosing import Chooser, Chosen
    from app.prediction.live_proof import LiveProof
    from app.prediction.pool import RuntimePool
    from app.prediction.ports import Journal, PredictionTelemetry, RowBudget
    from app.prediction.routing import RoutedVersion
    from app.prediction.shadows import Shadows
    from app.prediction.types import BatchPrediction, Prediction, RouteRequest
    from app.tenancy.directory import TenantDirectory, TenantEntry

_CELLS_OFF_LOOP = 20_000  # checking more than this would hold the loop for longer than another request should wait


class Predictor:
    """Answers predictions for any tenant; one a serving process."""

    def __init__(
        self,
        directory: TenantDirectory,
        chooser: Chooser,
        pool: RuntimePool,
        cache: PredictionCache,
        live_proof: LiveProof,
        shadows: Shadows,
        journal: Journal,
        budget: RowBudget,
        mint: IdMint,
        telemetry: PredictionTelemetry,
        clock: Clock,
        threads: TenantThreads,
    ) -> None:
        self._directory = directory
        self._chooser = chooser
        self._pool = pool
        self._cache = cache
        self._live_proof = live_proof
        self._shadows = shadows
        self._journal = journal
        self._budget = budget
        self._mint = mint
        self._telemetry = telemetry
        self._clock = clock
        self._threads = threads

    async def predict(self, ctx: RequestContext, request: RouteRequest, features: Any) -> Prediction:
        """The prediction for one row, in the log before it is returned.

        Raises NotFound, InvalidFeatures, InvalidInput, PermissionDenied, RateLimited, QuotaExceeded, ModelFailed, ModelUnavailable,
        DeadlineExceeded, LogUnavailable.
        """
        with self._budget.under_way(ctx.tenant_id):
            asked = await self._admitted(ctx, request)
            batch = asked.chosen.routed.checker.rows((features,))
            scores, prediction_id = await self._answer(ctx, asked, batch, features)
            return said.one(prediction_id, request, asked.chosen, scores)

    async def predict_batch(self, ctx: RequestContext, request: RouteRequest, sent: BatchRows) -> BatchPrediction:
        """Predictions for up to 10,000 rows, all by one version and under one id; raises as `predict`."""
        count = _count(sent)
        with self._budget.under_way(ctx.tenant_id):
            asked = await self._admitted(ctx, request)
            routed = asked.chosen.routed
            check_answer_size(count, len(routed.route.classes or ()))
            if count * len(routed.route.signature.columns) > _CELLS_OFF_LOOP:
                loop = asyncio.get_running_loop()
                batch = await loop.run_in_executor(self._threads.of(ctx.tenant_id), _checked, routed, sent)
            else:
                batch = _checked(routed, sent)
            scores, prediction_id = await self._answer(ctx, asked, batch, sent)
            return said.many(prediction_id, request, asked.chosen, batch.rows, scores)

    async def _admitted(self, ctx: RequestContext, request: RouteRequest) -> _Asked:
        """Who answers the caller; raises where the caller may not ask this, or nobody can answer."""
        unit, pinned = _admit(ctx, request)
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:  # erased since the caller was admitted
            raise NotFound(f"There is no model named {request.model!r}.")
        unit_hash = None if unit is None else entry.keys.unit_pseudonym(unit)
        if pinned:
            return _Asked(entry, unit_hash, await self._chooser.named(ctx.tenant_id, request))
        return _Asked(entry, unit_hash, self._chooser.of_unit(ctx.tenant_id, request, unit_hash))

    async def _answer(self, ctx: RequestContext, asked: _Asked, batch: Batch, sent: Any) -> tuple[Scores, UUID]:
        entry, chosen = asked.entry, asked.chosen
        durability = entry.tenant.settings.durability
        self._journal.check_room(durability)
        await self._budget.charge(ctx.tenant_id, batch.rows)
        scores, seconds, served_by = await self._scores(ctx, chosen, batch)
        keys = entry.keys
        prediction_id = self._mint.mint(keys.ids)
        record = said.record(ctx.tenant_id, prediction_id, chosen, asked.unit_hash, keys.pseudonym_generation, batch, scores, seconds)
        await self._journal.append(record, durability)
        if entry.tenant.settings.capture_inputs:
            await self._journal.append(await captured(keys, record, chosen.routed.route.signature, batch), durability)
        self._telemetry.prediction(
            tenant=ctx.tenant, model=record.model, version=record.version, seconds=seconds, rows=batch.rows, runtime=served_by
        )
        if chosen.reason is RoutingReason.EXPERIMENT:
            self._shadows.consider(record, chosen, batch, scores, sent)
        return scores, prediction_id

    async def _scores(self, ctx: RequestContext, chosen: Chosen, batch: Batch) -> tuple[Scores, float, str]:
        """The answers, the seconds that they took, and what gave them: a runtime's kind, or "cache"."""
        model, route = chosen.model, chosen.routed.route
        started = self._clock.monotonic()
        key = cache_key(route, batch) if model.cache_seconds else None
        if key is not None and (kept := self._cache.get(ctx.tenant_id, key, model.cache_seconds)) is not None:
            return kept, self._clock.monotonic() - started, "cache"
        runtime = self._pool.use(ctx.tenant_id, route)
        if runtime is None:
            runtime = await self._pool.get_within(ctx.tenant_id, route, ctx.deadline)
            started = self._clock.monotonic()
        scores = await runtime.infer(batch, ctx.deadline)
        seconds = self._clock.monotonic() - started
        if runtime.kind == "onnx":
            self._live_proof.consider(ctx.tenant_id, route, batch, scores)
        if key is not None:
            self._cache.put(ctx.tenant_id, key, scores)
        return scores, seconds, runtime.kind


@dataclass(slots=True)
class _Asked:
    """A request that is admitted: whose it is, for which unit, and who answers."""

    entry: TenantEntry
    unit_hash: str | None
    chosen: Chosen


def _admit(ctx: RequestContext, request: RouteRequest) -> tuple[str | None, bool]:
    """The unit, and whether the request names who answers; raises where the caller may not ask this."""
    ctx.require(Action.PREDICT)
    pinned = check_pin(request.alias, request.version)
    if request.version is not None or (request.alias is not None and request.alias != PRODUCTION):
        ctx.require(Action.CHOOSE_VERSION)
    unit = request.unit
    if ctx.unit is not None:
        if unit is not None and unit != ctx.unit:
            raise PermissionDenied("Your token speaks for one unit, and this is another: leave unit out.")
        unit = ctx.unit
    if unit is not None:
        check_unit(unit)
    check_attributes(request.attributes)
    return unit, pinned


def _count(sent: BatchRows) -> int:
    """How many rows there are; raises where there are none, too many, or both forms."""
    if (sent.rows is None) == (sent.matrix is None):
        raise InvalidInput("Send exactly one of rows and matrix.")
    data = sent.rows if sent.rows is not None else sent.matrix.get("data") if isinstance(sent.matrix, dict) else None
    count = len(data) if isinstance(data, list) else 1
    if count == 0:
        raise InvalidFeatures(
            "There are no rows.", problems=[{"name": None, "problem": "SHAPE", "expected": "1 to 10,000 rows", "got": "0"}]
        )
    if count > LARGEST_BATCH:
        raise InvalidInput(f"There are {count:,} rows; one call takes at most {LARGEST_BATCH:,}.")
    return count


def check_answer_size(rows: int, classes: int) -> None:
    """Raises InvalidInput where the probabilities would be too many to answer with: writing them out holds up every other request."""
    if rows * classes > LARGEST_ANSWER_CELLS:
        raise InvalidInput(
            f"{rows:,} rows of {classes:,} classes are {rows * classes:,} probabilities; one call answers with at most "
            f"{LARGEST_ANSWER_CELLS:,}: send at most {LARGEST_ANSWER_CELLS // classes:,} rows."
        )


def _checked(routed: RoutedVersion, sent: BatchRows) -> Batch:
    return routed.checker.matrix(sent.matrix) if sent.rows is None else routed.checker.rows(sent.rows)
