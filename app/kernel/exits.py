"""Exit statuses that one process reads of another."""

from __future__ import annotations

UNWRITTEN = 3  # a serving process ended with records in memory that it could not write
NOT_TAKEN = "had records in memory that no disk took; how many stands in its log (journal.buffer_lost)"
