"""All rows, in the table's order."""

from __future__ import annotations

from tools.chaos.scenarios import processes

ROWS = sorted([*processes.ROWS], key=lambda row: (row.number, row.headline))
