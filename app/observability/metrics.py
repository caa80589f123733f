"""Counting and timing in several processes that one `/metrics` shows as one service.

Each process writes to files of its own below one folder (the multi-process mode of prometheus_client); whoever is asked adds
them up. What a process counted outlives it: `forget_process` moves its totals to the archive, so that no counter ever falls
while the service runs.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from struct import Struct
from typing import TYPE_CHECKING, Any

from app.observability.instruments import Instrument, Kind, instruments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_PREDICTION_SERIES = 1000  # combinations of tenant, model, version and runtime a process; the rest is "other"
_MAX_SERIES = 100
_OTHER = "other"
_put = Struct("dd").pack_into  # value and time
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Telemetry:
    """The instruments of this process; one a process, made before requests are served. `folder`: the machine's metrics folder."""

    def __init__(self, folder: Path) -> None:
        made = _make_instruments(folder)
        self._request = _Bounded(_MAX_SERIES, lambda operation: _observing(made["turnout_request_seconds"].labels(operation)))
        self._error = _Bounded(_MAX_SERIES, lambda *labels: made["turnout_errors_total"].labels(*labels).inc)
        self._live_proofs = _Bounded(_MAX_SERIES, lambda outcome: made["turnout_live_proofs_total"].labels(outcome).inc)
        self._fallbacks = _Bounded(_MAX_SERIES, lambda reason: made["turnout_flag_fallbacks_total"].labels(reason).inc)
        self._shadows = _Bounded(_MAX_SERIES, lambda *labels: made["turnout_shadow_total"].labels(*labels).inc)
        self._shared_limits = _Bounded(_MAX_SERIES, lambda outcome: made["turnout_shared_limits_total"].labels(outcome).inc)
        self._flags_refused = made["turnout_flags_refused_total"]
        self._unleash_heard = made["turnout_unleash_heard_timestamp_seconds"]
        self._unleash_refused = made["turnout_unleash_refused_total"]
        self._deaths = _Bounded(_MAX_SERIES, lambda reason: made["turnout_model_worker_deaths_total"].labels(reason).inc)
        self._prediction = _Bounded(
            MAX_PREDICTION_SERIES,
            lambda *labels: (
                _observing(made["turnout_prediction_seconds"].labels(*labels)),
                _Cell(made["turnout_prediction_rows_total"].labels(*labels)._value).add,  # noqa: SLF001  as in _Cell
            ),
        )
        self._fallen = _Bounded(_MAX_SERIES, lambda *labels: made["turnout_fallbacks_total"].labels(*labels).inc)
        self._breaker_changes = _Bounded(_MAX_SERIES, lambda state: made["turnout_breaker_changes_total"].labels(state).inc)
        self._breakers_open = made["turnout_breakers_open"]
        self._quarantined = made["turnout_quarantined_inputs_total"]
        self._in_flight = _Cell(made["turnout_requests_in_flight"]._value).add  # noqa: SLF001  as in _Cell
        self._turned_away = _Bounded(_MAX_SERIES, lambda reason: made["turnout_requests_turned_away_total"].labels(reason).inc)
        self._turn = made["turnout_loop_turn_seconds"]
        self._connections = made["turnout_connections"]
        self._connections_closed = _Bounded(_MAX_SERIES, lambda reason: made["turnout_connections_closed_total"].labels(reason).inc)
        self._loaded = made["turnout_models_loaded"]
        self._memory = made["turnout_model_memory_bytes"]
        self._confirmed = made["turnout_snapshot_confirmed_timestamp_seconds"]
        self._generation = made["turnout_snapshot_generation"]
        self._database_away = made["turnout_database_away"]
        self._last_good = made["turnout_last_good_confirmed_timestamp_seconds"]
        self._dropped = made["turnout_journal_dropped_records_total"]
        self._committed = _Bounded(_MAX_SERIES, lambda outcome: made["turnout_journal_committed_records_total"].labels(outcome).inc)

    def request(self, seconds: float, operation: str, code: str | None = None) -> None:
        """One request answered; `operation`: its kind (query, mutation, upload), never a name that a caller chose."""
        self._request.of(operation)(seconds)
        if code not in {None, "OK"}:
            self.error(operation, code)

    def error(self, operation: str, code: str) -> None:
        """One error sent; a request may have several."""
        self._error.of(operation, code)(1)

    def prediction(self, *, tenant: str, model: str, version: int, seconds: float, rows: int, runtime: str) -> None:
        """One prediction of `rows` rows that took its model `seconds`. Beyond a thousand series it counts as "other"."""
        observe, count = self._prediction.of(tenant, model, str(version), runtime)
        observe(seconds)
        count(rows)

    def in_flight(self, change: int) -> None:
        """+1 when a request begins, -1 when it ends."""
        self._in_flight(change)

    def turned_away(self, reason: str) -> None:
        """One request not begun for want of room: "busy", "share", "full", "late", "admin", "upload" or "bodies"."""
        self._turned_away.of(reason)(1)

    def serving(self, connections: int, turn_s: float) -> None:
        """So many connections are open, and the event loop takes so long for one turn."""
        self._connections.set(connections)
        self._turn.set(turn_s)

    def connection_closed(self, reason: str) -> None:
        """One connection that the service ended or did not take: "head", "idle", "send", "full" or "address"."""
        self._connections_closed.of(reason)(1)

    def models_loaded(self, count: int, held_bytes: int) -> None:
        """So many versions are open, and take about so much memory."""
        self._loaded.set(count)
        self._memory.set(held_bytes)

    def live_proof(self, outcome: str) -> None:
        """One compiled answer that was to be compared: "equal", "mismatch", "failed" or "dropped"."""
        self._live_proofs.of(outcome)(1)

    def flag_fallback(self, reason: str) -> None:
        """One request that its variant could not answer, and production did: "missing", "not_open", "unusable" or "failed"."""
        self._fallbacks.of(reason)(1)

    def flags_refused(self) -> None:
        """One tenant's new flags could not be used; those from before decide."""
        self._flags_refused.inc()

    def unleash_heard(self, unix_seconds: float) -> None:
        """The Unleash server gave a good document, or said that nothing changed."""
        self._unleash_heard.set(unix_seconds)

    def unleash_refused(self) -> None:
        """The Unleash server gave something that is no document of flags."""
        self._unleash_refused.inc()

    def shared_limit(self, outcome: str, count: int = 1) -> None:
        """So many budgets that were to be asked of the store that machines share: "answered", "late" or "away"."""
        self._shared_limits.of(outcome)(count)

    def shadow(self, kind: str, outcome: str) -> None:
        """One answer that was to be given beside another: "SHADOW" or "COVARIATE", and "answered", "refused", "missing", "not_open",
        "failed" or "dropped".
        """
        self._shadows.of(kind, outcome)(1)

    def fallback(self, kind: str, outcome: str) -> None:
        """One request whose version failed: its model's kind of fallback, and "answered", "failed" or "missing"."""
        self._fallen.of(kind, outcome)(1)

    def breaker(self, state: str, not_closed: int) -> None:
        """One breaker that became "CLOSED", "OPEN" or "HALF_OPEN"; and how many are not closed now."""
        self._breaker_changes.of(state)(1)
        self._breakers_open.set(not_closed)

    def input_quarantined(self) -> None:
        """One input that is refused from now on."""
        self._quarantined.inc()

    def worker_died(self, reason: str) -> None:
        """One model worker ended by itself, or was killed: "deadline", "memory", "signal"."""
        self._deaths.of(reason)(1)

    def database(self, *, is_away: bool) -> None:
        """Whether calls of the database are refused at once, because it was found not to answer."""
        self._database_away.set(1 if is_away else 0)

    def last_good_confirmed(self, unix_seconds: float) -> None:
        """The state on this machine's disk is as the database said at this moment."""
        self._last_good.set(unix_seconds)

    def snapshot_confirmed(self, unix_seconds: float, generation: int) -> None:
        """The routing table was known to be fresh at this moment."""
        self._confirmed.set(unix_seconds)
        self._generation.set(generation)

    def journal_dropped(self, records: int) -> None:
        self._dropped.inc(records)

    def journal_committed(self, outcome: str, records: int) -> None:
        """Records that were to be in the database before their answers: "committed", "repeated" or "given_up"."""
        self._committed.of(outcome)(records)


class _Cell:
    """One number of prometheus_client's file, written in place. For numbers that the event loop's thread alone changes.

    Its own `inc` takes a lock, asks for the process's id and looks the place up, on each of the seven numbers of a request.
    """

    __slots__ = ("_at", "_file", "_total")

    def __init__(self, value: Any) -> None:
        self._file, self._total = value._file, value._value  # noqa: SLF001  there is no public way to the place of a number
        self._at = self._file._positions[value._key]  # noqa: SLF001

    def add(self, amount: float) -> None:
        self._total = total = self._total + amount
        _put(self._file._m, self._at, total, 0.0)  # noqa: SLF001  another map each time the file has grown


def _observing(histogram: Any) -> Callable[[float], None]:
    """The histogram's `observe`."""
    bounds, count_up = tuple(histogram._upper_bounds), tuple(_Cell(bucket).add for bucket in histogram._buckets)  # noqa: SLF001
    add = _Cell(histogram._sum).add  # noqa: SLF001

    def observe(amount: float) -> None:
        add(amount)
        count_up[bisect_left(bounds, amount)](1)

    return observe


class _Bounded:
    """Series made once and kept; at the bound the next ones share "other". Words that are no plain names are "other" at once."""

    def __init__(self, most: int, make: Callable[..., Any]) -> None:
        self._most, self._make = most, make
        self._made: dict[tuple[str, ...], Any] = {}

    def of(self, *labels: str) -> Any:
        try:
            return self._made[labels]
        except KeyError:
            return self._new(labels)

    def _new(self, labels: tuple[str, ...]) -> Any:
        if len(self._made) < self._most and all(_PLAIN.fullmatch(label) or label.isdigit() for label in labels):
            series = self._made[labels] = self._make(*labels)
            return series
        other = (_OTHER,) * len(labels)
        if other not in self._made:
            self._made[other] = self._make(*other)
        return self._made[other]


def _make_instruments(folder: Path) -> dict[str, Any]:
    """prometheus_client decides at import, by this variable, where values live; and reads it again for each new file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # noqa: TID251  it takes its folder no other way
    from prometheus_client import Counter, Gauge, Histogram, values

    vars(values)["ValueClass"] = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # whoever imported it before us
    made: dict[str, Any] = {}
    for it in instruments():
        if it.kind is Kind.COUNTER:
            made[it.name] = Counter(it.name, it.help, it.labels, registry=None)
        elif it.kind is Kind.HISTOGRAM:
            made[it.name] = Histogram(it.name, it.help, it.labels, registry=None, buckets=it.buckets)
        elif it.kind is not Kind.READING:
            made[it.name] = Gauge(it.name, it.help, it.labels, registry=None, multiprocess_mode=_mode(it))
    return made


def _mode(instrument: Instrument) -> Any:
    return instrument.kind.value
