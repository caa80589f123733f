"""The table of results in docs/reliability.md, between two markers; rows that were not run keep what they said. Pure but for the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tools.chaos.rows import Result, Row

BEGIN = "<!-- make chaos writes from here -->"
END = "<!-- to here -->"
NOT_RUN = "not run yet"
_HEAD = "| row | fault | expected | pass line | measured |\n| --- | --- | --- | --- | --- |"


def line(row: Row, measured: str) -> str:
    """One line of the table."""
    cells = (name(row), row.fault, row.expected, row.pass_line, measured)
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def name(row: Row) -> str:
    """What stands in the first column: the number, with a star where it is one of the headlines."""
    return f"{row.number}*" if row.headline else str(row.number)


def told(result: Result) -> str:
    return f"{result.outcome}: {result.measured}" if result.measured else str(result.outcome)


def written(document: str, rows: Sequence[Row], results: Iterable[Result]) -> str:
    """The document with the table of all `rows`; raises ValueError where the markers are missing."""
    before, found, rest = document.partition(BEGIN)
    table, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"{BEGIN} and {END} are missing")
    measured = _kept(table) | {name(result.row): told(result) for result in results}
    lines = [line(row, measured.get(name(row), NOT_RUN)) for row in rows]
    return before + BEGIN + "\n" + "\n".join([_HEAD, *lines]) + "\n" + END + after


def write(path: Path, rows: Sequence[Row], results: Iterable[Result]) -> None:
    """As `written`, in place."""
    path.write_text(written(path.read_text(encoding="utf-8"), rows, results), encoding="utf-8")


def _kept(table: str) -> dict[str, str]:
    """What each row said the last time."""
    kept = {}
    for each in table.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", each.strip().strip("|"))]
        if len(cells) == 5 and cells[0].rstrip("*").isdigit():
            kept[cells[0]] = cells[4].replace("\\|", "|")
    return kept


def _plain(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
