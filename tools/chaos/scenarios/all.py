"""All rows, in the table's order."""

from __future__ import annotations

from tools.chaos.scenarios import database, processes

ROWS = sorted([*processes.ROWS, *database.ROWS], key=lambda row: (row.number, row.headline))
