"""What other versions say to the same input: never on the caller's time, never returned, written once, and dropped first."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from app.errors import ModelFailed
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.prediction.shadows import SeenUnits
from app.registry.types import VersionStatus
from tests.support.predicting import CLINIC, Process, running, variant
from tests.support.serving import compiled_route, sign_graph

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from uuid import UUID

    from app.kernel.clock import Deadline
    from app.kernel.tensors import Batch, Scores
    from app.registry.types import VersionRoute

pytestmark = pytest.mark.unit
CONTROL = variant("control", 1, control=True)
TREATMENT = variant("treatment", 2, 999_999)  # as good as everybody
CANDIDATE, OTHER = variant("candidate", 3, shadow=True), variant("other", 2, shadow=True)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    made = Process(tmp_path)
    yield made
    await made.pool.close()


@asynccontextmanager
async def asking(process: Process) -> AsyncIterator[None]:
    """The shadows are asked within; when this ends nothing waits any more."""
    task = asyncio.create_task(process.shadows.run())
    try:
        yield
        async with asyncio.timeout(20):
            await process.shadows.settled()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def watch(process: Process, number: int, see: Callable[[Batch], None]) -> None:
    """From now on `see` is given what the version is asked."""
    use = process.pool.use

    def watched(tenant_id: UUID, route: VersionRoute) -> Any:
        runtime = use(tenant_id, route)

        async def infer(batch: Batch, deadline: Deadline) -> Scores:
            see(batch)
            assert runtime is not None
            return await runtime.infer(batch, deadline)

        return SimpleNamespace(kind="onnx", infer=infer) if route.number == number else runtime

    process.pool.use = watched  # type: ignore[method-assign]


def told(process: Process, kind: str = "SHADOW") -> list[tuple[Any, ...]]:
    """(variant, version, row, its score, served variant, served version, served score) of what was written."""
    said = [s for s in process.around.said if s.kind == kind]
    return [(s.variant, s.version, s.row, s.score, s.served_variant, s.served_version, s.served_score) for s in said]


async def test_a_shadow_gets_the_same_input_after_the_answer_and_what_it_says_is_written_down(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT, CANDIDATE))
    answer = await process.ask([1, 2], unit="u1")
    assert (answer.variant, answer.value, process.around.said) == ("treatment", 6.0, [])
    async with asking(process):
        pass
    record, (said,) = process.around.records[0], [s for s in process.around.said if s.kind == "SHADOW"]

    assert told(process) == [("candidate", 3, 0, 9.0, "treatment", 2, 6.0)]
    assert (said.id, said.tenant_id, said.unit_hash, said.experiment) == (answer.id, CLINIC, record.unit_hash, "colour")
    assert ("SHADOW", "answered") in process.around.shadows
    assert len(process.around.records) == 1


async def test_at_most_two_shadows_are_asked_and_of_a_batch_the_first_hundred_rows(process: Process) -> None:
    shadows = [variant(f"s{n}", 3, shadow=True) for n in range(3)]
    await process.run(running(CONTROL, TREATMENT, *shadows))
    async with asking(process):
        await process.ask_batch([[n, 0] for n in range(150)], unit="u1")

    assert told(process) == [(name, 3, n, 3.0 * n, "treatment", 2, 2.0 * n) for name in ("s0", "s1") for n in range(100)]
    assert sum(each.compute_us for each in process.around.said if each.variant == "s0") >= 0


async def test_the_time_of_a_batch_is_shared_out_among_its_rows_to_the_microsecond(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT, CANDIDATE))
    watch(process, 3, lambda _: process.clock.advance(0.000_101_5))
    async with asking(process):
        await process.ask_batch([[1, 2], [3, 4], [5, 6]], unit="u1")

    assert [each.compute_us for each in process.around.said] == [35, 33, 33]


async def test_only_answers_of_an_experiment_are_asked_about(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT, CANDIDATE, rollout=0.1))
    async with asking(process):
        for request in ({"unit": "u1"}, {}, {"unit": "u1", "version": 2}):
            await process.ask([1, 2], **request)

    assert [record.reason for record in process.around.records] == ["OUT_OF_ROLLOUT", "NO_UNIT", "PINNED"]
    assert (process.around.said, process.around.shadows) == ([], [])


class TestCovariates:
    async def test_the_control_version_scores_the_first_input_of_each_unit_that_another_arm_answers(self, process: Process) -> None:
        await process.run(running(CONTROL, TREATMENT))
        async with asking(process):
            first = [await process.ask([n, 2], unit=f"u{n}") for n in (1, 2)]
            await process.ask([9, 9], unit="u1")
        said = process.around.said

        assert told(process, "COVARIATE") == [("control", 1, 0, 3.0, "treatment", 2, 6.0), ("control", 1, 0, 4.0, "treatment", 2, 8.0)]
        assert [s.id for s in said] == [answer.id for answer in first]
        assert process.around.shadows == [("COVARIATE", "answered")] * 2

    async def test_controls_own_answer_is_its_covariate_already(self, process: Process) -> None:
        await process.run(running(variant("control", 1, 999_999, control=True), variant("treatment", 2)))
        async with asking(process):
            assert (await process.ask([1, 2], unit="u1")).variant == "control"
        assert process.around.said == []

    async def test_an_arm_of_the_same_version_is_scored_without_asking_again(self, process: Process) -> None:
        await process.run(running(CONTROL, replace(TREATMENT, version=1)))
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        assert told(process, "COVARIATE") == [("control", 1, 0, 3.0, "treatment", 1, 3.0)]
        assert process.around.said[0].compute_us == 0

    async def test_a_batch_has_no_one_input_and_takes_nobodys_first_sight(self, process: Process) -> None:
        await process.run(running(CONTROL, TREATMENT))
        async with asking(process):
            await process.ask_batch([[1, 2], [3, 4]], unit="u1")
            await process.ask([5, 6], unit="u1")
        assert told(process, "COVARIATE") == [("control", 1, 0, 11.0, "treatment", 2, 22.0)]

    async def test_each_experiment_and_tenant_has_units_of_its_own(self) -> None:
        seen = SeenUnits()
        units = [(tenant, key, unit) for tenant in (1, 2) for key in ("a", "b") for unit in ("u", "v")]
        assert [seen.is_new(*unit) for unit in units] == [True] * 8
        assert [seen.is_new(*unit) for unit in units] == [False] * 8

    async def test_at_least_so_many_units_are_remembered_and_never_more_than_twice_as_many(self) -> None:
        seen = SeenUnits(half=10)
        for n in range(1000):
            assert seen.is_new(n)
            assert [seen.is_new(each) for each in range(max(0, n - 9), n + 1)] == [False] * min(n + 1, 10)
            assert len(seen._young | seen._old) <= 20


class TestAVersionThatTakesOtherColumns:
    async def test_is_given_the_rows_by_name_and_says_what_it_says_to_those(self, process: Process) -> None:
        turned = replace(process.version(3), signature=Signature(tuple(reversed(process.route.signature.columns)), InputKind.ARRAY))
        routes = [process.version(1), process.version(2), turned]
        await process.run(running(CONTROL, TREATMENT, CANDIDATE), routes=routes)
        asked: list[Any] = []
        watch(process, 3, lambda batch: asked.extend(batch.numbers.tolist()))
        async with asking(process):
            await process.ask([1, 2], unit="u1")
            await process.ask({"a": 3, "b": 4}, unit="u1")
            await process.ask_batch([[5, 6]], unit="u1")
            await process.ask_batch(matrix={"data": [[7, 8]]}, unit="u1")
            await process.ask_batch(matrix={"columns": ["b", "a"], "data": [[10, 9]]}, unit="u1")
        assert asked == [[2, 1], [4, 3], [6, 5], [8, 7], [10, 9]]

    async def test_and_does_not_take_the_row_is_passed_over_and_counted(self, process: Process) -> None:
        more = Signature((*process.route.signature.columns, Column("c", ColumnType.NUMBER)), InputKind.ARRAY)
        routes = [process.version(1), process.version(2), replace(compiled_route(None, 3), signature=more)]
        await process.run(running(CONTROL, TREATMENT, CANDIDATE), routes=routes)
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        assert told(process) == []
        assert ("SHADOW", "refused") in process.around.shadows


class TestUnderLoad:
    async def test_what_does_not_fit_into_the_queue_is_dropped_and_counted_and_no_answer_is_held_up(self, process: Process) -> None:
        await process.run(running(CONTROL, TREATMENT, CANDIDATE, OTHER))
        answers = [await process.ask([1, 2], unit="u1") for _ in range(100)]
        assert len(answers) == len(process.around.records) == 100
        assert process.around.shadows == [("SHADOW", "dropped")] * (200 - 64)
        async with asking(process):
            pass
        assert len(told(process)) == 64

    async def test_covariates_come_before_shadows_and_have_a_queue_of_their_own(self, process: Process) -> None:
        await process.run(running(CONTROL, TREATMENT, CANDIDATE))
        for n in range(100):
            await process.ask([1, 2], unit=f"u{n}")
        async with asking(process):
            pass
        assert len(told(process, "COVARIATE")) == 100
        assert [s.kind for s in process.around.said[:90]] == ["COVARIATE"] * 90

    async def test_what_waited_for_too_long_is_dropped(self, process: Process) -> None:
        await process.run(running(CONTROL, TREATMENT, CANDIDATE))
        await process.ask([1, 2], unit="u1")
        process.clock.advance(1.1)
        async with asking(process):
            pass
        assert process.around.shadows == [("COVARIATE", "dropped"), ("SHADOW", "dropped")]
        assert process.around.said == []

    async def test_a_log_that_is_full_takes_no_shadows(self, process: Process) -> None:
        await process.run(running(CONTROL, TREATMENT, CANDIDATE))
        await process.ask([1, 2], unit="u1")
        process.around.full = True
        async with asking(process):
            pass
        assert (process.around.said, [outcome for _, outcome in process.around.shadows]) == ([], ["dropped"] * 2)


class TestAShadowThatCannotAnswer:
    async def test_because_it_is_withdrawn_is_counted(self, process: Process) -> None:
        routes = [process.version(1), process.version(2), replace(process.version(3), status=VersionStatus.WITHDRAWN)]
        await process.run(running(CONTROL, TREATMENT, CANDIDATE), routes=routes)
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        assert ("SHADOW", "missing") in process.around.shadows

    async def test_because_it_is_not_open_is_opened_for_later(self, process: Process) -> None:
        routes = [process.version(number) for number in (1, 2, 3)]
        await process.pool.warm(CLINIC, routes[:2])
        process.apply(running(CONTROL, TREATMENT, CANDIDATE), routes=routes)
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        await process.pool.warm(CLINIC, routes[2:])
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        assert [outcome for kind, outcome in process.around.shadows if kind == "SHADOW"] == ["not_open", "answered"]

    @pytest.mark.parametrize("failure", [RuntimeError("once"), None])
    async def test_because_its_model_fails_is_counted_and_the_next_is_asked(self, process: Process, failure: Exception | None) -> None:
        route = compiled_route(None, 3)
        await process.run(running(CONTROL, TREATMENT, CANDIDATE), routes=[process.version(1), process.version(2), route])
        process.opener.estimators[0].failure = failure or ModelFailed("The model failed.")
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        process.opener.estimators[0].failure = None
        async with asking(process):
            await process.ask([1, 2], unit="u1")
        assert [outcome for kind, outcome in process.around.shadows if kind == "SHADOW"] == ["failed", "answered"]


async def test_a_classifiers_word_is_its_label_and_the_labels_probability(process: Process) -> None:
    digest = process.graphs.add(sign_graph())
    classes = [compiled_route(digest, number, Task.CLASSIFICATION) for number in (1, 2, 3)]
    classes[2] = replace(classes[2], classes=("n\0o", "yes"))
    await process.run(running(CONTROL, TREATMENT, CANDIDATE), routes=classes)
    async with asking(process):
        await process.ask([-2, 0], unit="u1")
    (said,) = [s for s in process.around.said if s.kind == "SHADOW"]

    assert (said.served_label, said.label) == ("no", "n\N{REPLACEMENT CHARACTER}o")
    assert said.score == said.served_score == process.around.records[0].score == pytest.approx(0.8807970779778823)
