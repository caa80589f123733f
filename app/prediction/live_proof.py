"""The proof that goes on: a small share of what compiled models answer is asked of their estimators, too, and compared.

Never on a caller's time: what is to be compared waits in a short queue, and what does not fit there is dropped. One answer that is
farther from scikit-learn's than the proof allowed takes the version off its graph: here at once, on every replica once that is written
down, which is tried until it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.errors import AppError, ModelFailed
from app.kernel.clock import Deadline
from app.prediction.compiled.compare import Yardstick, difference
from app.prediction.said import first_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from app.kernel.tensors import Batch, Scores
    from app.prediction.pool import RuntimePool
    from app.prediction.ports import LiveProofTelemetry, Mismatches
    from app.prediction.routing import RoutingTable
    from app.registry.types import VersionRoute

_MOST_WAITING = 16
_MOST_UNTOLD = 1_000  # mismatches, while the database is away
_MOST_ROWS = 100  # of a batch; the estimator is shared with requests that need it
_WITHIN_S = 10.0
_SWEEP_S = 5.0
_REFUSES = frozenset({"ESTIMATOR", "BAD_OUTPUT"})
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Answered:
    tenant_id: UUID
    route: VersionRoute
    batch: Batch
    scores: Scores


class LiveProof:
    """One a serving process. `share` of the compiled answers, 0 to 1, is compared; `chance` gives a number from 0 up to 1."""

    def __init__(
        self,
        pool: RuntimePool,
        table: RoutingTable,
        mismatches: Mismatches,
        telemetry: LiveProofTelemetry,
        share: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool
        self._table = table
        self._mismatches = mismatches
        self._telemetry = telemetry
        self._share = share
        self._chance = chance
        self._waiting: asyncio.Queue[_Answered] = asyncio.Queue(_MOST_WAITING)
        self._untold: deque[tuple[UUID, VersionRoute, str]] = deque(maxlen=_MOST_UNTOLD)

    def consider(self, tenant_id: UUID, route: VersionRoute, batch: Batch, scores: Scores) -> None:
        """Perhaps has this answer of a compiled model compared, later."""
        if self._chance() >= self._share:
            return
        try:
            self._waiting.put_nowait(_Answered(tenant_id, route, *first_rows(batch, scores, _MOST_ROWS)))
        except asyncio.QueueFull:
            self._telemetry.live_proof("dropped")

    async def run(self) -> None:
        """Compares, one answer at a time, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                answered = await asyncio.wait_for(self._waiting.get(), _SWEEP_S)
                try:
                    await self._prove(answered)
                except Exception:
                    log.exception("live_proof_broke")
                finally:
                    self._waiting.task_done()
            await self._tell()
            await self._pool.close_idle()

    async def settled(self) -> None:
        """Returns when nothing waits to be compared."""
        await self._waiting.join()

    async def _prove(self, answered: _Answered) -> None:
        try:
            async with asyncio.timeout(_WITHIN_S):
                runtime = await self._pool.estimator(answered.tenant_id, answered.route)
            native = await runtime.infer(answered.batch, Deadline.after(_WITHIN_S))
            found = difference(native, answered.scores, Yardstick(answered.route.tolerance, answered.route.middle)).fault
        except ModelFailed as error:
            found = _refused(error)
        except (AppError, TimeoutError):
            found = ""
        if found is None:
            self._telemetry.live_proof("equal")
        elif not found:
            self._telemetry.live_proof("failed")
        else:
            self._telemetry.live_proof("mismatch")
            route = answered.route
            log.error("live_proof_mismatch", tenant_id=str(answered.tenant_id), version=route.number, found=found)
            self._table.distrust(answered.tenant_id, [(route.model_id, route.number)])
            self._untold.append((answered.tenant_id, route, found))
            await self._tell()

    async def _tell(self) -> None:
        """Writes down what was found, as far as the database takes it."""
        while self._untold:
            tenant_id, route, found = self._untold[0]
            try:
                await self._mismatches.record(tenant_id, route.model_id, route.number, str(route.compiled_digest), found)
            except AppError as error:
                log.warning("mismatch_not_recorded_yet", code=error.code)
                return
            self._untold.popleft()


def _refused(error: ModelFailed) -> str:
    """The estimator itself may refuse what its graph answered; a worker that died says nothing about either."""
    problems = error.details.get("problems") or [{}]
    return "scikit-learn refuses a row that the compiled model answers" if problems[0].get("problem") in _REFUSES else ""
