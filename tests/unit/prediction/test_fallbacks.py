"""Who answers where the version does not: what the caller gets, what is written down, and what is tried at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from app.errors import DeadlineExceeded, InvalidFeatures, ModelFailed, ModelUnavailable, NotFound
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.prediction.routing import RoutedVersion, TenantRoutes
from app.prediction.types import RoutingReason
from app.registry.types import PRODUCTION, Fallback, FallbackKind, ModelRoute, VersionStatus
from tests.support.predicting import CLINIC, Process, running, variant
from tests.support.serving import compiled_route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from app.registry.types import VersionRoute
    from tests.support.serving import SumEstimator

pytestmark = pytest.mark.unit
BROKEN = ModelFailed("The model failed on this input: broken", problems=[{"problem": "ESTIMATOR"}])
PREVIOUS = Fallback(FallbackKind.PREVIOUS)


class Falling(Process):
    """Version 1 answers the sum and 3 three times the sum; 2, in production, is an estimator that can be broken."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.second = compiled_route(None, 2)
        self.routes: list[VersionRoute] = [self.version(1), self.second, self.version(3)]

    @property
    def estimator(self) -> SumEstimator:
        return self.opener.estimators[0]

    async def falls_back(self, fallback: Fallback | None, production: int | None = 2, *experiments: Any, **more: Any) -> None:
        await self.pool.warm(CLINIC, [route for route in self.routes if route.status is VersionStatus.READY])
        route, aliases = self.routes[0], {"staging": 3} | ({} if production is None else {PRODUCTION: production})
        versions = {each.number: each for each in self.routes}
        given = {"cache_seconds": 0, "fallback": fallback, "previous": {PRODUCTION: 1, "staging": 2}} | more
        model = ModelRoute(route.model_id, "sum", route.task, aliases, versions, **given)
        ready = {(each.model_id, each.number): RoutedVersion(each) for each in self.routes}
        self.table.apply(CLINIC, TenantRoutes.of([model], ready, self.book.of(CLINIC, experiments, 7) if experiments else None))

    def breaks(self, error: Exception = BROKEN) -> None:
        self.estimator.failure = error


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Falling]:
    made = Falling(tmp_path)
    yield made
    await made.pool.close()


async def test_a_version_that_answers_is_not_fallen_back_from(process: Falling) -> None:
    await process.falls_back(PREVIOUS)
    answer = await process.ask([1, 2])
    assert (answer.version, answer.reason, answer.degraded, answer.value) == (2, RoutingReason.ALIAS, False, 3.0)
    assert process.around.fallen == []


@pytest.mark.parametrize(
    ("fallback", "version", "value"),
    [(PREVIOUS, 1, 3.0), (Fallback(FallbackKind.VERSION, 3), 3, 9.0), (Fallback(FallbackKind.ANSWER, None, 0.25), 0, 0.25)],
)
async def test_the_fallback_answers_degraded_and_is_written_down_so(
    process: Falling, fallback: Fallback, version: int, value: float
) -> None:
    await process.falls_back(fallback)
    process.breaks()
    answer = await process.ask([1, 2])
    assert (answer.version, answer.reason, answer.degraded, answer.value) == (version, RoutingReason.FALLBACK, True, value)
    (record,) = process.around.records
    assert (record.id, record.version, record.reason, record.degraded, record.score) == (answer.id, version, "FALLBACK", True, value)
    assert process.around.fallen == [(fallback.kind.value, "answered")]
    assert process.around.charged == 1


async def test_without_a_fallback_the_error_is_the_callers(process: Falling) -> None:
    await process.falls_back(None)
    process.breaks()
    with pytest.raises(ModelFailed, match="broken"):
        await process.ask([1, 2])
    assert (process.around.records, process.around.fallen) == ([], [])


async def test_a_batch_falls_back_as_a_whole(process: Falling) -> None:
    await process.falls_back(Fallback(FallbackKind.VERSION, 3))
    process.breaks()
    answer = await process.ask_batch([[1, 2], {"a": 3, "b": 4}])
    assert (answer.version, answer.reason, answer.degraded, answer.values.tolist()) == (3, RoutingReason.FALLBACK, True, [9.0, 21.0])
    assert (process.around.charged, process.around.records[0].rows) == (2, 2)


async def test_a_batch_gets_the_fixed_answer_a_row(process: Falling) -> None:
    await process.falls_back(Fallback(FallbackKind.ANSWER, None, 7))
    process.breaks()
    answer = await process.ask_batch(matrix={"columns": ["b", "a"], "data": [[1, 2], [3, 4]]})
    assert (answer.version, answer.values.tolist(), answer.row_count) == (0, [7.0, 7.0], 2)


async def test_who_names_a_version_gets_that_version_or_an_error(process: Falling) -> None:
    await process.falls_back(PREVIOUS)
    process.breaks()
    with pytest.raises(ModelFailed, match="broken"):
        await process.ask([1, 2], version=2)


async def test_who_names_an_alias_gets_what_that_alias_would_be_rolled_back_to(process: Falling) -> None:
    await process.falls_back(PREVIOUS)
    process.breaks()
    assert (await process.ask([1, 2], alias=PRODUCTION)).version == 1
    process.estimator.failure = None
    process.routes[2] = replace(process.routes[2], status=VersionStatus.WITHDRAWN)
    await process.falls_back(PREVIOUS)
    answer = await process.ask([1, 2], alias="staging")
    assert (answer.version, answer.reason, answer.degraded) == (2, RoutingReason.FALLBACK, True)
    with pytest.raises(NotFound, match="no alias 'other'"):
        await process.ask([1, 2], alias="other")


async def test_where_the_fallback_fails_too_the_caller_hears_of_the_first_failure(process: Falling) -> None:
    process.routes[0] = compiled_route(None, 1)
    await process.falls_back(PREVIOUS)
    for estimator in process.opener.estimators:
        estimator.failure = ModelFailed("the other one")
    process.opener.estimators[1].failure = BROKEN
    with pytest.raises(ModelFailed, match="broken"):
        await process.ask([1, 2])
    assert process.around.fallen == [("PREVIOUS", "failed")]


async def test_a_fallback_that_is_the_failed_version_itself_or_cannot_serve_is_none(process: Falling) -> None:
    await process.falls_back(Fallback(FallbackKind.VERSION, 2))
    process.breaks()
    with pytest.raises(ModelFailed, match="broken"):
        await process.ask([1, 2])
    process.routes[2] = replace(process.routes[2], status=VersionStatus.WITHDRAWN)
    await process.falls_back(Fallback(FallbackKind.VERSION, 3))
    with pytest.raises(ModelFailed, match="broken"):
        await process.ask([1, 2])
    assert process.around.fallen == [("VERSION", "missing")] * 2


async def test_callers_mistakes_are_theirs(process: Falling) -> None:
    await process.falls_back(PREVIOUS)
    with pytest.raises(InvalidFeatures):
        await process.ask(["text", 2])
    assert process.around.fallen == []


async def test_a_version_with_other_columns_gets_the_row_by_name(process: Falling) -> None:
    turned = Signature((Column("b", ColumnType.NUMBER), Column("a", ColumnType.NUMBER)), InputKind.ARRAY)
    process.routes[0] = replace(compiled_route(None, 1), signature=turned)
    await process.falls_back(PREVIOUS)
    process.opener.estimators[1].failure = BROKEN
    await process.ask([1, 2])
    assert process.opener.estimators[0].asked == [[2.0, 1.0]]


async def test_an_open_breaker_asks_the_fallback_alone_until_the_version_answers_again(process: Falling) -> None:
    await process.falls_back(PREVIOUS)
    process.breaks()
    for number in range(8):
        assert (await process.ask([number, 2])).version == 1
    assert len(process.estimator.asked) == 5
    assert process.around.breakers == [("OPEN", 1)]
    process.estimator.failure = None
    process.clock.advance(6.1)
    assert (await process.ask([1, 2])).version == 2
    assert process.around.breakers == [("OPEN", 1), ("HALF_OPEN", 1), ("CLOSED", 0)]


async def test_without_a_fallback_an_open_breaker_says_when_to_come_again(process: Falling) -> None:
    await process.falls_back(None)
    process.breaks()
    for number in range(5):
        with pytest.raises(ModelFailed):
            await process.ask([number, 2])
    with pytest.raises(ModelUnavailable, match="Version 2 of 'sum' has failed too often") as refused:
        await process.ask([1, 2])
    assert 4000 <= refused.value.details["retry_after_ms"] <= 6001
    assert len(process.estimator.asked) == 5
    assert process.around.records == []


async def test_a_change_of_the_routes_closes_no_breaker(process: Falling) -> None:
    await process.falls_back(None)
    process.breaks()
    for number in range(5):
        with pytest.raises(ModelFailed):
            await process.ask([number, 2])
    await process.falls_back(None)
    with pytest.raises(ModelUnavailable, match="failed too often"):
        await process.ask([1, 2])


async def test_a_version_that_hangs_leaves_half_of_the_time_to_the_fallback(process: Falling) -> None:
    await process.falls_back(PREVIOUS)
    process.breaks(DeadlineExceeded("The model did not answer in time."))
    before = asyncio.get_running_loop().time()
    assert (await process.ask([1, 2])).version == 1
    with pytest.raises(DeadlineExceeded):
        await process.ask([1, 2], version=2)
    first, pinned = process.estimator.deadlines
    assert before + 9 < first < before + 15 < pinned, "the request has twenty seconds"


# --- nothing to fail yet


async def test_with_nothing_in_production_the_fixed_answer_is_given_whatever_the_row(process: Falling) -> None:
    await process.falls_back(Fallback(FallbackKind.ANSWER, None, 1.5), None)
    answer = await process.ask({"anything": "at all"})
    assert (answer.version, answer.value, answer.reason, answer.degraded) == (0, 1.5, RoutingReason.FALLBACK, True)
    batch = await process.ask_batch(matrix={"data": [[1], [2], [3]]})
    assert (batch.version, batch.values.tolist()) == (0, [1.5] * 3)
    with pytest.raises(InvalidFeatures):
        await process.ask("no row")
    assert process.around.fallen == [("ANSWER", "answered")] * 2
    assert (process.around.charged, [record.version for record in process.around.records]) == (4, [0, 0])


async def test_with_nothing_in_production_a_named_version_answers_and_nothing_is_previous_to_nothing(process: Falling) -> None:
    await process.falls_back(Fallback(FallbackKind.VERSION, 3), None)
    assert (await process.ask([1, 2])).version == 3
    await process.falls_back(PREVIOUS, None, previous={})
    with pytest.raises(NotFound, match="no version in production yet"):
        await process.ask([1, 2])


async def test_what_production_points_at_and_cannot_serve_is_fallen_back_from(process: Falling) -> None:
    process.routes[1] = replace(process.second, status=VersionStatus.WITHDRAWN)
    await process.falls_back(PREVIOUS)
    assert (await process.ask([1, 2])).version == 1


async def test_no_model_of_another_name_is_fallen_back_from(process: Falling) -> None:
    await process.falls_back(Fallback(FallbackKind.ANSWER, None, 1.5), None)
    with pytest.raises(NotFound, match="no model named 'other'"):
        await process.predictor.predict(process.context(), replace(_request(), model="other"), [1, 2])


# --- fixed answers of classifiers


@pytest.mark.parametrize(("answer", "told"), [("yes", "yes"), ("perhaps", None), (1.5, None)])
async def test_a_label_is_answered_only_where_it_is_one_of_the_versions(process: Falling, answer: Any, told: str | None) -> None:
    process.routes = [compiled_route(None, 2, Task.CLASSIFICATION)]
    await process.falls_back(Fallback(FallbackKind.ANSWER, None, answer))
    process.breaks()
    if told is None:
        with pytest.raises(ModelFailed, match="broken"):
            await process.ask([1, 2])
        return
    found = await process.ask([1, 2])
    assert (found.label, found.probability, found.probabilities, found.value) == ("yes", None, None, None)
    batch = await process.ask_batch([[1, 2], [3, 4]])
    assert (batch.labels, batch.probabilities, batch.classes) == (["yes", "yes"], None, ["yes"])
    assert [record.score for record in process.around.records] == [None, None]


# --- experiments


async def test_an_arm_that_fails_is_answered_by_production_and_its_unit_stays_its_own(process: Falling) -> None:
    experiment = running(variant("control", 1, control=True), variant("blue", 2), variant("watcher", 3, shadow=True))
    await process.falls_back(PREVIOUS, 1, experiment)
    process.breaks()
    answers = [await process.ask([1, number], unit=f"u{number}") for number in range(12)]
    blue = [answer for answer in answers if answer.variant == "blue"]
    assert 0 < len(blue) < 12
    assert {(a.version, a.reason, a.degraded, a.experiment) for a in blue} == {(1, RoutingReason.FALLBACK, True, "colour")}
    control = {(a.version, a.reason, a.degraded) for a in answers if a.variant == "control"}
    assert control == {(1, RoutingReason.EXPERIMENT, False)}
    fallen = [record for record in process.around.records if record.reason == "FALLBACK"]
    assert {(r.experiment, r.variant, r.propensity, r.flag_revision, r.version) for r in fallen} == {("colour", "blue", 0.5, 7, 1)}
    assert all(record.unit_hash for record in fallen)
    waiting = [question.record.reason for kind in process.shadows._waiting.values() for question in kind]
    assert set(waiting) == {"EXPERIMENT"}, "nothing is asked beside a fallback's answer"


async def test_of_a_unit_that_was_no_exposure_the_variant_is_left_out(process: Falling) -> None:
    experiment = running(variant("control", 1, control=True), variant("blue", 2), overrides=((_hash(process, "tester"), "blue"),))
    await process.falls_back(PREVIOUS, 1, experiment)
    process.breaks()
    answer = await process.ask([1, 2], unit="tester")
    (record,) = process.around.records
    assert (answer.version, answer.reason, record.variant, record.propensity) == (1, RoutingReason.FALLBACK, None, None)


def _hash(process: Falling, unit: str) -> str:
    hashed: str = process.around.by_id(CLINIC).keys.unit_pseudonym(unit)
    return hashed


def _request() -> Any:
    from app.prediction.types import RouteRequest

    return RouteRequest("sum")
