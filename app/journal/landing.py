"""All records but those that cannot land: a whole batch at once, and divided where something in it does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from app.journal.sink import PartitionMissing, RecordsRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.journal.sink import Sink
    from app.journal.types import Record


@dataclass(frozen=True, slots=True)
class Leftover:
    """What of a batch is not in the database; all others are committed."""

    missing: list[Record] = field(default_factory=list)  # their day has no partition
    refused: list[tuple[Record, str]] = field(default_factory=list)  # with the reason


async def land(sink: Sink, records: Sequence[Record]) -> Leftover:
    """What of `records` could not be committed. Raises SinkUnavailable; then some may be committed, and giving all again does no harm."""
    leftover = Leftover()
    if records:
        await _divide(sink, records, leftover)
    return leftover


async def _divide(sink: Sink, records: Sequence[Record], leftover: Leftover) -> None:
    try:
        await sink.insert(records)
    except PartitionMissing:
        days = [list(day) for _, day in groupby(sorted(records, key=_day), key=_day)]
        if len(days) == 1:
            leftover.missing.extend(records)
            return
        for day in days:
            await _divide(sink, day, leftover)
    except RecordsRefused as error:
        if len(records) == 1:
            leftover.refused.append((records[0], str(error)))
            return
        half = len(records) // 2
        await _divide(sink, records[:half], leftover)
        await _divide(sink, records[half:], leftover)


def _day(record: Record) -> str:
    return record.at.date().isoformat()
