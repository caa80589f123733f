"""Several real processes that count, one text that adds up."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.observability.exposition import exposition, forget_process, fresh_folder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

COUNTING = """
import os, sys
from pathlib import Path
from app.observability.metrics import Telemetry
telemetry = Telemetry(Path(sys.argv[1]))
exec(sys.argv[2])
print("counted", flush=True)
sys.stdin.read()
"""


class Counting:
    """A process that has run `code` and lives until `die`."""

    def __init__(self, folder: Path, code: str) -> None:
        command = [sys.executable, "-c", COUNTING, str(folder), code]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline() == "counted\n"

    def die(self) -> int:
        self.process.kill()
        self.process.communicate()
        return self.process.pid


def values(text: bytes) -> dict[str, float]:
    """Sample by its line's head, as `name{label="value"}`; zeros left out."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            if sample.value:
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fresh_folder(tmp_path / "metrics")


PREDICT = "telemetry.prediction(tenant='{}', model='churn', version=3, seconds=0.002, rows=5, runtime='sklearn');"


def test_processes_add_up_and_tenants_are_shown_only_when_asked_for(folder: Path) -> None:
    both = [
        Counting(folder, PREDICT.format("clinic") + "telemetry.request(0.004, 'query', 'NOT_FOUND'); telemetry.in_flight(2)"),
        Counting(folder, PREDICT.format("clinic") + PREDICT.format("shop") + "telemetry.in_flight(1); telemetry.worker_died('killed')"),
    ]
    named = values(exposition(folder, with_tenants=True, readings={"turnout_journal_depth_bytes": 7}))
    summed = exposition(folder, with_tenants=False)
    for one in both:
        one.die()

    assert named["turnout_prediction_seconds_count{model=churn,runtime=sklearn,tenant=clinic,version=3}"] == 2
    assert named["turnout_prediction_rows_total{model=churn,runtime=sklearn,tenant=shop,version=3}"] == 5
    assert named["turnout_errors_total{code=NOT_FOUND,operation=query}"] == 1
    assert named["turnout_request_seconds_bucket{le=0.005,operation=query}"] == 1
    assert "turnout_request_seconds_bucket{le=0.0025,operation=query}" not in named
    assert named["turnout_requests_in_flight{}"] == 3
    assert named["turnout_model_worker_deaths_total{reason=killed}"] == 1
    assert named["turnout_journal_depth_bytes{}"] == 7
    assert b"clinic" not in summed
    assert b"churn" not in summed
    assert values(summed)["turnout_prediction_seconds_count{runtime=sklearn}"] == 3
    assert values(summed)["turnout_prediction_seconds_bucket{le=+Inf,runtime=sklearn}"] == 3


def test_what_a_dead_process_counted_stays_and_its_gauges_go(folder: Path) -> None:
    first = Counting(folder, PREDICT.format("clinic") + "telemetry.in_flight(4)")
    second = Counting(folder, PREDICT.format("clinic") + "telemetry.in_flight(1)")
    before = values(exposition(folder, with_tenants=True))
    forget_process(folder, first.die())
    after = values(exposition(folder, with_tenants=True))
    forget_process(folder, second.die())
    at_last = values(exposition(folder, with_tenants=True))

    gauge = "turnout_requests_in_flight{}"
    assert (before.pop(gauge), after.pop(gauge), at_last.get(gauge)) == (5, 1, None)
    assert before == after == at_last
    assert sorted(path.name for path in folder.glob("*.db")) == ["counter_0.db", "histogram_0.db"]


def test_the_oldest_routing_table_is_the_one_that_shows(folder: Path) -> None:
    both = [Counting(folder, f"telemetry.snapshot_confirmed({at}, {at})") for at in (1700000005, 1700000003)]
    shown = values(exposition(folder, with_tenants=False))
    for one in both:
        one.die()

    assert shown["turnout_snapshot_confirmed_timestamp_seconds{}"] == 1700000003


def test_series_are_bounded_and_what_comes_after_counts_as_other(folder: Path) -> None:
    code = """
for n in range(1010):
    telemetry.prediction(tenant=f"t{n}", model="churn", version=3, seconds=0.002, rows=1, runtime="sklearn")
telemetry.request(0.1, 'a name that\\nsomebody "chose"', 'X')
"""
    counting = Counting(folder, code)
    shown = values(exposition(folder, with_tenants=True))
    counting.die()
    rows = {name: value for name, value in shown.items() if name.startswith("turnout_prediction_rows_total")}

    assert len(rows) == 1001
    assert rows["turnout_prediction_rows_total{model=other,runtime=other,tenant=other,version=other}"] == 10
    assert shown["turnout_request_seconds_count{operation=other}"] == 1


def test_a_service_that_starts_begins_at_zero(folder: Path) -> None:
    forget_process(folder, Counting(folder, "telemetry.worker_died('died')").die())
    assert values(exposition(folder, with_tenants=False)) != {}
    fresh_folder(folder)

    assert values(exposition(folder, with_tenants=False)) == {}
