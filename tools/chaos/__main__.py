"""`make chaos`: every fault test, with real processes and real signals; exit status 1 where a row fails.

    python -m tools.chaos                      all rows, the headlines last: some twenty minutes
    python -m tools.chaos --only 2,5,4*        these; a star is the headline beside the row
    python -m tools.chaos --seconds 10         load before and after each fault
    python -m tools.chaos --kills 10 --outage 20 --no-headlines
    python -m tools.chaos --list

With --write the table in docs/reliability.md says what was measured. Loopback only, no root needed; a row that this machine cannot
do says why and counts as neither.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import TYPE_CHECKING

from tests.support.service import ROOT
from tools.chaos.report import name, write
from tools.chaos.rows import Outcome, Result, Stage, run_row
from tools.chaos.scenarios.all import ROWS

if TYPE_CHECKING:
    from tools.chaos.rows import Row

DOCUMENT = ROOT / "docs" / "reliability.md"


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows, with commas between")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load before and after a fault")
    parser.add_argument("--kills", type=int, default=50, help="how often everything is killed (row 2*)")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds that PostgreSQL is away (row 4*)")
    parser.add_argument("--no-headlines", action="store_true", help="leave the long ones out")
    parser.add_argument("--write", action="store_true", help="write the table in docs/reliability.md")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    given = parser.parse_args(arguments)
    wanted = _wanted(given.only, headlines=not given.no_headlines)
    if given.list:
        _tell("\n".join(f"{name(row):>4} {row.fault}" for row in wanted))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # worlds are closed on the way out
    stage = Stage(given.seconds, given.kills, given.outage, _tell)
    results: list[Result] = []
    try:
        for row in wanted:
            results.append(_run(row, stage))
            if given.write:
                write(DOCUMENT, ROWS, results)
    finally:
        stage.forget()
    counts = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    _tell(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
    return 1 if counts[Outcome.FAIL] else 0


def _run(row: Row, stage: Stage) -> Result:
    _tell(f"row {name(row)}: {row.fault}")
    result = run_row(row, stage)
    _tell(f"row {name(row)}: {result.outcome} in {result.took_s:.0f} s: {result.measured}")
    return result


def _wanted(only: str, *, headlines: bool) -> list[Row]:
    names = [each.strip() for each in only.split(",") if each.strip()]
    known = {name(row): row for row in ROWS}
    if unknown := [each for each in names if each not in known]:
        sys.exit(f"no such row: {', '.join(unknown)}; --list names them")
    if names:
        return [known[each] for each in names]
    return sorted((row for row in ROWS if headlines or not row.headline), key=lambda row: (row.headline, row.number))


def _tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}" if "\n" not in words else words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
