from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.journal.depth import read_depth
from app.observability.instruments import Kind, instruments
from tests.support.clock import ManualClock

pytestmark = pytest.mark.unit
_DOC = Path(__file__).parents[3] / "docs" / "metrics.md"
_SHOWN = {Kind.COUNTER: "counter", Kind.HISTOGRAM: "histogram"}


def test_the_document_lists_every_instrument_as_it_is_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", _DOC.read_text(encoding="utf-8"), re.MULTILINE)

    assert [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows] == [
        (it.name, _SHOWN.get(it.kind, "gauge"), it.labels, it.help) for it in instruments()
    ]


def test_names_follow_prometheus_rules() -> None:
    for it in instruments():
        assert re.fullmatch(r"turnout_[a-z_]+", it.name)
        assert it.name.endswith("_total") == (it.kind is Kind.COUNTER)
        assert bool(it.buckets) == (it.kind is Kind.HISTOGRAM)


def test_the_journals_readings_are_exactly_the_instruments_that_nobody_keeps(tmp_path: Path) -> None:
    readings = read_depth(tmp_path, ManualClock()).readings()

    assert list(readings) == [it.name for it in instruments() if it.kind is Kind.READING]
