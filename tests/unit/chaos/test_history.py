"""The checker finds each sin that is planted into a good history, and none in a good one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.chaos.history import Answer, Operation, Outcome, Row, Verdict, check

pytestmark = pytest.mark.unit

CLEAN = (0, 0, 0, 0, 0)
patiently = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TENANTS = ("north", "south", "east", "west")


def operation(number: int, outcome: Outcome = Outcome.OK, tenant: str = "north", unit: str | None = None) -> Operation:
    answer = Answer(f"id-{number}", 1, "e", "control") if outcome is Outcome.OK else None
    return Operation(number, tenant, unit or f"{tenant}-u", "model", outcome, answer)


def row_of(asked: Operation, identity: str | None = None) -> Row:
    answer = asked.answer or Answer(identity or f"cut-{asked.number}", 1, "e", "control")
    return Row(answer.id, asked.tenant, asked.unit, asked.key, answer.version, answer.experiment, answer.variant, 7)


@st.composite
def good_histories(draw: st.DrawFn) -> tuple[list[Operation], list[Row]]:
    """Operations of four tenants with a few units each; of the unknown ones some are in the log; rows in any order."""
    operations, rows = [], []
    for number in range(draw(st.integers(1, 40))):
        tenant = draw(st.sampled_from(TENANTS))
        outcome = draw(st.sampled_from(list(Outcome))) if number else Outcome.OK
        made = operation(number, outcome, tenant, f"{tenant}-u{draw(st.integers(0, 3))}")
        operations.append(made)
        if outcome is Outcome.OK or (outcome is Outcome.UNKNOWN and draw(st.booleans())):
            rows.append(row_of(made))
    return operations, draw(st.permutations(rows))


def ok_row(rows: list[Row]) -> int:
    return next(index for index, row in enumerate(rows) if row.id.startswith("id-"))


@patiently
@given(good_histories())
def test_a_good_history_has_nothing_to_find(history: tuple[list[Operation], list[Row]]) -> None:
    verdict = check(*history)
    assert verdict.counts == CLEAN
    assert verdict.clean
    assert str(verdict) == "0 / 0 / 0 / 0 / 0"


@patiently
@given(good_histories())
def test_an_answer_that_is_not_in_the_log_is_lost(history: tuple[list[Operation], list[Row]]) -> None:
    operations, rows = history
    gone = rows.pop(ok_row(rows))
    verdict = check(operations, rows)
    assert verdict.counts == (1, 0, 0, 0, 0)
    assert gone.id in verdict.lost[0]


@patiently
@given(good_histories(), st.data())
def test_an_id_that_is_twice_in_the_log_is_a_duplicate(history: tuple[list[Operation], list[Row]], data: st.DataObject) -> None:
    operations, rows = history
    again = data.draw(st.sampled_from(rows))
    assert check(operations, [*rows, again]).counts == (0, 1, 0, 0, 0)


@patiently
@given(good_histories())
def test_a_row_that_nobody_asked_for_is_a_ghost(history: tuple[list[Operation], list[Row]]) -> None:
    operations, rows = history
    stray = Row("stray", "north", "north-unheard-of", "model", 1)
    assert check(operations, [*rows, stray]).counts == (0, 0, 1, 0, 0)


@patiently
@given(good_histories())
def test_a_row_of_a_refused_operation_is_a_ghost(history: tuple[list[Operation], list[Row]]) -> None:
    operations, rows = history
    refused = operation(1_000, Outcome.FAIL, unit="north-refused")
    assert check([*operations, refused], [*rows, row_of(refused)]).counts == (0, 0, 1, 0, 0)


@patiently
@given(st.integers(1, 5), st.integers(0, 8))
def test_so_many_unknown_operations_of_a_unit_account_for_so_many_rows_and_no_more(unknown: int, rows: int) -> None:
    asked = [operation(number, Outcome.UNKNOWN) for number in range(unknown)]
    logged = [row_of(asked[0], f"cut-{number}") for number in range(rows)]
    assert check(asked, logged).counts == (0, 0, max(0, rows - unknown), 0, 0)


def test_an_unknown_operation_accounts_for_nothing_of_another_unit_model_or_tenant() -> None:
    asked = operation(1, Outcome.UNKNOWN)
    for changed in ({"unit": "north-other"}, {"key": "another"}):
        assert check([asked], [replace(row_of(asked), **changed)]).counts == (0, 0, 1, 0, 0)
    assert check([asked], [replace(row_of(asked), tenant="south")]).counts == (0, 0, 1, 1, 0)


@patiently
@given(good_histories())
def test_an_answer_in_another_tenants_log_is_foreign(history: tuple[list[Operation], list[Row]]) -> None:
    operations, rows = history
    index = ok_row(rows)
    other = next(tenant for tenant in TENANTS if tenant != rows[index].tenant)
    rows[index] = replace(rows[index], tenant=other)
    assert check(operations, rows).counts == (0, 0, 0, 1, 0)


@patiently
@given(good_histories(), st.sampled_from([{"version": 2}, {"variant": None}, {"experiment": None}, {"key": "another"}, {"unit": "x"}]))
def test_a_row_that_says_something_else_than_the_client_was_told_is_split(
    history: tuple[list[Operation], list[Row]], change: dict[str, object]
) -> None:
    operations, rows = history
    index = ok_row(rows)
    rows[index] = replace(rows[index], **change)
    assert check(operations, rows).counts == (0, 0, 0, 0, 1)


def test_one_id_with_two_different_records_is_a_duplicate_and_split() -> None:
    asked = operation(1)
    assert check([asked], [row_of(asked), replace(row_of(asked), version=2)]).counts == (0, 1, 0, 0, 1)


def test_one_id_for_two_answers_is_split() -> None:
    asked = operation(1)
    assert check([asked, replace(asked, number=2)], [row_of(asked)]).counts == (0, 0, 0, 0, 1)


def test_one_unit_with_two_variants_is_split_under_one_revision_of_the_flags_alone() -> None:
    answers = [Answer("a", 1, "e", "control"), Answer("b", 2, "e", "treatment")]
    asked = [Operation(number, "north", "u", "model", Outcome.OK, answer) for number, answer in enumerate(answers)]
    rows = [row_of(each) for each in asked]
    assert check(asked, rows).counts == (0, 0, 0, 0, 1)
    assert check(asked, [rows[0], replace(rows[1], flag_revision=8)]).counts == CLEAN


def test_a_verdict_gives_people_a_few_examples_of_each_kind() -> None:
    verdict = Verdict(lost=[f"id-{n}" for n in range(9)], ghost=["g"])
    assert verdict.examples(2) == "lost: id-0\nlost: id-1\nghost: g"
    assert not verdict.clean
