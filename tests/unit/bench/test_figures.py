"""The arithmetic of the comparison."""

import dataclasses

import pytest

from tools.bench import by_turns, figures
from tools.bench.figures import Cell, Results, aims, drift, ratio, short
from tools.bench.load import Load

pytestmark = pytest.mark.unit


def cell(server, per_second=100.0, connections=32, rows=1, **more):
    known = {"variant": "", "model": "boosted", "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us": 50.0, "beside_us": 0.0, "memory_mib": 60.0}
    known |= {
        "beside_mib": 0.0,
        "requests": 1000,
        "checked": 10,
        "refused": 0,
        "bad": 0,
        "server_busy": 1.0,
        "generator_busy": 0.3,
        "trouble": "",
    }
    return Cell(**{**known, "server": server, "per_second": per_second, "connections": connections, "rows": rows, **more})


def results(*cells, **more):
    return Results(cells=list(cells), **more)


def test_a_ratio_is_ours_over_theirs():
    assert ratio(cell("turnout", 9000.0), cell("mlserver", 900.0)) == 10.0
    assert ratio(cell("turnout", p50_ms=0.3), cell("echo", p50_ms=0.1), "p50_ms") == pytest.approx(3.0)


@pytest.mark.parametrize("pair", [(None, cell("echo")), (cell("turnout"), None), (cell("turnout"), cell("echo", 0.0))])
def test_what_was_not_measured_has_no_ratio(pair):
    assert ratio(*pair) is None


def test_the_best_model_server_is_neither_the_floor_nor_the_route_written_by_hand():
    found = results(
        cell("echo", 40_000.0),
        cell("starlette", 1700.0),
        cell("mlserver", 870.0),
        cell("mlflow", 890.0),
        cell("mlserver-gathering", 1500.0),
        cell("turnout", 9000.0),
    )
    assert found.best_model_server(32).server == "mlflow"
    assert found.best_model_server(1) is None


def test_a_measurement_is_found_by_all_that_it_was_and_only_where_something_came_back():
    found = results(
        cell("echo", 1.0, trouble="no answer", requests=0), cell("echo", 2.0, variant="again"), cell("echo", 3.0), cell("echo", 4.0, 1)
    )
    assert found.find("echo", 32).per_second == 3.0
    assert found.find("echo", 32, variant="again").per_second == 2.0
    assert found.find("echo", 128) is None


def test_drift_is_the_largest_over_the_smallest_of_what_came_back():
    assert drift([cell("echo", 200.0), cell("echo", 250.0), cell("echo", 0.0, requests=0)]) == 1.25
    assert drift([]) == 1.0


def test_each_aim_is_met_missed_or_not_measured():
    found = results(
        cell("echo", 40_000.0), cell("echo", 9000.0, 1, p50_ms=0.1), cell("mlserver", 900.0), cell("turnout", 9000.0),
        cell("turnout", 3000.0, 1, p50_ms=0.31), notes={"paced": {"p99_ms": 4.9}},
    )  # fmt: skip
    assert [aim.met for aim in aims(found)] == [True, None, True, False, True, None, None]
    assert [aim.found for aim in aims(found)] == ["10.0", "not measured", "0.225", "3.10", "4.90", "not measured", "not measured"]


def test_a_batch_and_a_native_forest_have_aims_too():
    found = results(cell("turnout", 900.0, model="forest"), cell("starlette", 1000.0, model="forest"), notes={"batch": {"times": 1.4}})
    assert [aim.met for aim in aims(found)][-2:] == [True, False]


@pytest.mark.parametrize(
    ("number", "said"), [(0.2144, "0.214"), (3.404, "3.40"), (12.34, "12.3"), (10559.4, "10,559"), (100.0, "100"), (0.05, "0.05")]
)
def test_numbers_are_told_with_three_digits_that_count(number, said):
    assert short(number) == said


def test_what_was_written_is_read_again(tmp_path):
    found = results(
        cell("echo"), cell("turnout", variant="BUFFERED"), taken="2026-11-22", missing={"litserve": "no"}, notes={"paced": {"bad": 0}}
    )
    found.write(tmp_path / "run.json")
    assert dataclasses.asdict(figures.read(tmp_path / "run.json")) == dataclasses.asdict(found)


def load(per_second, p50_ms=1.0):
    return Load(int(per_second), 1.0, p50_ms, 2.0, 3.0, 0, 0, "", 0.1)


ROUNDS = [
    by_turns.Round(seen, seen)
    for seen in (
        {"turnout": load(9000, 0.3), "echo": load(30_000, 0.1), "mlserver": load(900)},
        {"turnout": load(5000, 0.6), "echo": load(20_000, 0.15), "mlserver": load(400)},
        {"turnout": load(6000, 0.2), "echo": load(40_000, 0.1), "mlserver": load(750)},
    )
]


def test_by_turns_a_ratio_is_the_median_of_what_it_was_in_each_round():
    told = by_turns.noted(ROUNDS, "mlserver")
    assert told["per_second"] == {
        "echo": {"median": 0.25, "least": 0.15, "most": 0.3},
        "mlserver": {"median": 10.0, "least": 8.0, "most": 12.5},
    }
    assert told["p50"] == {"median": 3.0, "least": 2.0, "most": 4.0}


def test_aims_are_held_against_the_rounds_where_there_were_any():
    once = [cell("turnout", 1000.0), cell("echo", 1000.0), cell("mlserver", 1000.0)]
    assert [aim.found for aim in aims(results(*once))][:4] == ["1.00", "not measured", "1.00", "not measured"]
    found = aims(results(*once, notes={"by_turns": by_turns.noted(ROUNDS, "mlserver")}))
    assert [(aim.found, aim.met) for aim in found][:4] == [("10.0", True), ("not measured", None), ("0.25", True), ("3.00", True)]
