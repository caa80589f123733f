"""What other versions say to the same input, off the caller's time: an experiment's shadow variants, and the control version on the
first input of each unit that another arm answered, by whose score its outcomes are compared more sharply.

What is to be asked waits in a short queue, and is dropped where that is full, where it waited too long, or where the log is full: under
load this goes first. One turn of the event loop computes one or two of them, so that requests come in between. Nothing of it reaches
a caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from app.errors import AppError, InvalidFeatures, InvalidInput
from app.journal.types import Durability, ShadowKind, ShadowRecord
from app.kernel.clock import Deadline
from app.kernel.packed import listed
from app.prediction import said
from app.prediction.resending import as_taken_by
from app.prediction.types import BatchRows
from app.registry.types import VersionStatus

if TYPE_CHECKING:
    from app.experiments.types import Variant
    from app.journal.types import PredictionRecord
    from app.kernel.clock import Clock
    from app.kernel.tensors import Batch, Said, Scores
    from app.prediction.choosing import Chosen
    from app.prediction.pool import RuntimePool
    from app.prediction.ports import ShadowJournal, ShadowTelemetry
    from app.prediction.routing import RoutedVersion, RoutingTable
    from app.registry.types import VersionRoute

_MOST_SHADOWS = 2  # of one experiment
_MOST_ROWS = 100  # of a batch
_MOST_WAITING = {ShadowKind.SHADOW: 64, ShadowKind.COVARIATE: 512}  # a unit's first input comes once
_LONGEST_WAIT_S = 1.0
_WORKERS = 2
_WITHIN_S = 10.0  # a child that does not answer by then is ended, and it may be others' as well
_UNITS_KNOWN = 100_000  # in each of two halves
_LONGEST_LABEL = 1_000
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Question:
    kind: ShadowKind
    variant: Variant
    record: PredictionRecord  # of the answer that the caller got
    served: RoutedVersion
    batch: Batch
    scores: Scores
    sent: Any  # the same row, or BatchRows, as it came: for a version that takes other columns
    asked_at: float  # monotonic seconds


class SeenUnits:
    """Which units were seen, of late: at least as many as `half`, at most twice as many. Hashes alone are kept."""

    def __init__(self, half: int = _UNITS_KNOWN) -> None:
        self._half = half
        self._young: set[int] = set()
        self._old: set[int] = set()

    def is_new(self, *unit: object) -> bool:
        """Whether this is the first sight of it; it is known from now on."""
        key = hash(unit)
        if key in self._young:
            return False
        known = key in self._old
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.add(key)
        return not known


class Shadows:
    """One a serving process."""

    def __init__(self, table: RoutingTable, pool: RuntimePool, journal: ShadowJournal, telemetry: ShadowTelemetry, clock: Clock) -> None:
        self._table = table
        self._pool = pool
        self._journal = journal
        self._telemetry = telemetry
        self._clock = clock
        self._seen = SeenUnits()
        self._waiting: dict[ShadowKind, deque[_Question]] = {ShadowKind.COVARIATE: deque(), ShadowKind.SHADOW: deque()}
        self._news = asyncio.Event()
        self._under_way = 0

    def consider(self, record: PredictionRecord, chosen: Chosen, batch: Batch, scores: Scores, sent: Any) -> None:
        """Has this answer of an experiment's arm compared later, where there is something to compare it with.

        `sent`: the row as it came, or BatchRows.
        """
        beside = chosen.beside
        if beside is None:
            return
        unit, control = (record.tenant_id, record.experiment, record.unit_hash), beside.control(chosen.model)
        is_first = record.variant != control.name and record.rows == 1 and self._seen.is_new(*unit)
        if not is_first and not beside.shadows:
            return
        asked = [(ShadowKind.SHADOW, variant) for variant in beside.shadows[:_MOST_SHADOWS]]
        if is_first:
            asked.append((ShadowKind.COVARIATE, control))
        if record.rows > _MOST_ROWS:
            batch, scores = said.first_rows(batch, scores, _MOST_ROWS)
            sent = _first_sent(sent)
        now = self._clock.monotonic()
        for kind, variant in asked:
            if len(self._waiting[kind]) >= _MOST_WAITING[kind]:
                self._telemetry.shadow(kind, "dropped")
            else:
                self._waiting[kind].append(_Question(kind, variant, record, chosen.routed, batch, scores, sent, now))
        self._news.set()

    async def run(self) -> None:
        """Asks until cancelled."""
        await asyncio.gather(*(self._work() for _ in range(_WORKERS)))

    async def settled(self) -> None:
        """Returns when nothing waits."""
        while self._under_way or any(self._waiting.values()):  # noqa: ASYNC110  for tests, and nobody else waits
            await asyncio.sleep(0)

    async def _work(self) -> None:
        while True:
            question = self._next()
            if question is None:
                self._news.clear()
                await self._news.wait()
                continue
            self._under_way += 1
            try:
                outcome = await self._ask(question)
            except Exception:
                outcome = "failed"
                log.exception("shadow_broke", experiment=question.record.experiment)
            finally:
                self._under_way -= 1
            self._telemetry.shadow(question.kind, outcome)
            await asyncio.sleep(0)  # a graph answers without a pause: requests come first

    def _next(self) -> _Question | None:
        for waiting in self._waiting.values():
            if waiting:
                return waiting.popleft()
        return None

    async def _ask(self, question: _Question) -> str:
        """What became of it."""
        if self._clock.monotonic() - question.asked_at > _LONGEST_WAIT_S:
            return "dropped"
        record = question.record
        try:
            self._journal.check_room(Durability.BUFFERED)
        except AppError:
            return "dropped"
        routed = self._routed(record, question.variant)
        if routed is None:
            return "missing"
        if routed.route.number == record.version:
            self._write(question, routed.route, question.scores, 0)
            return "answered"
        runtime = self._pool.use(record.tenant_id, routed.route)
        if runtime is None:
            self._pool.want(record.tenant_id, routed.route)
            return "not_open"
        try:
            batch = await as_taken_by(routed, question.served, question.batch, question.sent)
            began = self._clock.monotonic()
            scores = await runtime.infer(batch, Deadline.after(_WITHIN_S))
            self._write(question, routed.route, scores, int((self._clock.monotonic() - began) * 1e6))
        except (InvalidFeatures, InvalidInput):
            return "refused"
        except AppError as error:
            log.info("shadow_failed", experiment=record.experiment, variant=question.variant.name, code=error.code)
            return "failed"
        return "answered"

    def _routed(self, record: PredictionRecord, variant: Variant) -> RoutedVersion | None:
        """The version as it is routed now: it may have been withdrawn since."""
        routes = self._table.tenant(record.tenant_id)
        model = routes.models.get(record.model)
        if model is None:
            return None
        number = variant.version if variant.alias is None else model.aliases.get(variant.alias)
        routed = None if number is None else routes.aliased.get((model.model_id, number))
        return routed if routed is not None and routed.route.status is VersionStatus.READY else None

    def _write(self, question: _Question, route: VersionRoute, scores: Scores, compute_us: int) -> None:
        record, rows = question.record, question.batch.rows
        each_us, rest_us = divmod(compute_us, rows)
        served = question.served.route
        for row, (theirs, ours) in enumerate(zip(question.scores.each(), scores.each(), strict=True)):
            told = ShadowRecord(
                id=record.id,
                tenant_id=record.tenant_id,
                kind=question.kind,
                variant=question.variant.name,
                row=row,
                experiment=str(record.experiment),
                unit_hash=record.unit_hash,
                version=route.number,
                served_variant=record.variant,
                served_version=record.version,
                served_label=_label(served, theirs),
                served_score=said.score(theirs),
                label=_label(route, ours),
                score=said.score(ours),
                compute_us=each_us + (rest_us if row == 0 else 0),
            )
            self._journal.append_now(told, Durability.BUFFERED)


def _first_sent(sent: BatchRows) -> BatchRows:
    if sent.rows is not None:
        return BatchRows(listed(sent.rows, _MOST_ROWS), None)
    return BatchRows(None, {**sent.matrix, "data": listed(sent.matrix["data"], _MOST_ROWS)})


def _label(route: VersionRoute, told: Said) -> str | None:
    """As a text that the database takes, whatever the model calls its classes."""
    label = said.label(route, told)
    return None if label is None else label[:_LONGEST_LABEL].replace("\0", "\N{REPLACEMENT CHARACTER}")
