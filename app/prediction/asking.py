"""Asks a version: an answer that is kept, else its runtime behind its breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import InvalidInput, ModelFailed
from app.prediction.breakers import LeftAlone, is_versions_doing, problem_of
from app.prediction.cache import cache_key
from app.prediction.features import LARGEST_ANSWER_CELLS
from app.prediction.quarantine import name_of

if TYPE_CHECKING:
    from uuid import UUID

    from app.kernel.clock import Clock, Deadline
    from app.kernel.tensors import Batch, Scores
    from app.prediction.breakers import Breaker, Breakers
    from app.prediction.cache import PredictionCache
    from app.prediction.live_proof import LiveProof
    from app.prediction.pool import RuntimePool
    from app.prediction.routing import RoutedVersion
    from app.registry.types import ModelRoute

    Answer = tuple[Scores, float, str]  # and the seconds that they took, and by whom: a runtime's kind, "cache", or "fixed"


class Versions:
    """The versions of all tenants, as one serving process asks them."""

    def __init__(self, pool: RuntimePool, cache: PredictionCache, live_proof: LiveProof, breakers: Breakers, clock: Clock) -> None:
        self._pool = pool
        self._cache = cache
        self._live_proof = live_proof
        self._breakers = breakers
        self._clock = clock

    async def ask(self, tenant_id: UUID, model: ModelRoute, routed: RoutedVersion, batch: Batch, deadline: Deadline) -> Answer:
        """The version's answer, by `deadline`; raises ModelFailed, ModelUnavailable, Unavailable or DeadlineExceeded."""
        route = routed.route
        started = self._clock.monotonic()
        key = cache_key(route, batch) if model.cache_seconds else None
        if key is not None and (kept := self._cache.get(tenant_id, key, model.cache_seconds)) is not None:
            return kept, self._clock.monotonic() - started, "cache"
        breaker = routed.breaker
        if breaker is None:
            breaker = routed.breaker = self._breakers.of(tenant_id, route)
        call = breaker.epoch if breaker.closed else self._entered(breaker, model, routed, started)
        began = started
        try:
            runtime = self._pool.used(routed.key(tenant_id))
            if runtime is None:
                runtime = await self._pool.get_within(tenant_id, route, deadline)
                started = self._clock.monotonic()
            scores = await runtime.infer(batch, deadline)
        except BaseException as error:
            self._failed(breaker, call, error, batch, self._breakers.loop.there_s(began, deadline.at))
            raise
        ended = self._clock.monotonic()
        breaker.succeeded(call, ended)
        if runtime.kind == "onnx":
            self._live_proof.consider(tenant_id, route, batch, scores)
        if key is not None:
            self._cache.put(tenant_id, key, scores)
        return scores, ended - started, runtime.kind

    def _entered(self, breaker: Breaker, model: ModelRoute, routed: RoutedVersion, now: float) -> int:
        call = breaker.enter(now)
        if call is None:
            raise LeftAlone(
                f"Version {routed.route.number} of {model.name!r} has failed too often of late and is left alone for a moment.",
                retry_after_ms=int(breaker.wait_s(now) * 1000) + 1,
            )
        return call

    def _failed(self, breaker: Breaker, call: int, error: BaseException, batch: Batch, had_s: float) -> None:
        """`had_s`: how long the version had. A model that fails on an input may do so for the input's sake."""
        if not is_versions_doing(error, had_s):
            breaker.abandoned(call)
            return
        by_input = isinstance(error, ModelFailed) and problem_of(error) is not None
        breaker.failed(call, self._clock.monotonic(), name_of(batch) if by_input else None)


def check_answer_size(rows: int, classes: int) -> None:
    """Raises InvalidInput where the probabilities would be too many to answer with: writing them out holds up every other request."""
    if rows * classes > LARGEST_ANSWER_CELLS:
        raise InvalidInput(
            f"{rows:,} rows of {classes:,} classes are {rows * classes:,} probabilities; one call answers with at most "
            f"{LARGEST_ANSWER_CELLS:,}: send at most {LARGEST_ANSWER_CELLS // classes:,} rows."
        )
