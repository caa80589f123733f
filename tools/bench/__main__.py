"""`make bench`: our service beside a bare ASGI echo, a bare Starlette route and four model servers, in one run and one report.

    python -m tools.bench [--quick] [--only turnout,echo,...] [--seconds 3] [--write | --no-write] [--report]

A whole run writes docs/performance.json, the generated part of docs/performance.md and docs/performance.svg; `--quick` (our service, the
echo and Starlette, about a minute) and `--only` print their tables alone, unless `--write` is given. `--report` measures nothing and
writes the report anew from docs/performance.json. Servers' environments come from `make bench-peers`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench import by_turns, figures, load, machine, measuring, models, ours, plot, processes, report, servers
from tools.bench.figures import Results
from tools.bench.measuring import Bench, say
from tools.bench.service import ROOT

JSON, PAGE, PLOT = ROOT / "docs/performance.json", ROOT / "docs/performance.md", ROOT / "docs/performance.svg"
if TYPE_CHECKING:
    from collections.abc import Sequence

QUICK = ("turnout", "echo", "starlette")
SECONDS, QUICK_SECONDS = 3.0, 3.0


def main() -> None:
    given = _arguments()
    if given.report:
        _write(figures.read(JSON))
        return
    names = (
        given.only.split(",") if given.only else list(QUICK) if given.quick else ["turnout", *(server.name for server in servers.OTHERS)]
    )
    unknown = set(names) - {"turnout", *(server.name for server in servers.OTHERS)}
    if unknown:
        sys.exit(f"no such server: {', '.join(sorted(unknown))}; there are turnout, {', '.join(server.name for server in servers.OTHERS)}")
    results = _run(names, given.seconds or (QUICK_SECONDS if given.quick else SECONDS), quick=given.quick)
    print("\n" + report.text(results))
    if given.write or not (given.no_write or given.quick or given.only):
        results.write(JSON)
        _write(results)
    bad = sum(cell.bad for cell in results.cells)
    if bad:
        sys.exit(f"{bad} answers were not as they should be: these measurements do not count")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="names, with commas between them")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--report", action="store_true")
    return parser.parse_args()


def _run(names: list[str], seconds: float, *, quick: bool) -> Results:
    began, others, cores = time.monotonic(), machine.Others(), processes.Cores.of_this_machine()
    results = Results(taken=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder, processes.on(cores.beside):
        trained = Path(folder) / "models"
        trained.mkdir()
        say("training the models")
        models.train(trained)
        loader = load.Loader(load.generator(), Path(folder), cores.beside)
        results.machine = machine.described(cores, loader.name)
        say(", ".join(f"{name}: {value}" for name, value in results.machine.items()))
        bench = Bench(cores, loader, seconds, Path(folder), trained)
        shapes = measuring.QUICK_SHAPES if quick else measuring.EVERY_SHAPE
        for server in servers.OTHERS:
            if server.name in names:
                _measure_other(server, bench, shapes, results)
            if server is servers.ECHO and "turnout" in names:
                ours.measure(bench, shapes, results, quick=quick)
        if "echo" in names:  # once more, to tell how still the machine held
            _measure_other(servers.ECHO, bench, [(models.BOOSTED, 32, 1)], results, again=True)
        if not quick and {"turnout", "echo"} <= set(names):
            by_turns.measure(bench, results)
    results.taken_by_others = round(others.share(), 3)
    results.seconds = round(time.monotonic() - began)
    return results


def _measure_other(
    server: servers.Server, bench: Bench, shapes: Sequence[measuring.Shape], results: Results, *, again: bool = False
) -> None:
    """What cannot be measured is told as such, and the run goes on."""
    reason = server.missing()
    if reason is None:
        results.versions[server.name] = servers.version_of(server)
        say(f"{server.title} ({results.versions[server.name]})")
        try:
            cells = measuring.measure_other(server, bench, shapes, "again" if again else "")
        except (load.NoFiguresError, subprocess.CalledProcessError, OSError) as error:
            reason = str(error)
        else:
            results.cells += cells
    if reason is not None:
        results.missing[server.name] = reason
        say(f"{server.title}: {reason}")


def _write(results: Results) -> None:
    PLOT.write_text(plot.svg(results), encoding="utf-8")
    PAGE.write_text(report.put_into(PAGE.read_text(encoding="utf-8"), report.text(results)), encoding="utf-8")
    say(f"written: {', '.join(str(path.relative_to(ROOT)) for path in (JSON, PAGE, PLOT))}")


if __name__ == "__main__":
    main()
