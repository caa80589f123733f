"""What happened after a prediction: checked, kept once however often it is sent, and counted when the fold comes by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from app.audit import store as audit
from app.errors import AppError, Conflict, InvalidInput, NotFound, PermissionDenied
from app.experiments import outcome_store as store
from app.experiments.outcome_rules import MOST_AT_ONCE, check_declaration, check_metric, check_row, checked, no_prediction, outcome_id
from app.experiments.outcome_store import Kept
from app.experiments.store import declare, metrics_by_name
from app.kernel.context import Action
from app.kernel.names import check_name, check_unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from app.db.session import Database
    from app.experiments.outcome_rules import CheckedOutcome, OutcomeToRecord
    from app.experiments.outcome_store import LoggedPrediction
    from app.experiments.ports import OutcomeWindows, PredictionIds, UnitHashes
    from app.experiments.types import Metric
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext

_EXPECTED = (InvalidInput, NotFound, Conflict, PermissionDenied)


@dataclass(frozen=True, slots=True)
class Outcome:
    """As it is kept. `duplicate`: it was there already. `pending`: its prediction has not reached the log yet."""

    id: UUID
    metric: str
    value: float
    duplicate: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class RejectedOutcome:
    """`index`: of the list that was sent, from 0."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class RecordedOutcomes:
    """Both in the order in which they were sent."""

    recorded: list[Outcome]
    rejected: list[RejectedOutcome]


@dataclass(frozen=True, slots=True)
class _Sent:
    """One outcome on its way. `unit_hash`: of the unit that it names, or that the caller's token is pinned to."""

    index: int
    outcome: CheckedOutcome
    unit_hash: str | None


class OutcomeService:
    """Outcomes of the caller's tenant; one a process."""

    def __init__(self, database: Database, clock: Clock, ids: PredictionIds, hashes: UnitHashes, windows: OutcomeWindows) -> None:
        self._database, self._clock = database, clock
        self._ids, self._hashes, self._windows = ids, hashes, windows

    async def record(self, ctx: RequestContext, outcome: OutcomeToRecord) -> Outcome:
        """The outcome as it is kept; sent again it is the same one. Raises PermissionDenied, InvalidInput, NotFound, Conflict."""
        (result,) = await self._record(ctx, [outcome])
        if isinstance(result, AppError):
            raise result
        return result

    async def record_many(self, ctx: RequestContext, outcomes: Sequence[OutcomeToRecord]) -> RecordedOutcomes:
        """Those that are kept and those that are not, each with its reason; the good ones do not suffer from the bad ones.

        Raises PermissionDenied, InvalidInput (more than 1,000).
        """
        if len(outcomes) > MOST_AT_ONCE:
            raise InvalidInput(f"There are {len(outcomes):,} outcomes; at most {MOST_AT_ONCE:,} are taken at once.")
        results = await self._record(ctx, outcomes)
        rejected = [RejectedOutcome(i, error.code, error.message) for i, error in enumerate(results) if isinstance(error, AppError)]
        return RecordedOutcomes([result for result in results if isinstance(result, Outcome)], rejected)

    async def declare_metric(self, ctx: RequestContext, metric: Metric) -> Metric:
        """The metric, the tenant's from now on; declared again alike it stays. Raises PermissionDenied, InvalidInput, Conflict."""
        ctx.require(Action.MANAGE_EXPERIMENTS)
        check_name("metric", metric.name)
        check_declaration(metric)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            known = await metrics_by_name(session, ctx.tenant_id, [metric.name])
            await declare(session, ctx.tenant_id, [metric], self._clock.now())
            if not known:
                after = metric.to_json()
                await audit.record(session, ctx, self._clock, action="declareMetric", subject=f"metric:{metric.name}", after=after)
        return metric

    async def _record(self, ctx: RequestContext, outcomes: Sequence[OutcomeToRecord]) -> list[Outcome | AppError]:
        ctx.require(Action.RECORD_OUTCOME)
        now = self._clock.now()
        results: dict[int, Outcome | AppError] = {}
        sent: list[_Sent] = []
        for index, outcome in enumerate(outcomes):
            try:
                sent.append(self._check(ctx, index, outcome, now))
            except _EXPECTED as error:
                results[index] = error
        if sent:
            results |= await self._keep(ctx, sent, now)
        return [results[index] for index in range(len(outcomes))]

    def _check(self, ctx: RequestContext, index: int, given: OutcomeToRecord, now: datetime) -> _Sent:
        """What can be said without a look at the database."""
        if given.unit is not None and ctx.unit is not None and given.unit != ctx.unit:
            raise PermissionDenied("Your token is pinned to another unit.")
        is_own = partial(self._ids.is_own, ctx.tenant_id)
        outcome = checked(given, now, self._windows.outcome_window_days(ctx.tenant_id), is_own)
        unit = given.unit if given.unit is not None else ctx.unit
        return _Sent(index, outcome, None if unit is None else self._hashes.unit_hash(ctx.tenant_id, check_unit(unit)))

    async def _keep(self, ctx: RequestContext, sent: Sequence[_Sent], now: datetime) -> dict[int, Outcome | AppError]:
        results: dict[int, Outcome | AppError] = {}
        good: list[tuple[int, Kept]] = []
        ids = {each.outcome.prediction_id for each in sent if each.outcome.prediction_id is not None}
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            declared = await store.metric_names(session, ctx.tenant_id)
            predictions = await store.logged(session, ctx.tenant_id, ids)
            for each in sent:
                try:
                    check_metric(each.outcome.metric, declared)
                    good.append((each.index, _placed(each, predictions, ctx.unit is not None, now)))
                except _EXPECTED as error:
                    results[each.index] = error
            first = {kept.dedup_key: kept for _, kept in reversed(good)}  # a list may hold its own retries
            stored = await store.keep(session, ctx.tenant_id, list(first.values())) if first else {}
        for index, kept in good:
            results[index] = _answer(kept, stored[kept.dedup_key])
        return results


def _placed(sent: _Sent, predictions: Mapping[UUID, LoggedPrediction], pinned: bool, now: datetime) -> Kept:
    """The outcome with the unit that it belongs to; of a prediction that has not reached the log yet, the fold finds it later."""
    outcome, unit_hash, pending = sent.outcome, sent.unit_hash, False
    if outcome.prediction_id is not None:
        logged = predictions.get(outcome.prediction_id)
        pending = logged is None
        if logged is not None:
            if pinned and logged.unit_hash != unit_hash:
                raise no_prediction(outcome.prediction_id)
            check_row(outcome.row, logged.rows)
            unit_hash = logged.unit_hash
    return Kept(
        outcome_id(now, sent.index),
        outcome.metric,
        outcome.value,
        outcome.occurred_at,
        outcome.prediction_id,
        outcome.row,
        unit_hash,
        pending,
        outcome.dedup_key,
    )


def _answer(sent: Kept, kept: Kept) -> Outcome | AppError:
    if sent.id == kept.id:
        return Outcome(kept.id, kept.metric, kept.value, duplicate=False, pending=kept.pending)
    if kept.says(sent):
        return Outcome(kept.id, kept.metric, kept.value, duplicate=True, pending=kept.pending)
    if sent.dedup_key.startswith("key/"):
        return Conflict(f"This idempotencyKey was used for another outcome: {kept.metric!r} with the value {kept.value:g}.")
    return Conflict(
        f"The outcome {kept.metric!r} of this prediction is recorded with the value {kept.value!r}. "
        "Where another one happened, send it with an idempotencyKey of its own."
    )
