"""Rows 4 to 12: PostgreSQL away, killed, frozen, full, slow, cut off, missing at the start, read-only, without a partition."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import httpx

from app.db.privileges import DatabaseRole
from tests.support.database import execute
from tests.support.proxy import Cut
from tools.chaos.faults import frozen, kill_all, until
from tools.chaos.figures import stretch
from tools.chaos.rows import Claim, Row, beside
from tools.chaos.scenarios.common import DRAINED_WITHIN_S, PATIENCE_S, answered, clean, not_slower, within
from tools.chaos.scenarios.starting import away_at_the_start, away_without_a_state
from tools.chaos.world import MODEL, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.chaos.load import Load, Tried
    from tools.chaos.rows import Stage
    from tools.chaos.world import World

_PROMOTE = 'mutation { promote(model: "%s", version: %d, alias: "chaos") { revision } }'
_READ = '{ model(name: "%s") { aliases { name revision } } }'
_PARTITION = """select c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_class c join pg_inherits i on i.inhrelid = c.oid
  where i.inhparent = 'predictions'::regclass and pg_get_expr(c.relpartbound, c.oid) like $1"""
_LEAST_CUTS = 6
_BREAKER_OPENS_S = 3.0  # within which a fault is noticed; afterwards nobody waits for the database any more
_ROLES = ("turnout_runtime", "turnout_log", "turnout_sync")


class Admin:
    """One who changes the registry again and again: what was acknowledged, how long the slowest took, how the others were refused."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.acknowledged, self.slowest_s = 0, 0.0
        self.refusals: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    @property
    def revision(self) -> int:
        """Of the alias, as the registry has it now."""
        data = self._world.tenants["north"].ask(_READ % MODEL)
        return next((alias["revision"] for alias in data["model"]["aliases"] if alias["name"] == "chaos"), 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(40)

    def _go_on(self) -> None:
        client, number = self._world.tenants["north"], 0
        while not self._stop.is_set():
            number += 1
            began = time.monotonic()
            try:
                answer = client.post(_PROMOTE % (MODEL, number % 2 + 1)).json()
            except (httpx.TransportError, ValueError):
                self.refusals.add("BROKEN")
            else:
                if errors := answer.get("errors"):
                    self.refusals.add(errors[0]["extensions"]["code"])
                else:
                    self.acknowledged = max(self.acknowledged, answer["data"]["promote"]["revision"])
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self._stop.wait(0.2)


@contextmanager
def _loaded(stage: Stage, world: World, label: str) -> Iterator[tuple[Load, float]]:
    """Load that has run for a while, and when the fault begins."""
    with world.load(label) as load:
        time.sleep(stage.seconds)
        yield load, time.monotonic()


def _before(load: Load, at: float) -> list[Tried]:
    return load.between(0, at)


def stopped(stage: Stage) -> list[Claim]:
    world = stage.world(Kind.EXTERNAL)
    assert world.cluster is not None
    with _loaded(stage, world, "r4-") as (load, at):
        world.cluster.stop()
        try:
            with Admin(world) as admin:
                time.sleep(stage.outage_s)
            gone = time.monotonic()
        finally:
            world.cluster.start()
        took = world.caught_up(PATIENCE_S)
        time.sleep(stage.seconds)
    during = stretch(load.between(at, gone))
    return [
        answered(during),
        not_slower(stretch(_before(load, at)), during, 2.0),
        Claim(admin.refusals <= {"UNAVAILABLE"} and not admin.acknowledged, f"registry: {_said(admin.refusals)}"),
        within("drained", took, DRAINED_WITHIN_S),
        *clean(stage, world, load.operations)[1:],
    ]


def killed(stage: Stage) -> list[Claim]:
    world = stage.world()
    with _loaded(stage, world, "r5-") as (load, at):
        with Admin(world) as admin:
            time.sleep(stage.seconds)
            kill_all(world.cluster_processes())
            time.sleep(stage.seconds)
            back = until(lambda: _answers(world), PATIENCE_S)
            time.sleep(stage.seconds)
        end = time.monotonic()
    during = stretch(load.between(at, end))
    revision = admin.revision
    told = f"{admin.acknowledged} changes acknowledged, {revision} there"
    return [
        answered(during),
        not_slower(stretch(_before(load, at)), during, 2.0),
        within("database again", back, 10.0),
        Claim(0 < admin.acknowledged <= revision, told),
        *clean(stage, world, load.operations, DRAINED_WITHIN_S),
    ]


def _answers(world: World) -> bool:
    try:
        return bool(execute(world.url(DatabaseRole.SYNC), "select 1"))
    except Exception:  # noqa: BLE001  in whatever way it is away
        return False


def frozen_database(stage: Stage) -> list[Claim]:
    world = stage.world(Kind.EXTERNAL)
    length = min(20.0, stage.outage_s)
    with _loaded(stage, world, "r6-") as (load, at):
        with frozen(world.cluster_processes()), Admin(world) as admin:
            time.sleep(length)
        thawed = time.monotonic()
        took = world.caught_up(PATIENCE_S)
    during = load.between(at, thawed)
    late = stretch(load.between(at + _BREAKER_OPENS_S, thawed))
    slowest = max(stretch(during).slowest_ms / 1000, admin.slowest_s)
    return [
        answered(stretch(during)),
        Claim(slowest <= 2.5, f"slowest request {slowest:.2f} s, registry changes among them", timed=True),
        not_slower(stretch(_before(load, at)), late, 2.0),
        within("drained", took, DRAINED_WITHIN_S),
        *clean(stage, world, load.operations)[1:],
    ]


def out_of_connections(stage: Stage) -> list[Claim]:
    """The roles may not log in any more and lose what they have: SQLSTATE 53300, as where max_connections is reached."""
    world = stage.world(Kind.EXTERNAL)
    length = max(10.0, 2 * stage.seconds)
    with _loaded(stage, world, "r7-") as (load, at):
        _super(world, *(f"alter role {role} connection limit 0" for role in _ROLES))
        _super(world, "select pg_terminate_backend(pid) from pg_stat_activity where usename like 'turnout_%'")
        tried = world.proxy.connections
        time.sleep(length)
        gone = time.monotonic()
        attempts = (world.proxy.connections - tried) / length
        _super(world, *(f"alter role {role} connection limit -1" for role in _ROLES))
        took = world.caught_up(PATIENCE_S)
    during = stretch(load.between(at, gone))
    return [
        answered(during),
        not_slower(stretch(_before(load, at)), during, 2.0),
        Claim(attempts <= 4.0, f"{attempts:.1f} attempts a second of all four processes that connect"),
        within("drained", took, DRAINED_WITHIN_S),
        *clean(stage, world, load.operations)[1:],
    ]


def slow(stage: Stage) -> list[Claim]:
    world = stage.world(Kind.EXTERNAL)
    with _loaded(stage, world, "r8-") as (load, at):
        world.proxy.delay_s = 0.2
        try:
            time.sleep(max(6.0, stage.seconds))
        finally:
            world.proxy.delay_s = 0.0
        gone = time.monotonic()
    during = stretch(load.between(at, gone))
    return [answered(during), not_slower(stretch(_before(load, at)), during, 1.2), *clean(stage, world, load.operations)]


def cut_in_a_commit(stage: Stage) -> list[Claim]:
    """The log's inserts commit by themselves: cut before the server hears of one, or after it was done and before anybody knows."""
    world = stage.world(Kind.EXTERNAL)
    with world.load("r9-") as load:
        planned = world.proxy.cuts
        for number in range(12):
            for what in ("insert into predictions", "commit"):
                world.proxy.cut_at(what, Cut.AFTER if number % 2 else Cut.BEFORE)
            time.sleep(max(0.3, stage.seconds / 6))
        until(lambda: world.proxy.cuts - planned >= _LEAST_CUTS, PATIENCE_S)
        world.proxy.forget_cuts()
        cuts = world.proxy.cuts - planned
    return [
        Claim(cuts >= _LEAST_CUTS, f"{cuts} commits cut"),
        answered(stretch(load.tried)),
        *clean(stage, world, load.operations),
    ]


def read_only(stage: Stage) -> list[Claim]:
    world = stage.world(Kind.EXTERNAL)
    with _loaded(stage, world, "r11-") as (load, at):
        _super(world, "alter system set default_transaction_read_only = on", "select pg_reload_conf()")
        try:
            with Admin(world) as admin:
                time.sleep(max(6.0, stage.seconds))
            gone = time.monotonic()
        finally:
            _super(
                world,
                "set default_transaction_read_only = off",
                "alter system reset default_transaction_read_only",
                "select pg_reload_conf()",
            )
        took = world.caught_up(PATIENCE_S)
    during = stretch(load.between(at, gone))
    return [
        answered(during),
        not_slower(stretch(_before(load, at)), during, 2.0),
        Claim(admin.refusals <= {"UNAVAILABLE"}, f"registry: {_said(admin.refusals)}"),
        within("drained", took, DRAINED_WITHIN_S),
        *clean(stage, world, load.operations)[1:],
    ]


def missing_partition(stage: Stage) -> list[Claim]:
    world = stage.world(Kind.EXTERNAL)
    days = [datetime.now(UTC).date() + timedelta(days=more) for more in range(2)]  # tomorrow's too: it may be midnight in a moment
    parts = [part for day in days for part in execute(world.superuser_url(), _PARTITION, f"%('{day.isoformat()}%TO%")]
    with _loaded(stage, world, "r12-") as (load, at):
        _super(world, *(f"alter table predictions detach partition {name}" for name, _ in parts))
        try:
            time.sleep(max(5.0, stage.seconds))
            until(lambda: world.health()["spool"].get("waitingFor"), PATIENCE_S)
            spool = world.health()["spool"]
            gone = time.monotonic()
        finally:
            _super(world, *(f"alter table predictions attach partition {name} {bounds}" for name, bounds in parts))
        took = world.caught_up(PATIENCE_S)
    during = stretch(load.between(at, gone))
    return [
        answered(during, 1.0),
        Claim(bool(spool.get("records") and spool.get("waitingFor")), f"health: {spool.get('records')} wait for {spool.get('waitingFor')}"),
        within("drained", took, DRAINED_WITHIN_S),
        *clean(stage, world, load.operations)[1:],
    ]


def _super(world: World, *statements: str) -> None:
    """As the cluster's superuser, past the proxy; a connection each, but what begins with `set` holds for those that follow."""
    settings = [each for each in statements if each.startswith("set ")]
    for statement in statements:
        if statement not in settings:
            world.as_superuser([*settings, statement])


def _said(codes: set[str]) -> str:
    return ", ".join(sorted(codes)) or "nothing refused"


def _row(number: int, fault: str, expected: str, pass_line: str, run: Callable[[Stage], list[Claim]]) -> Row:
    return Row(number, fault, expected, pass_line, run)


_AS_4 = "≥ 99.9 % answered, p99 < 2×, drained in 30 s of its return; checker 0"
ROWS = [
    _row(
        4,
        "PostgreSQL stopped for 60 s under load",
        "answers from memory; log to the spool; registry refused with UNAVAILABLE",
        _AS_4,
        stopped,
    ),
    _row(
        5,
        "`kill -9` of all of PostgreSQL under load",
        "started again by the parent",
        f"{_AS_4}; no acknowledged registry change lost",
        killed,
    ),
    _row(
        6,
        "PostgreSQL frozen for 20 s (SIGSTOP of all its processes)",
        "timeouts, then a breaker",
        "no request longer than 2.5 s, changes of the registry included; after 3 s p99 < 2×; ≥ 99.9 % answered; checker 0",
        frozen_database,
    ),
    _row(
        7,
        "PostgreSQL takes no more connections (53300) and drops those there are",
        "overload: no storm of attempts",
        "≤ 1 attempt a second for each process that connects (two that serve, the drain, the parent); as row 4",
        out_of_connections,
    ),
    _row(8, "PostgreSQL slower by 200 ms (proxy)", "only calls of the registry are slow", "≥ 99.9 % answered, p99 < 1.2×; checker 0", slow),
    _row(
        9,
        "connections cut in the middle of commits of the log (proxy), before and after the server did it",
        "what is not known to be there is written again",
        "at least 6 cuts; ≥ 99.9 % answered; checker 0",
        cut_in_a_commit,
    ),
    _row(
        10,
        "PostgreSQL away at the start",
        "starts by the last good state on the disk, and says degraded; without one it lives, and is not ready",
        "ready in 5 s, or in half as long again as with it; ≥ 99.9 % answered; drained in 30 s; checker 0; without a state: /livez 200, "
        "/readyz 503, UNAVAILABLE alone, ready in 30 s of the database's return, no process ended",
        beside(away_at_the_start, away_without_a_state),
    ),
    _row(11, "PostgreSQL read-only", "as row 4", _AS_4, read_only),
    _row(
        12,
        "today's partition of the log is missing",
        "spooled and said, no error",
        "100 % answered; drained once it is there; checker 0",
        missing_partition,
    ),
]
