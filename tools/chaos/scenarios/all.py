"""All rows, in the table's order."""

from __future__ import annotations

from tools.chaos.scenarios import around, clients, database, journal, models, processes

ROWS = sorted(
    [*processes.ROWS, *database.ROWS, *around.ROWS, *journal.ROWS, *models.ROWS, *clients.ROWS], key=lambda row: (row.number, row.headline)
)
