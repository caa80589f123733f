"""The page that is made of a run, the picture beside it, and what is installed for it."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.unit.bench.test_figures import ROUNDS, cell, results
from tools.bench import by_turns, plot, report, servers
from tools.bench.report import BEGIN, END

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted((ROOT / "tools/bench/peers").glob("*.lock"))
RUN = results(
    cell("echo", 40_000.0), cell("mlserver", 900.0), cell("turnout", 9000.0), cell("turnout", 7000.0, variant="DURABLE_FSYNC"),
    cell("echo", 44_000.0, variant="again"), cell("mlserver", 0.0, rows=1000, requests=0, trouble="not one answer in 3.0 s"),
    missing={"litserve": "could not be installed on this Python: no wheel"}, machine={"cores": "2"},
)  # fmt: skip


def test_the_page_around_the_generated_part_stays():
    page = f"# Performance\nby hand\n{BEGIN}\nold\n{END}\nmore by hand\n"
    assert report.put_into(page, "new\n") == f"# Performance\nby hand\n{BEGIN}\nnew\n{END}\nmore by hand\n"


@pytest.mark.parametrize("page", ["", BEGIN, f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_left_alone(page):
    with pytest.raises(ValueError, match="once each"):
        report.put_into(page, "new")


def test_the_committed_page_has_its_markers():
    assert report.put_into((ROOT / "docs/performance.md").read_text(), "x").count("\nx\n") == 1


def test_ratios_come_first_and_say_how_many_times_more_we_answer():
    said = report.text(RUN)
    assert said.index("### Ratios") == 0
    (row,) = re.findall(r"^\| MLServer \|(.*)\|$", said[: said.index("### Aims")], re.MULTILINE)
    assert [field.strip() for field in row.split("|")] == ["", "10.0", "", "", "1.00", "", "", ""]


def test_what_was_measured_by_turns_is_told_with_how_far_its_rounds_were_apart():
    said = report.text(results(cell("turnout"), notes={"by_turns": by_turns.noted(ROUNDS, "mlserver")}))
    assert "medians of 3 rounds" in said
    assert "| requests/s over MLServer's | 8.00 | 10.0 | 12.5 |" in said
    assert "| p50 at one connection over the echo's | 2.00 | 3.00 | 4.00 |" in said


def test_nothing_is_left_out_silently():
    said = report.text(RUN)
    assert "**LitServe was not measured**: could not be installed on this Python: no wheel" in said
    assert "No figures of MLServer, boosted, 32 connections, 1000 rows: not one answer in 3.0 s" in said


def test_the_report_says_how_still_the_machine_held():
    assert "differs by a factor of 1.10" in report.text(RUN)


@pytest.mark.parametrize(
    ("others", "said"), [(0.04, "took 4% of all cores meanwhile."), (0.84, "84% of all cores meanwhile: these figures say little.**")]
)
def test_a_run_beside_other_programs_says_so(others, said):
    assert said in report.text(results(cell("echo"), taken_by_others=others))


def test_the_parts_of_a_request_are_a_table_of_the_report():
    lines = ["| part of a request | µs |", "| --- | ---: |", "| token | 1.2 |"]
    assert "### Parts of one request\n| part of a request | µs |\n| --- | ---: |\n| token | 1.2 |\n" in report.text(
        results(notes={"parts": lines})
    )


def test_what_was_refused_is_told_beside_the_rate():
    assert "| 900 (10% refused) |" in report.text(results(cell("echo"), cell("turnout", 900.0, refused=100)))


def test_a_generator_that_had_no_time_left_is_told():
    assert "97% (full)" in report.text(results(cell("echo", 40_000.0, generator_busy=0.97), cell("turnout")))


def test_the_picture_has_a_bar_for_each_figure_and_longer_ones_for_more():
    picture = ET.fromstring(plot.svg(RUN))
    bars = [float(rect.get("width")) for rect in picture.iter("{http://www.w3.org/2000/svg}rect") if rect.get("x")]
    assert len(bars) == 3
    assert bars == sorted(bars, reverse=True)


def test_a_run_without_figures_has_an_empty_picture():
    assert ET.fromstring(plot.svg(results())).tag.endswith("svg")


def test_every_model_server_has_a_lock_file():
    assert [path.stem for path in LOCKS] == sorted({server.environment for server in servers.MODEL_SERVERS})


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_lock_files_pin_by_hash_and_name_no_index(lock):
    text = lock.read_text()
    wanted = re.findall(r"^[a-z0-9][^\s=]*==", text, re.MULTILINE)
    assert len(wanted) > 10
    assert [line for line in text.splitlines() if re.match(r"--|.*://", line)] == []
    assert text.count("==") - text.count(" == ") >= len(wanted)
    assert all("--hash=sha256:" in block for block in re.split(r"^(?=[a-z0-9][^\s=]*==)", text, flags=re.MULTILINE)[1:])


@pytest.mark.parametrize("server", servers.MODEL_SERVERS, ids=lambda server: server.name)
def test_a_server_that_is_not_there_says_why(server, monkeypatch, tmp_path):
    monkeypatch.setattr(servers, "ENVIRONMENTS", tmp_path)
    assert "make bench-peers" in server.missing()
    (tmp_path / f"{server.environment}.failed").write_text("no wheel")
    assert server.missing() == "could not be installed on this Python: no wheel"
    (tmp_path / server.environment).mkdir()
    (tmp_path / server.environment / "installed").touch()
    assert server.missing() is None


def test_every_server_is_asked_about_the_same_rows():
    bodies = {server.name: servers.bodies(lambda rows, server=server: server.body("boosted", rows), 100) for server in servers.OTHERS}
    numbers = {name: re.findall(rb"-?\d+\.\d+", made[0]) for name, made in bodies.items()}
    assert {len(found) for found in numbers.values()} == {2000}
    assert len({tuple(found) for found in numbers.values()}) == 1
