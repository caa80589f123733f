"""What a request may cost: counts anywhere, times beside those of the same kind of processor."""

from __future__ import annotations

import json

import pytest

from tools.bench_parts import FIGURES, Cost, guard

pytestmark = pytest.mark.unit

KNOWN: dict[str, dict[str, float | None]] = {
    "A": {"calibrations": 1.0, "together": 0.5, "calls": 300.0, "kinstructions": None},
    "B": {"calibrations": 2.0, "together": 1.0, "calls": 300.0, "kinstructions": 9.0},
}


@pytest.mark.parametrize(
    ("processor", "cost", "status"),
    [
        ("A", Cost(1.14, 0.57, 340.0, 99.0), 0),
        ("A", Cost(1.16, 0.5, 300.0, None), 1),
        ("A", Cost(1.0, 0.58, 300.0, None), 1),
        ("A", Cost(1.0, 0.5, 346.0, None), 1),
        ("B", Cost(1.16, 0.58, 300.0, 9.0), 0),
        ("B", Cost(2.0, 1.0, 300.0, 10.4), 1),
        ("another", Cost(99.0, 99.0, 300.0, 99.0), 0),
        ("another", Cost(0.1, 0.1, 346.0, None), 1),
    ],
)
def test_a_request_that_costs_more_than_was_committed_of_this_processor_is_found(processor: str, cost: Cost, status: int) -> None:
    assert guard(cost, KNOWN, processor) == status


def test_who_has_another_processor_is_told_that_times_were_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    guard(Cost(99.0, 99.0, 300.0, None), KNOWN, "another")
    assert "no times are committed of this processor, another" in capsys.readouterr().out


def test_the_committed_figures_are_whole() -> None:
    for processor, figures in json.loads(FIGURES.read_text()).items():
        assert processor
        assert Cost(**figures).calls > 0
