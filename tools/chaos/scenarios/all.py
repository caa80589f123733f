"""All rows, in the table's order."""

from __future__ import annotations

from tools.chaos.scenarios import database, models, processes

ROWS = sorted([*processes.ROWS, *database.ROWS, *models.ROWS], key=lambda row: (row.number, row.headline))
