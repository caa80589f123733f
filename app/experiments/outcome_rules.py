"""Pure decisions about outcomes: what is taken, what it belongs to, and what makes two of them one."""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import InvalidInput, NotFound
from app.experiments.types import MetricAggregation, MetricKind
from app.kernel.ids import minted_at_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from app.experiments.types import Metric

MOST_AT_ONCE = 1_000
CLOCK_SKEW = timedelta(minutes=5)  # how far the clocks of those who send outcomes may be ahead of ours, or behind
LARGEST_VALUE = 1e100  # its square, and sums of those, are still numbers
_LONGEST_KEY = 256
_MOST_NAMES = 20
_ROWS = 2**31
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_V7, _VARIANT = 0x7 << 76, 0b10 << 62


@dataclass(frozen=True, slots=True)
class OutcomeToRecord:
    """As it is sent. `prediction_id` is the client's text; `occurred_at` left out: now."""

    metric: str
    value: float
    prediction_id: str | None = None
    row: int | None = None
    unit: str | None = None
    occurred_at: datetime | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class CheckedOutcome:
    """As it can be kept, as far as the outcome itself tells. `dedup_key`: what a retry repeats."""

    metric: str
    value: float
    prediction_id: UUID | None
    row: int | None
    occurred_at: datetime
    dedup_key: str


def checked(given: OutcomeToRecord, now: datetime, window_days: int, is_own: Callable[[UUID], bool]) -> CheckedOutcome:
    """The outcome with its time and its key. `is_own`: whether the tenant's key made an id; only then the time inside means something.

    Raises InvalidInput that says what would be right, NotFound for what is no prediction's id.
    """
    if (given.prediction_id is None) == (given.unit is None):
        raise InvalidInput("Exactly one of predictionId and unit must be given.")
    if not math.isfinite(given.value) or abs(given.value) > LARGEST_VALUE:
        raise InvalidInput(f"value must be a finite number between -{LARGEST_VALUE:g} and {LARGEST_VALUE:g}.")
    if given.row is not None and given.prediction_id is None:
        raise InvalidInput("row names a row of a batch: it goes with predictionId alone.")
    if given.row is not None and not 0 <= given.row < _ROWS:
        raise InvalidInput(f"row is {given.row}; rows of a batch are counted from 0.")
    if given.unit is not None and given.idempotency_key is None:
        raise InvalidInput("idempotencyKey must be given with unit, so that a retry is not counted twice.")
    prediction_id = None if given.prediction_id is None else _prediction_id(given.prediction_id, is_own)
    occurred_at = _occurred_at(given.occurred_at, now, timedelta(days=window_days), prediction_id)
    return CheckedOutcome(given.metric, given.value, prediction_id, given.row, occurred_at, _dedup_key(given, prediction_id))


def check_metric(metric: str, declared: Collection[str]) -> None:
    """Returns where the metric is one of the tenant's; raises NotFound that names those."""
    if metric not in declared:
        names = sorted(declared)
        more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        known = f"Declared are {', '.join(names[:_MOST_NAMES])}{more}." if names else "None is declared yet."
        raise NotFound(f"There is no metric named {metric[:64]!r}. {known} An experiment declares its metrics, and so does declareMetric.")


def check_declaration(metric: Metric) -> None:
    """Returns where a metric can be measured like this; raises InvalidInput."""
    if metric.kind is MetricKind.PROPORTION and metric.aggregation is not MetricAggregation.ANY:
        raise InvalidInput(
            f"The metric {metric.name!r} is a PROPORTION, whose aggregation is ANY: leave it out, or make the metric a MEAN."
        )


def no_prediction(prediction_id: object) -> NotFound:
    """Word for word the same for what never was, is forged, or is somebody else's."""
    return NotFound(f"There is no prediction {str(prediction_id)[:64]!r}.")


def check_row(row: int | None, rows: int) -> None:
    """Returns where the batch has the row; raises InvalidInput."""
    if row is not None and row >= rows:
        raise InvalidInput(f"row is {row}; the prediction has {rows} {'row' if rows == 1 else 'rows'}, counted from 0.")


def predicted_at(prediction_id: UUID) -> datetime:
    """When the prediction was made, to the millisecond: the `at` of its row."""
    return _EPOCH + timedelta(milliseconds=minted_at_ms(prediction_id))


def outcome_id(now: datetime, index: int) -> UUID:
    """A UUIDv7; of one call, those with a higher `index` (to 4,095) sort behind. Source: RFC 9562 section 6.2, method 1."""
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=(milliseconds << 80) | _V7 | (index << 64) | _VARIANT | secrets.randbits(62))


def first_outcome_id(at: datetime) -> UUID:
    """Before every id that was made at `at` or later, behind all that were made earlier, to the millisecond."""
    return UUID(int=((at - _EPOCH) // timedelta(milliseconds=1)) << 80)


def _prediction_id(text: str, is_own: Callable[[UUID], bool]) -> UUID:
    try:
        prediction_id = UUID(text)
    except ValueError:
        raise no_prediction(text) from None
    if not is_own(prediction_id):
        raise no_prediction(text)
    return prediction_id


def _occurred_at(given: datetime | None, now: datetime, window: timedelta, prediction_id: UUID | None) -> datetime:
    if given is not None and given.tzinfo is None:
        raise InvalidInput("occurredAt needs a time zone, like 2026-03-01T12:00:00Z.")
    at = now if given is None else given.astimezone(UTC)
    if at > now + CLOCK_SKEW:
        ahead = CLOCK_SKEW.seconds // 60
        raise InvalidInput(f"occurredAt is {at.isoformat()}, which is in the future; clocks may differ by {ahead} minutes.")
    if at < now - window:
        raise InvalidInput(f"occurredAt is {at.isoformat()}: outcomes are taken up to {window.days} days late (outcomeWindowDays).")
    if prediction_id is None:
        return at
    made = predicted_at(prediction_id)
    if at > made + window:
        raise InvalidInput(f"The prediction is of {made.isoformat()}: outcomes count for {window.days} days after it (outcomeWindowDays).")
    if at < made - CLOCK_SKEW:
        raise InvalidInput(f"occurredAt is {at.isoformat()}, before the prediction itself, which is of {made.isoformat()}.")
    return max(at, made)  # what follows a prediction is not before it, whatever the clocks say


def _dedup_key(given: OutcomeToRecord, prediction_id: UUID | None) -> str:
    key = given.idempotency_key
    if key is None:
        return f"prediction/{prediction_id}/{given.metric}/{'' if given.row is None else given.row}"
    if not 1 <= len(key) <= _LONGEST_KEY:
        raise InvalidInput(f"idempotencyKey has {len(key)} characters; it must have 1 to {_LONGEST_KEY}.")
    # A digest: people put names into such keys.
    return f"key/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
