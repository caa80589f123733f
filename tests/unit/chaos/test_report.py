"""The table in the document: all rows in order, what was measured, and what an earlier run said of the others."""

from __future__ import annotations

import pytest

from tools.chaos.figures import stretch
from tools.chaos.history import Operation, Outcome
from tools.chaos.load import BROKEN, Tried
from tools.chaos.report import BEGIN, END, name, written
from tools.chaos.rows import Claim, Result, Row, Skipped, Stage, run_row
from tools.chaos.rows import Outcome as Judged
from tools.chaos.scenarios.all import ROWS

pytestmark = pytest.mark.unit


def row(number: int, *claims: Claim, headline: bool = False) -> Row:
    return Row(number, f"fault | {number}", "expected", "line", lambda _: list(claims), headline)


def quiet() -> Stage:
    return Stage(say=lambda _: None)


def test_there_are_thirty_rows_and_one_headline_in_order() -> None:
    assert [name(each) for each in ROWS] == ["1", "2", "2*", *map(str, range(3, 31))]
    assert all(each.fault and each.expected and each.pass_line for each in ROWS)


def test_a_run_of_some_rows_leaves_what_the_others_said() -> None:
    rows = [row(1), row(2), row(2, headline=True)]
    document = f"before\n{BEGIN}\n{END}\nafter\n"
    first = written(document, rows, [Result(rows[0], Judged.PASS, "a | b", 1.0)])
    second = written(first, rows, [Result(rows[2], Judged.FAIL, "**gone**", 1.0)])
    assert second.startswith("before\n")
    assert second.endswith("after\n")
    assert second.splitlines()[4:7] == [
        r"| 1 | fault \| 1 | expected | line | pass: a \| b |",
        r"| 2 | fault \| 2 | expected | line | not run yet |",
        r"| 2* | fault \| 2 | expected | line | FAIL: **gone** |",
    ]
    assert written(second, rows, []) == second


def test_a_document_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        written("nothing here", [], [])


def test_a_row_fails_by_one_claim_that_does_not_hold_and_by_breaking_down() -> None:
    assert run_row(row(1, Claim(True, "a"), Claim(True, "b")), quiet()).measured == "a; b"
    failed = run_row(row(1, Claim(True, "a"), Claim(False, "b")), quiet())
    assert (failed.outcome, failed.measured) == (Judged.FAIL, "a; **b**")

    def breaks(_: Stage) -> list[Claim]:
        raise OSError("no such thing")

    broken = run_row(Row(1, "", "", "", breaks), quiet())
    assert (broken.outcome, broken.measured) == (Judged.FAIL, "OSError: no such thing")


def test_a_row_that_cannot_be_done_here_says_why_and_has_not_failed() -> None:
    def skips(_: Stage) -> list[Claim]:
        raise Skipped("too few descriptors")

    result = run_row(Row(1, "", "", "", skips), quiet())
    assert (result.outcome, result.measured) == (Judged.SKIP, "too few descriptors")


def test_figures_are_of_the_answered_and_the_slowest_is_of_all() -> None:
    def tried(number: int, outcome: Outcome, took_s: float, code: str = "") -> Tried:
        return Tried(Operation(number, "t", "u", "m", outcome), 0.0, took_s, code)

    figures = stretch([*(tried(n, Outcome.OK, (n + 1) / 1000) for n in range(99)), tried(99, Outcome.UNKNOWN, 2.0, BROKEN)])
    assert (figures.asked, figures.answered, figures.failed, figures.codes) == (100, 99, 1, {BROKEN: 1})
    assert (figures.p50_ms, figures.p99_ms, figures.slowest_ms) == (50.0, 99.0, 2000.0)
    assert figures.success == 0.99
    assert stretch([]).success == 0.0
