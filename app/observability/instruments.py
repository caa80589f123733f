"""Every instrument that `/metrics` shows: one table. docs/metrics.md says the same in the same order; a test compares them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TENANT_LABELS = ("tenant", "model", "version")  # shown only to who holds the metrics token
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Kind(StrEnum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    LOWEST = "livemin"  # gauges: how the values of several living processes become one
    HIGHEST = "livemax"
    TOTAL = "livesum"
    READING = "reading"  # a gauge that nobody keeps: read when somebody asks


@dataclass(frozen=True, slots=True)
class Instrument:
    """`name`, `help` and `labels` as Prometheus shows them."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds in seconds


_ALL = (
    Instrument("turnout_request_seconds", Kind.HISTOGRAM, "Time from a request's head to its answer.", ("operation",), _FAST),
    Instrument("turnout_errors_total", Kind.COUNTER, "Errors sent, by code of the contract.", ("operation", "code")),
    Instrument("turnout_requests_in_flight", Kind.TOTAL, "Requests being answered now."),
    Instrument("turnout_requests_turned_away_total", Kind.COUNTER, "Requests not begun because of overload.", ("reason",)),
    Instrument("turnout_loop_turn_seconds", Kind.HIGHEST, "Time of one turn of the event loop: how long requests wait to begin."),
    Instrument("turnout_connections", Kind.TOTAL, "Open connections of clients."),
    Instrument("turnout_connections_closed_total", Kind.COUNTER, "Connections ended or not taken by the service.", ("reason",)),
    Instrument(
        "turnout_prediction_seconds",
        Kind.HISTOGRAM,
        "From asking its model to the answer, the wait for company included.",
        (*TENANT_LABELS, "runtime"),
        _FAST,
    ),
    Instrument("turnout_prediction_rows_total", Kind.COUNTER, "Rows predicted.", (*TENANT_LABELS, "runtime")),
    Instrument("turnout_models_loaded", Kind.TOTAL, "Model versions ready to answer, summed over serving processes."),
    Instrument("turnout_model_memory_bytes", Kind.TOTAL, "Memory of open model versions as reckoned, summed over serving processes."),
    Instrument("turnout_live_proofs_total", Kind.COUNTER, "Compiled answers picked to be compared with scikit-learn's.", ("outcome",)),
    Instrument("turnout_flag_fallbacks_total", Kind.COUNTER, "Requests that production answered in their variant's stead.", ("reason",)),
    Instrument("turnout_flags_refused_total", Kind.COUNTER, "Tenants' new flags that could not be used."),
    Instrument(
        "turnout_unleash_heard_timestamp_seconds", Kind.LOWEST, "Unix time of the Unleash server's last good word, the oldest process's."
    ),
    Instrument("turnout_unleash_refused_total", Kind.COUNTER, "Answers of the Unleash server that are no document of flags."),
    Instrument("turnout_shared_limits_total", Kind.COUNTER, "Budgets that were to be asked of the shared store.", ("outcome",)),
    Instrument("turnout_shadow_total", Kind.COUNTER, "Answers that were to be given beside experiments'.", ("kind", "outcome")),
    Instrument(
        "turnout_fallbacks_total", Kind.COUNTER, "Requests whose version failed and whose model has a fallback.", ("kind", "outcome")
    ),
    Instrument("turnout_breaker_changes_total", Kind.COUNTER, "Breakers of versions that changed, by what they became.", ("state",)),
    Instrument("turnout_breakers_open", Kind.TOTAL, "Versions that are left alone now, summed over serving processes."),
    Instrument("turnout_quarantined_inputs_total", Kind.COUNTER, "Inputs that are refused because model workers died on them."),
    Instrument("turnout_model_worker_deaths_total", Kind.COUNTER, "Model workers that ended under a serving process.", ("reason",)),
    Instrument("turnout_snapshot_confirmed_timestamp_seconds", Kind.LOWEST, "Unix time at which the oldest routing table was known fresh."),
    Instrument("turnout_snapshot_generation", Kind.LOWEST, "Generation of the oldest routing table in use."),
    Instrument("turnout_database_away", Kind.HIGHEST, "1 while a process refuses calls of the database at once, else 0."),
    Instrument(
        "turnout_last_good_confirmed_timestamp_seconds", Kind.HIGHEST, "Unix time at which the state on the disk was known to be so."
    ),
    Instrument("turnout_journal_dropped_records_total", Kind.COUNTER, "Buffered records lost because the disk took nothing."),
    Instrument(
        "turnout_journal_committed_records_total", Kind.COUNTER, "Records to be in the database before their answers.", ("outcome",)
    ),
    Instrument("turnout_journal_depth_bytes", Kind.READING, "Bytes in this machine's spool that are not in the database."),
    Instrument("turnout_journal_depth_records", Kind.READING, "About how many records that is."),
    Instrument("turnout_journal_oldest_seconds", Kind.READING, "Age of the oldest record that waits; 0 when none does."),
    Instrument("turnout_journal_held_records", Kind.READING, "Records whose day has no partition; tried again by themselves."),
    Instrument("turnout_journal_quarantined_records", Kind.READING, "Records that the database refuses; they wait for a person."),
    Instrument("turnout_journal_drain_stalled", Kind.READING, "1 while the drain cannot get on, else 0."),
)


def instruments() -> tuple[Instrument, ...]:
    """All instruments in the order in which docs/metrics.md lists them."""
    return _ALL
