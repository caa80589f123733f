"""What the journal keeps of one answered prediction and of what was computed beside it, and how firmly."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from app.kernel.ids import minted_at_ms

if TYPE_CHECKING:
    from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_SEALED = 48_000  # bytes of a captured input: with its name and ids it fills a frame
WHOLE_TENANT = "*"  # of a tombstone, in place of a unit's pseudonym: nothing of the tenant may land any more
# What was predicted of a unit up to here after its erasure goes with it: clocks differ, and requests were under way.
ERASURE_GRACE = timedelta(minutes=1)


class Durability(StrEnum):
    """What an answer survives. The names are the contract's, and DATABASE is beside them."""

    DURABLE = "DURABLE"  # in the operating system's hands before the answer: survives kill -9 of everything of ours
    DURABLE_FSYNC = "DURABLE_FSYNC"  # on disk before the answer: survives power loss
    BUFFERED = "BUFFERED"  # up to a second may be lost
    DATABASE = "DATABASE"  # committed in the database before the answer: survives the machine, and waits for the database


# Records are tuples: one is made for each answer, and again for each that the drain moves.
class PredictionRecord(NamedTuple):
    """One answer: exactly what the `predictions` table holds. Nothing of the input but the unit's pseudonym."""

    id: UUID  # UUIDv7; `at` is derived from it, so a replay of a record is the same row
    tenant_id: UUID
    unit_hash: str | None
    key_generation: int  # of the key behind `unit_hash`
    model: str
    version: int
    reason: str
    experiment: str | None
    variant: str | None
    propensity: float | None
    flag_revision: int | None
    rows: int
    compute_us: int
    score: float | None  # finite; NaN and infinities are kept as None
    degraded: bool

    @property
    def at(self) -> datetime:
        """When the prediction was made, aware UTC, to the millisecond."""
        return _made_at(self.id)


class ShadowKind(StrEnum):
    SHADOW = "SHADOW"  # a shadow variant's answer
    COVARIATE = "COVARIATE"  # the control version's answer on a unit's first exposed input


class ShadowRecord(NamedTuple):
    """What a version said off the caller's time on an input that another one answered: a row of the `shadow_answers` table.

    No acknowledged answer depends on it, so it is written BUFFERED: a crash may lose what was said in the last second.
    """

    id: UUID  # of the prediction
    tenant_id: UUID
    kind: str
    variant: str
    row: int  # of the batch, from 0
    experiment: str
    unit_hash: str | None
    version: int
    served_variant: str | None
    served_version: int
    served_label: str | None
    served_score: float | None  # finite, as all scores; NaN and infinities are kept as None
    label: str | None
    score: float | None
    compute_us: int

    @property
    def at(self) -> datetime:
        """When the prediction was made, aware UTC, to the millisecond."""
        return _made_at(self.id)


class InputRecord(NamedTuple):
    """The features of one prediction, sealed under the tenant's data key before they came here: a row of `captured_inputs`."""

    id: UUID  # of the prediction
    tenant_id: UUID
    unit_hash: str | None
    sealed: bytes  # at most LARGEST_SEALED

    @property
    def at(self) -> datetime:
        """When the prediction was made, aware UTC, to the millisecond."""
        return _made_at(self.id)


Record = PredictionRecord | ShadowRecord | InputRecord


@dataclass(frozen=True, slots=True)
class Depth:
    """What lies in this machine's spool and not yet in the database."""

    bytes: int
    records: int  # exact when zero, else from the mean size of a record
    oldest_age_s: float  # 0 when empty
    held: int  # records whose day has no partition; tried again by themselves
    quarantined: int  # records that the database refuses; they wait for a person
    drain_age_s: float | None  # since the drain last spoke; None: it never did
    waiting_for: str | None  # why the drain does not get on; None: it does

    def readings(self) -> dict[str, float]:
        """The same numbers under the names of the instruments that show them."""
        return {
            "turnout_journal_depth_bytes": self.bytes,
            "turnout_journal_depth_records": self.records,
            "turnout_journal_oldest_seconds": self.oldest_age_s,
            "turnout_journal_held_records": self.held,
            "turnout_journal_quarantined_records": self.quarantined,
            "turnout_journal_drain_stalled": float(self.waiting_for is not None),
        }


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one version answered on one UTC day."""

    day: datetime  # midnight UTC at which the day began
    model: str
    version: int
    requests: int
    rows: int
    compute_us: int


def _made_at(prediction_id: UUID) -> datetime:
    return _EPOCH + timedelta(milliseconds=minted_at_ms(prediction_id))
