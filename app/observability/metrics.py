"""Counting and timing in several processes that one `/metrics` shows as one service.

Each process writes to files of its own below one folder (the multi-process mode of prometheus_client); whoever is asked adds
them up. What a process counted outlives it: `forget_process` moves its totals to the archive, so that no counter ever falls
while the service runs.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from app.observability.instruments import Instrument, Kind, instruments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_PREDICTION_SERIES = 1000  # combinations of tenant, model, version and runtime a process; the rest is "other"
_MAX_SERIES = 100
_OTHER = "other"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Telemetry:
    """The instruments of this process; one a process, made before requests are served. `folder`: the machine's metrics folder."""

    def __init__(self, folder: Path) -> None:
        made = _make_instruments(folder)
        self._request = _Bounded(_MAX_SERIES, lambda operation: _Timed(made["turnout_request_seconds"].labels(operation)))
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
                _Timed(made["turnout_prediction_seconds"].labels(*labels)),
                _cell(made["turnout_prediction_rows_total"].labels(*labels)._value),  # noqa: SLF001  as in _cell
            ),
        )
        self._fallen = _Bounded(_MAX_SERIES, lambda *labels: made["turnout_fallbacks_total"].labels(*labels).inc)
        self._breaker_changes = _Bounded(_MAX_SERIES, lambda state: made["turnout_breaker_changes_total"].labels(state).inc)
        self._breakers_open = made["turnout_breakers_open"]
        self._quarantined = made["turnout_quarantined_inputs_total"]
        self._in_flight = _cell(made["turnout_requests_in_flight"]._value)  # noqa: SLF001  as in _cell
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
        self._request[operation,].observe(seconds)
        if code not in {None, "OK"}:
            self.error(operation, code)

    def error(self, operation: str, code: str) -> None:
        """One error sent; a request may have several."""
        self._error[operation, code](1)

    def prediction(self, *, tenant: str, model: str, version: int, seconds: float, rows: int, runtime: str) -> None:
        """One prediction of `rows` rows that took its model `seconds`. Beyond a thousand series it counts as "other"."""
        timed, counted = self._prediction[tenant, model, version, runtime]
        timed.observe(seconds)
        counted[0] += rows

    def in_flight(self, change: int) -> None:
        """+1 when a request begins, -1 when it ends."""
        self._in_flight[0] += change

    def turned_away(self, reason: str) -> None:
        """One request not begun for want of room: "busy", "share", "full", "late", "admin", "upload" or "bodies"."""
        self._turned_away[reason,](1)

    def serving(self, connections: int, turn_s: float) -> None:
        """So many connections are open, and the event loop takes so long for one turn."""
        self._connections.set(connections)
        self._turn.set(turn_s)

    def connection_closed(self, reason: str) -> None:
        """One connection that the service ended or did not take: "head", "idle", "send", "full" or "address"."""
        self._connections_closed[reason,](1)

    def models_loaded(self, count: int, held_bytes: int) -> None:
        """So many versions are open, and take about so much memory."""
        self._loaded.set(count)
        self._memory.set(held_bytes)

    def live_proof(self, outcome: str) -> None:
        """One compiled answer that was to be compared: "equal", "mismatch", "failed" or "dropped"."""
        self._live_proofs[outcome,](1)

    def flag_fallback(self, reason: str) -> None:
        """One request that its variant could not answer, and production did: "missing", "not_open", "unusable" or "failed"."""
        self._fallbacks[reason,](1)

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
        self._shared_limits[outcome,](count)

    def shadow(self, kind: str, outcome: str) -> None:
        """One answer that was to be given beside another: "SHADOW" or "COVARIATE", and "answered", "refused", "missing", "not_open",
        "failed" or "dropped".
        """
        self._shadows[kind, outcome](1)

    def fallback(self, kind: str, outcome: str) -> None:
        """One request whose version failed: its model's kind of fallback, and "answered", "failed" or "missing"."""
        self._fallen[kind, outcome](1)

    def breaker(self, state: str, not_closed: int) -> None:
        """One breaker that became "CLOSED", "OPEN" or "HALF_OPEN"; and how many are not closed now."""
        self._breaker_changes[state,](1)
        self._breakers_open.set(not_closed)

    def input_quarantined(self) -> None:
        """One input that is refused from now on."""
        self._quarantined.inc()

    def worker_died(self, reason: str) -> None:
        """One model worker ended by itself, or was killed: "deadline", "memory", "signal"."""
        self._deaths[reason,](1)

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
        self._committed[outcome,](records)


def _cell(value: Any) -> memoryview[float]:
    """One number of prometheus_client's file, changed in place at [0]. For numbers that the event loop's thread alone changes.

    Its own `inc` takes a lock, asks for the process's id and looks the place up, on each of the seven numbers of a request. A file
    that grows is mapped anew; the map from before shows the same bytes.
    """
    file = value._file  # noqa: SLF001  there is no public way to the place of a number
    at = file._positions[value._key]  # noqa: SLF001
    return memoryview(file._m)[at : at + 8].cast("d")  # noqa: SLF001


class _Timed:
    """One histogram."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, histogram: Any) -> None:
        self._bounds = tuple(histogram._upper_bounds)  # noqa: SLF001
        self._counts = tuple(map(_cell, histogram._buckets))  # noqa: SLF001
        self._sum = _cell(histogram._sum)  # noqa: SLF001

    def observe(self, amount: float) -> None:
        self._sum[0] += amount
        self._counts[bisect_left(self._bounds, amount)][0] += 1


class _Bounded(dict[tuple[str | int, ...], Any]):
    """Series by their labels, made once and kept; at the bound the next ones share "other", as words that are no plain names do at once."""

    def __init__(self, most: int, make: Callable[..., Any]) -> None:
        super().__init__()
        self._most, self._make = most, make

    def __missing__(self, labels: tuple[str | int, ...]) -> Any:
        if len(self) >= self._most or not all(map(_is_plain, labels)):
            labels = (_OTHER,) * len(labels)
        if labels not in self:
            self[labels] = self._make(*labels)
        return self[labels]


def _is_plain(label: str | int) -> bool:
    return isinstance(label, int) or _PLAIN.fullmatch(label) is not None or label.isdigit()


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
