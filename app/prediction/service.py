"""One prediction, or many rows by one route: route, check, ask the model, write it down, answer. Reads memory only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from app.errors import InvalidFeatures, InvalidInput, NotFound, PermissionDenied
from app.journal.types import PredictionRecord
from app.kernel.context import Action
from app.kernel.names import check_unit
from app.prediction.cache import cache_key
from app.prediction.features import LARGEST_ANSWER_CELLS, LARGEST_BATCH
from app.prediction.routing import RoutedVersion, aliased_version, check_pin, find_model
from app.prediction.types import BatchPrediction, ClassProbability, Prediction, RoutingReason
from app.registry.types import PRODUCTION

if TYPE_CHECKING:
    from uuid import UUID

    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.ids import IdMint
    from app.kernel.tensors import Batch, Scores
    from app.prediction.cache import PredictionCache
    from app.prediction.live_proof import LiveProof
    from app.prediction.pool import RuntimePool
    from app.prediction.ports import Journal, PredictionTelemetry, RowBudget
    from app.prediction.routing import RoutingTable
    from app.prediction.types import BatchRows, RouteRequest
    from app.registry.routes import VersionLookup
    from app.registry.types import ModelRoute
    from app.tenancy.directory import TenantDirectory
    from app.tenancy.keys import TenantKeys

_CELLS_OFF_LOOP = 20_000  # checking more than this would hold the loop for longer than another request should wait


class Predictor:
    """Answers predictions for any tenant; one a serving process."""

    def __init__(
        self,
        directory: TenantDirectory,
        table: RoutingTable,
        lookup: VersionLookup,
        pool: RuntimePool,
        cache: PredictionCache,
        live_proof: LiveProof,
        journal: Journal,
        budget: RowBudget,
        mint: IdMint,
        telemetry: PredictionTelemetry,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._table = table
        self._lookup = lookup
        self._pool = pool
        self._cache = cache
        self._live_proof = live_proof
        self._journal = journal
        self._budget = budget
        self._mint = mint
        self._telemetry = telemetry
        self._clock = clock

    async def predict(self, ctx: RequestContext, request: RouteRequest, features: Any) -> Prediction:
        """The prediction for one row, in the log before it is returned.

        Raises NotFound, InvalidFeatures, InvalidInput, PermissionDenied, QuotaExceeded, ModelFailed, ModelUnavailable,
        DeadlineExceeded, LogUnavailable.
        """
        unit, reason = _admit(ctx, request)
        model, routed = await self._route(ctx, request)
        batch = routed.checker.rows((features,))
        scores, prediction_id = await self._answer(ctx, request, unit, reason, model, routed, batch)
        return _one(prediction_id, request, reason, routed, scores)

    async def predict_batch(self, ctx: RequestContext, request: RouteRequest, sent: BatchRows) -> BatchPrediction:
        """Predictions for up to 10,000 rows, all by one version and under one id; raises as `predict`."""
        unit, reason = _admit(ctx, request)
        count = _count(sent)
        model, routed = await self._route(ctx, request)
        check_answer_size(count, len(routed.route.classes or ()))
        large = count * len(routed.route.signature.columns) > _CELLS_OFF_LOOP
        batch = await asyncio.to_thread(_checked, routed, sent) if large else _checked(routed, sent)
        scores, prediction_id = await self._answer(ctx, request, unit, reason, model, routed, batch)
        return _many(prediction_id, request, reason, routed, batch.rows, scores)

    async def _route(self, ctx: RequestContext, request: RouteRequest) -> tuple[ModelRoute, RoutedVersion]:
        routes = self._table.tenant(ctx.tenant_id)
        model = find_model(routes, request.model)
        if request.version is None:
            return model, aliased_version(routes, model, request.alias)
        key = (model.model_id, request.version)
        routed = routes.aliased.get(key) or routes.pinned.get(key)
        if routed is None:
            routed = self._table.trusted(RoutedVersion.of(await self._lookup.find(ctx.tenant_id, model, request.version)))
            routes.pinned[key] = routed
        return model, routed

    async def _answer(
        self,
        ctx: RequestContext,
        request: RouteRequest,
        unit: str | None,
        reason: RoutingReason,
        model: ModelRoute,
        routed: RoutedVersion,
        batch: Batch,
    ) -> tuple[Scores, UUID]:
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:  # erased since the caller was admitted
            raise NotFound(f"There is no model named {request.model!r}.")
        durability = entry.tenant.settings.durability
        self._journal.check_room(durability)
        self._budget.charge(ctx.tenant_id, batch.rows)
        scores, seconds, served_by = await self._scores(ctx, model, routed, batch)
        prediction_id = self._mint.mint(entry.keys.ids)
        record = _record(ctx, request, unit, reason, routed, batch, scores, seconds, prediction_id, entry.keys)
        await self._journal.append(record, durability)
        self._telemetry.prediction(
            tenant=ctx.tenant, model=request.model, version=routed.route.number, seconds=seconds, rows=batch.rows, runtime=served_by
        )
        return scores, prediction_id

    async def _scores(self, ctx: RequestContext, model: ModelRoute, routed: RoutedVersion, batch: Batch) -> tuple[Scores, float, str]:
        """The answers, the seconds that they took, and what gave them: a runtime's kind, or "cache"."""
        route = routed.route
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


def _admit(ctx: RequestContext, request: RouteRequest) -> tuple[str | None, RoutingReason]:
    """The unit and the reason to write down; raises where the caller may not ask this."""
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
    return unit, RoutingReason.PINNED if pinned else RoutingReason.ALIAS


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


def _record(
    ctx: RequestContext,
    request: RouteRequest,
    unit: str | None,
    reason: RoutingReason,
    routed: RoutedVersion,
    batch: Batch,
    scores: Scores,
    seconds: float,
    prediction_id: UUID,
    keys: TenantKeys,
) -> PredictionRecord:
    return PredictionRecord(
        id=prediction_id,
        tenant_id=ctx.tenant_id,
        unit_hash=None if unit is None else keys.unit_pseudonym(unit),
        key_generation=keys.pseudonym_generation,
        model=request.model,
        version=routed.route.number,
        reason=reason.value,
        experiment=None,
        variant=None,
        propensity=None,
        flag_revision=None,
        rows=batch.rows,
        compute_us=int(seconds * 1e6),
        score=_score(scores) if batch.rows == 1 else None,
        degraded=False,
    )


def _score(scores: Scores) -> float | None:
    """What a single answer is weighed by: the probability of its label, or the predicted number."""
    if scores.values is not None:
        return float(scores.values[0])
    if scores.probabilities is not None and scores.labels is not None:
        return float(scores.probabilities[0, scores.labels[0]])
    return None


def _one(prediction_id: UUID, request: RouteRequest, reason: RoutingReason, routed: RoutedVersion, scores: Scores) -> Prediction:
    label = probability = probabilities = None
    if scores.labels is not None:
        classes = routed.route.classes or ()
        index = int(scores.labels[0])
        label = classes[index]
        if scores.probabilities is not None:
            row = scores.probabilities[0].tolist()
            probability = row[index]
            probabilities = [ClassProbability(name, share) for name, share in zip(classes, row, strict=True)]
    value = None if scores.values is None else float(scores.values[0])
    return Prediction(
        id=prediction_id,
        model=request.model,
        version=routed.route.number,
        variant=None,
        experiment=None,
        reason=reason,
        label=label,
        probability=probability,
        probabilities=probabilities,
        value=value,
        degraded=False,
    )


def _many(
    prediction_id: UUID, request: RouteRequest, reason: RoutingReason, routed: RoutedVersion, rows: int, scores: Scores
) -> BatchPrediction:
    classes = routed.route.classes
    labels = None if scores.labels is None or classes is None else [classes[i] for i in scores.labels.tolist()]
    return BatchPrediction(
        id=prediction_id,
        model=request.model,
        version=routed.route.number,
        variant=None,
        experiment=None,
        reason=reason,
        degraded=False,
        row_count=rows,
        classes=None if classes is None else list(classes),
        labels=labels,
        probabilities=scores.probabilities,
        values=scores.values,
    )
