"""Exit statuses that one process reads of another."""

from __future__ import annotations

UNWRITTEN = 3  # a serving process ended with records in memory that it could not write
