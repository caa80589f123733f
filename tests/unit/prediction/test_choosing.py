"""Which version answers and what is written down about why: flags decide, and what an arm cannot answer, production does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from app.errors import InvalidInput, ModelUnavailable, NotFound
from app.experiments.flags.document import FlagsRefused, Problem
from app.experiments.flags.selector import TenantFlags
from app.experiments.types import TargetingRule
from app.prediction.pool import key_of
from app.prediction.types import RoutingReason
from app.registry.types import PRODUCTION, VersionStatus
from app.tenancy.keys import TenantKeys
from tests.support.predicting import CLINIC, Process, running, variant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.unit
CONTROL, TREATMENT = variant("control", 1, control=True), variant("treatment", 2)
ONLY_TREATMENT = (variant("control", 1, 1, control=True), variant("treatment", 2, 999_999))
UNITS = [f"u{n}" for n in range(60)]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    made = Process(tmp_path)
    yield made
    await made.pool.close()


def pseudonym(unit: str) -> str:
    return TenantKeys.derive(CLINIC, b"s" * 32).unit_pseudonym(unit)


async def test_a_unit_stays_in_its_arm_and_the_answer_and_its_record_say_the_same(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT), generation=41)
    first = [await process.ask([1, 2], unit=unit) for unit in UNITS]
    again = [await process.ask([1, 2], unit=unit) for unit in UNITS]

    assert {(a.reason, a.experiment, a.variant, a.version, a.value) for a in first} == {
        (RoutingReason.EXPERIMENT, "colour", "control", 1, 3.0),
        (RoutingReason.EXPERIMENT, "colour", "treatment", 2, 6.0),
    }
    assert [a.variant for a in first] == [a.variant for a in again]
    for answer, record, unit in zip(first, process.around.records, UNITS, strict=False):
        told = (record.id, record.reason, record.experiment, record.variant, record.version, record.unit_hash)
        assert told == (answer.id, "EXPERIMENT", "colour", answer.variant, answer.version, pseudonym(unit))
        assert (record.propensity, record.flag_revision) == (0.5, 41)
    assert process.around.fallbacks == []


async def test_who_takes_no_part_is_answered_by_production_and_the_record_says_why(process: Process) -> None:
    process.around.holdout_percent = 50.0
    nordic = TargetingRule("country", "IN", ("NO",))
    await process.run(running(CONTROL, TREATMENT, rollout=40.0, targeting=(nordic,)))
    for unit in UNITS:
        await process.ask([1, 2], unit=unit, attributes={"country": "NO"})
    await process.ask([1, 2], unit="u1", attributes={"country": "FI"})
    await process.ask([1, 2], unit="u1")
    found = {(r.reason, r.variant is None, r.version == 1 or r.variant == "treatment", r.propensity) for r in process.around.records}

    assert found == {
        ("EXPERIMENT", False, True, 0.1),
        ("HOLDOUT", True, True, 0.5),
        ("OUT_OF_ROLLOUT", True, True, 0.3),
        ("NOT_TARGETED", True, True, 1.0),
    }
    assert [r.reason for r in process.around.records[-2:]] == ["NOT_TARGETED"] * 2


async def test_without_a_unit_nobody_is_drawn(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT))
    answer = await process.ask([1, 2])
    record = process.around.records[0]

    assert (answer.reason, answer.version, answer.variant) == (RoutingReason.NO_UNIT, 1, None)
    assert (record.reason, record.unit_hash, record.experiment, record.propensity, record.flag_revision) == (
        "NO_UNIT", None, "colour", None, 7,
    )  # fmt: skip


async def test_another_model_and_a_tenant_without_experiments_are_answered_as_ever(process: Process) -> None:
    await process.run()
    assert process.table.tenant(CLINIC).flags is None
    answer = await process.ask([1, 2], unit="u1")
    assert (answer.reason, answer.version, answer.experiment) == (RoutingReason.ALIAS, 1, None)
    await process.run(replace(running(CONTROL, TREATMENT), model="other"))
    answer = await process.ask([1, 2], unit="u1")
    assert (answer.reason, answer.version, answer.experiment) == (RoutingReason.ALIAS, 1, None)
    assert {(r.reason, r.propensity, r.flag_revision) for r in process.around.records} == {("ALIAS", None, None)}


async def test_a_request_that_names_a_version_or_an_alias_leaves_experiments_aside(process: Process) -> None:
    await process.run(running(*ONLY_TREATMENT))
    by_version = await process.ask([1, 2], unit="u1", version=3)
    by_alias = await process.ask([1, 2], unit="u1", alias=PRODUCTION)

    assert [(a.reason, a.version, a.experiment) for a in (by_version, by_alias)] == [
        (RoutingReason.PINNED, 3, None),
        (RoutingReason.PINNED, 1, None),
    ]


async def test_a_unit_that_tests_by_hand_gets_its_variant_and_no_propensity(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT, rollout=0.1, overrides=((pseudonym("tester"), "treatment"),)))
    answer = await process.ask([1, 2], unit="tester")
    record = process.around.records[0]

    assert (answer.reason, answer.variant, answer.version, answer.value) == (RoutingReason.PINNED, "treatment", 2, 6.0)
    assert (record.reason, record.experiment, record.propensity) == ("PINNED", "colour", None)


async def test_all_rows_of_a_batch_go_the_same_way(process: Process) -> None:
    await process.run(running(CONTROL, TREATMENT))
    one = await process.ask([1, 2], unit="u1")
    many = await process.ask_batch([[1, 2], [3, 4]], unit="u1")
    record = process.around.records[1]

    assert (many.reason, many.variant, many.version, many.experiment) == (one.reason, one.variant, one.version, one.experiment)
    assert many.values.tolist() == [3.0 * one.version, 7.0 * one.version]
    assert (record.rows, record.variant, record.propensity) == (2, one.variant, 0.5)


class TestAnArmThatCannotAnswer:
    @pytest.mark.parametrize("routes", [[1], [1, 3]])
    async def test_of_which_nothing_is_known_is_answered_by_production_and_counted(self, process: Process, routes: list[int]) -> None:
        await process.run(running(*ONLY_TREATMENT), routes=[process.version(number) for number in routes])
        answer = await process.ask([1, 2], unit="u1")
        record = process.around.records[0]

        assert (answer.reason, answer.version, answer.value) == (RoutingReason.UNKNOWN_VARIANT, 1, 3.0)
        assert (answer.experiment, answer.variant) == ("colour", None)
        assert (record.reason, record.experiment, record.variant, record.propensity) == ("UNKNOWN_VARIANT", "colour", None, None)
        assert process.around.fallbacks == ["missing"]

    async def test_because_it_was_withdrawn_falls_back_with_the_change(self, process: Process) -> None:
        arm = process.version(2)
        await process.run(running(*ONLY_TREATMENT), routes=[process.version(1), arm])
        before = await process.ask([1, 2], unit="u1")
        process.apply(running(*ONLY_TREATMENT), routes=[process.version(1), replace(arm, status=VersionStatus.WITHDRAWN)])
        after = await process.ask([1, 2], unit="u1")

        assert [(a.reason.value, a.version) for a in (before, after)] == [("EXPERIMENT", 2), ("UNKNOWN_VARIANT", 1)]
        assert process.around.fallbacks == ["missing"]

    async def test_because_it_is_not_open_is_opened_for_later_requests_while_nobody_waits(self, process: Process) -> None:
        routes = [process.version(1), process.version(2)]
        await process.pool.warm(CLINIC, routes[:1])
        process.apply(running(*ONLY_TREATMENT), routes=routes)
        before = await process.ask([1, 2], unit="u1")
        await process.pool.warm(CLINIC, routes[1:])  # joins the opening
        after = await process.ask([1, 2], unit="u1")

        assert [(a.reason.value, a.version) for a in (before, after)] == [("UNKNOWN_VARIANT", 1), ("EXPERIMENT", 2)]
        assert process.around.fallbacks == ["not_open"]
        assert len(process.graphs.asked) == 2

    async def test_that_production_points_at_is_waited_for_as_without_flags(self, process: Process) -> None:
        route = process.version(1)
        process.pool.keep({key_of(CLINIC, route)})  # as for every alias: else it is waited for hardly at all
        process.apply(running(variant("control", 1, control=True), variant("treatment", 1)), routes=[route])
        answer = await process.ask([1, 2], unit="u1")

        assert (answer.reason, answer.version, process.around.fallbacks) == (RoutingReason.EXPERIMENT, 1, [])

    async def test_and_no_production_either_is_the_error_that_it_is_without_flags(self, process: Process) -> None:
        await process.run(running(*ONLY_TREATMENT), routes=[process.version(3)])
        with pytest.raises(ModelUnavailable, match="Version 1 of 'sum', which 'production' points at"):
            await process.ask([1, 2], unit="u1")

    async def test_whatever_breaks_in_the_flags_the_caller_gets_an_answer(self, process: Process) -> None:
        await process.run(running(*ONLY_TREATMENT))

        def broken(*_: object) -> None:
            raise RuntimeError("the evaluator")

        routes = process.table.tenant(CLINIC)
        assert routes.flags is not None
        process.table.reflag(CLINIC, replace(routes.flags, decide=broken))
        answer = await process.ask([1, 2], unit="u1")

        assert (answer.reason, answer.version, process.around.fallbacks) == (RoutingReason.ALIAS, 1, ["failed"])


async def test_a_model_that_is_not_there_is_not_found_whatever_runs(process: Process) -> None:
    await process.run(running(*ONLY_TREATMENT))
    process.table.apply(CLINIC, replace(process.table.tenant(CLINIC), models={}))
    with pytest.raises(NotFound, match="There is no model named 'sum'"):
        await process.ask([1, 2], unit="u1")


@pytest.mark.parametrize(
    "attributes",
    [
        {"country": 5},
        {f"a{n}": "" for n in range(51)},
        {"a": "x" * 257},
        {"": "x"},
        {"tenantId": "bank"},
        {"userId": "u2"},
        {"a": "\ud800"},
    ],
)
async def test_attributes_that_no_flag_could_read_are_refused_with_or_without_an_experiment(
    process: Process, attributes: dict[str, str]
) -> None:
    for experiments in ((), (running(*ONLY_TREATMENT),)):
        await process.run(*experiments)
        with pytest.raises(InvalidInput, match="attributes"):
            await process.ask([1, 2], unit="u1", attributes=attributes)
    assert process.around.records == []


class TestFlagsOfATenant:
    async def test_are_built_once_for_as_long_as_nothing_about_them_changes(self, process: Process) -> None:
        first = process.book.of(CLINIC, [running(CONTROL, TREATMENT)], 7)
        assert process.book.of(CLINIC, [running(CONTROL, TREATMENT)], 8) is first
        assert first is not None
        assert first.decide("sum", "0" * 32, None).flag_revision == 7  # type: ignore[union-attr]
        process.around.holdout_percent = 5.0
        second = process.book.of(CLINIC, [running(CONTROL, TREATMENT)], 9)
        assert second is not first
        assert process.book.of(CLINIC, [], 10) is None

    async def test_that_cannot_be_used_leave_those_from_before_in_place(self, process: Process) -> None:
        good = process.book.of(CLINIC, [running(CONTROL, TREATMENT)], 7)
        wrong = running(CONTROL, TREATMENT, targeting=(TargetingRule("version", "SEMVER_EQ", ("no version",)),))
        for generation in (8, 9):
            assert process.book.of(CLINIC, [wrong], generation) is good
        assert process.around.refused == 1, "one change is refused once, however often it is looked at"
        assert process.book.of(CLINIC, [running(CONTROL, TREATMENT)], 10) is good

    async def test_that_turn_out_to_decide_otherwise_than_written_give_way_to_those_from_before(
        self, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = process.book.of(CLINIC, [running(CONTROL, TREATMENT)], 7)
        assert (process.book.proved, process.book.prove(), process.book.proved) == (False, [], True)
        newer = process.book.of(CLINIC, [running(CONTROL, TREATMENT, rollout=20.0)], 8)
        newest = process.book.of(CLINIC, [running(CONTROL, TREATMENT, rollout=30.0)], 9)
        assert len({id(good), id(newer), id(newest)}) == 3

        def differs(_flags: TenantFlags) -> None:
            raise FlagsRefused([Problem("experiment.colour", "", "is not decided as it is written.")])

        monkeypatch.setattr(TenantFlags, "prove", differs)
        assert process.book.prove() == [(CLINIC, good)]
        assert process.around.refused == 1
        assert process.book.of(CLINIC, [running(CONTROL, TREATMENT, rollout=30.0)], 10) is good, "not again for the same"
        assert process.book.proved

    async def test_say_which_versions_they_need(self, process: Process) -> None:
        flags = process.book.of(CLINIC, [running(CONTROL, TREATMENT, variant("candidate", 3, shadow=True))], 7)
        assert flags is not None
        assert flags.needed == {("sum", 1), ("sum", 2), ("sum", 3)}
        assert ([each.name for each in flags.beside["colour"].arms], [each.version for each in flags.beside["colour"].shadows]) == (
            ["control", "treatment"],
            [3],
        )
