"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NO_TERMINAL_COLUMNS = 160  # in a pipe nothing is cut at 80


def show_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output; None is an empty cell."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _NO_TERMINAL_COLUMNS, markup=False, highlight=False).print(table)


def note(text: str) -> None:
    """A line about progress: standard error, so that standard output holds the result alone."""
    click.echo(text, err=True)
