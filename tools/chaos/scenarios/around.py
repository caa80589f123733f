"""Rows 13 to 15 and 25: the store of shared limits, the flag server, clocks."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sklearn.linear_model import LogisticRegression

from tests.support.flag_server import FlagServer
from tests.support.unleash_features import document, feature, on, strategy, variant
from tests.support.valkey import own_valkey
from tools.chaos.faults import until
from tools.chaos.figures import stretch
from tools.chaos.history import Outcome
from tools.chaos.load import Caller, Load
from tools.chaos.rows import Claim, Row, by_tests
from tools.chaos.scenarios.common import NOISE_MS, answered, clean
from tools.chaos.world import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.chaos.rows import Stage
    from tools.chaos.world import World

_LIMIT = 50  # requests a second, and as many at once
_PATIENCE_MS = 35.0
_FLAGGED = "flagged"


def limits_store(stage: Stage) -> list[Claim]:
    with own_valkey() as valkey:
        world = stage.own_world(Kind.EMBEDDED, {"TURNOUT_REDIS_URL": valkey.url})
        try:
            limited = world.new_caller("limited", requestsPerSecond=_LIMIT, burst=_LIMIT)
            time.sleep(2.0)  # machines are counted by their heartbeats
            return [
                *_store(stage, world, limited, "frozen", valkey.freeze, valkey.thaw),
                *_store(stage, world, limited, "killed", valkey.kill, valkey.start),
            ]
        finally:
            world.close()


def _store(stage: Stage, world: World, limited: Caller, what: str, fault: Callable[[], None], heal: Callable[[], None]) -> list[Claim]:
    length, turns = max(4.0, stage.seconds), [0.0]
    world.begin()
    with world.load(f"r13{what}-", share=0.5) as load, Load([world.port], [limited], 4 * _LIMIT, 4) as greedy:
        time.sleep(stage.seconds)
        at = time.monotonic()
        fault()
        while time.monotonic() < at + length:
            turns.append(world.metric("turnout_loop_turn_seconds"))
            time.sleep(0.2)
        gone = time.monotonic()
        heal()
    before, during = stretch(load.between(0, at)), stretch(load.between(at, gone))
    accepted = sum(tried.operation.outcome is Outcome.OK for tried in greedy.between(at, gone))
    most = 1.1 * (_LIMIT + _LIMIT * (gone - at))
    added = during.p99_ms - before.p99_ms
    return [
        answered(during),
        Claim(added <= _PATIENCE_MS + NOISE_MS, f"{what}: p99 {added:+.0f} ms"),
        Claim(max(turns) < 0.1, f"slowest turn of the loop {1000 * max(turns):.0f} ms"),
        Claim(0 < accepted <= most, f"{accepted} of at most {most:.0f} accepted of a limited tenant"),
        *clean(stage, world, load.operations),
    ]


@contextmanager
def _flagged(stage: Stage) -> Iterator[tuple[World, FlagServer, Caller]]:
    """A world whose tenant `north` has a model whose versions an Unleash server's flag chooses, half and half."""
    flags = FlagServer()
    settings = {"TURNOUT_UNLEASH_URL": flags.url, "TURNOUT_UNLEASH_TOKEN": "default:development.chaos", "TURNOUT_UNLEASH_REFRESH_S": "1"}
    try:
        world = stage.own_world(Kind.EMBEDDED, settings)
        try:
            north = world.tenants["north"]
            model = LogisticRegression().fit([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [0, 1])
            north.serve(_FLAGGED, "CLASSIFICATION", model)
            north.ready(_FLAGGED, "CLASSIFICATION", LogisticRegression(C=0.1).fit([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [0, 1]))
            arms = [variant("v1", 500, {"version": 1, "control": True}), variant("v2", 500, {"version": 2})]
            flags.give(document(feature(f"model.{_FLAGGED}", strategy(on("north"), group=f"model.{_FLAGGED}", variants=arms)), revision=7))
            caller = Caller("north", north.token, _FLAGGED, (0.4, -0.2, 0.1))
            if until(lambda: len(set(_arms(world, caller).values())) == 2, 20) is None:
                raise RuntimeError("the flag server's flag decides nothing")
            world.begin()
            yield world, flags, caller
        finally:
            world.close()
    finally:
        flags.stop()


def _arms(world: World, caller: Caller) -> dict[str, str | None]:
    """Unit -> variant, asked once each; None where an answer names none."""
    found: dict[str, str | None] = {}
    ask = f'query($row: FeatureRow!, $unit: ID) {{ predict(model: "{caller.model}", features: $row, unit: $unit) {{ variant }} }}'
    for number in range(20):
        answer = world.tenants["north"].post(ask, row=list(caller.row), unit=f"arm-{number}").json()
        found[f"arm-{number}"] = None if answer.get("errors") else answer["data"]["predict"]["variant"]
    return found


def flags_away_at_the_start(stage: Stage) -> list[Claim]:
    with _flagged(stage) as (world, flags, caller):
        before = _arms(world, caller)
        world.stop()
        flags.answer = (503, b"")
        ready = world.start()
        after = _arms(world, caller)
        time.sleep(2.0)
        later = _arms(world, caller)
        changed = sum(before[unit] != after[unit] or before[unit] != later[unit] for unit in before)
        return [Claim(ready < 60, f"ready after {ready:.1f} s"), Claim(changed == 0, f"{changed} of {len(before)} units changed arm")]


def flags_away_and_wrong(stage: Stage) -> list[Claim]:
    with _flagged(stage) as (world, flags, caller):
        before = _arms(world, caller)
        with Load([world.port], [caller], min(200.0, world.per_s), 8, "r15-") as load:
            for answer in ((503, b""), (200, b"<html>"), (200, b'{"version": 2, "features": [{"name": 5}]}'), (401, b"{}")):
                flags.answer = answer
                time.sleep(max(2.0, stage.seconds / 2))
        changed = sum(before[unit] != arm for unit, arm in _arms(world, caller).items())
        figures = stretch(load.tried)
        told = world.health()["flags"]
        return [
            Claim(figures.failed == 0, f"{figures.failed} of {figures.asked} requests failed"),
            Claim(changed == 0, f"{changed} of {len(before)} units changed arm"),
            Claim(told["silent"] or told["refused"], f"health: silent {told['silent']}, refused {told['refused']}"),
        ]


_CLOCKS = "clocks_may_differ or began_anew or stretch_of_time or full_again_after_one_window or border_finds_its_day or utc_day"
ROWS = [
    Row(
        13,
        "the store of shared limits frozen, then killed",
        "each machine holds its share",
        "≥ 99.9 % answered; p99 + 35 ms at the most; no turn of the loop of 100 ms; a limited tenant gets ≤ 1.1 × its limit; checker 0",
        limits_store,
    ),
    Row(14, "the flag server away at the start", "the last good flags", "ready; no unit changes arm", flags_away_at_the_start),
    Row(
        15,
        "the flag server away, then wrong: errors, HTML, malformed documents, refusals",
        "the last good flags stay; the state is told",
        "0 failed requests; no unit changes arm; health says so",
        flags_away_and_wrong,
    ),
    Row(
        25,
        "clocks ±10 minutes, steps back (injected)",
        "monotonic time for limits; 30 s of leeway for tokens; days of the log by the id's time",
        "all of: no flip within the leeway; a limiter is never frozen for more than a window; a row finds its day",
        by_tests("tests/unit/tenancy", "tests/integration/journal/test_table.py", words=_CLOCKS),
    ),
]
