"""Rows 1 to 3: processes that are killed or asked to end."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from typing import TYPE_CHECKING

from tools.chaos.faults import SERVING, is_alive, kill_everything, pids_of, until
from tools.chaos.figures import stretch
from tools.chaos.history import Outcome
from tools.chaos.rows import Claim, Row
from tools.chaos.scenarios.common import PATIENCE_S, clean, within
from tools.chaos.world import Kind

if TYPE_CHECKING:
    from tools.chaos.load import Load
    from tools.chaos.rows import Stage

_ALIVE_S = (0.3, 3.0)  # how long a service lives before it is killed, counted from when it was ready
_BOOTING_S = (0.2, 2.5)  # ... or from its start: every fourth one dies while it boots


def kill_a_serving_process(stage: Stage) -> list[Claim]:
    world = stage.world()
    with world.load("r1-") as load:
        time.sleep(stage.seconds)
        before = pids_of(world.service, SERVING)
        killed_at = time.monotonic()
        victim = random.choice(before)
        os.kill(victim, signal.SIGKILL)
        until(
            lambda: not is_alive(victim), PATIENCE_S, every_s=0.001
        )  # its connections are open until the kernel has cleared its memory away
        gone_at = time.monotonic()
        replaced = until(lambda: len(set(pids_of(world.service, SERVING)) - set(before)) == 1, PATIENCE_S)
        time.sleep(stage.seconds)
    bad = [tried for tried in load.tried if tried.operation.outcome is not Outcome.OK]
    in_flight = [tried for tried in load.tried if tried.at <= gone_at and tried.at + tried.took_s >= killed_at]
    return [
        Claim(len(bad) <= len(in_flight), f"{len(bad)} errors, {len(in_flight)} requests under way"),
        within("answers again", _silence(load, killed_at), 2.0),
        within("a new process", replaced, 5.0),
        *clean(stage, world, load.operations),
    ]


def _silence(load: Load, since: float) -> float:
    """The longest time without an answer after `since`."""
    ends = sorted(tried.at + tried.took_s for tried in load.tried if tried.operation.outcome is Outcome.OK)
    after = [since, *(end for end in ends if end > since)]
    return max((later - earlier for earlier, later in itertools.pairwise(after)), default=float("inf"))


def kill_everything_once(stage: Stage) -> list[Claim]:
    world = stage.world()
    world.stop()
    usual = world.start()
    with world.load("r2-") as load:
        time.sleep(stage.seconds)
        kill_everything(world.service)
    ready = world.start()
    return [
        Claim(ready <= max(5.0, 1.5 * usual), f"ready after {ready:.1f} s (after a clean stop {usual:.1f} s)", timed=True),
        *clean(stage, world, load.operations),
    ]


def kill_everything_often(stage: Stage) -> list[Claim]:
    """The clients go on through all of it: one history."""
    world = stage.world()
    began, slowest = time.monotonic(), 0.0
    with world.load("r2s-") as load:
        for number in range(1, stage.kills + 1):
            if number % 4:
                time.sleep(random.uniform(*_ALIVE_S))
            else:
                time.sleep(random.uniform(*_BOOTING_S))
            kill_everything(world.service)
            if (number + 1) % 4:
                slowest = max(slowest, world.start())
            else:
                world.launch()
            if number % 5 == 0:
                stage.say(f"  killed {number} times in {time.monotonic() - began:.0f} s; {len(load.tried)} requests so far")
        if not world.ready():
            until(world.ready, PATIENCE_S)
    figures = stretch(load.tried)
    unknown = sum(tried.operation.outcome is Outcome.UNKNOWN for tried in load.tried)
    told = f"killed {stage.kills} times, {figures.answered} answered, {unknown} unknown, ready after {slowest:.1f} s at the most"
    return [Claim(figures.answered > 0, told), *clean(stage, world, load.operations)]


def end_one_of_two_replicas(stage: Stage) -> list[Claim]:
    """Two machines on one database; a balancer that asks the other one where a connection is not taken."""
    world = stage.world(Kind.EXTERNAL)
    with world.beside() as other:
        exits = []
        with world.load("r3-", ports=[world.port, other.port]) as load:
            time.sleep(stage.seconds)
            for which in (other, world):
                began = time.monotonic()
                status = which.stop()
                exits.append((status, time.monotonic() - began))
                which.start()
                time.sleep(stage.seconds / 2)
        other.drained()
        figures = stretch(load.tried)
        slowest = max(took for _, took in exits)
        return [
            Claim(figures.failed == 0, f"{figures.failed} of {figures.asked} requests failed{_codes(figures.codes)}"),
            Claim(all(status == 0 for status, _ in exits), f"exit statuses {', '.join(str(status) for status, _ in exits)}"),
            Claim(slowest < 10.0, f"ended in {slowest:.1f} s at the most", timed=True),
            *clean(stage, world, load.operations),
        ]


def _codes(codes: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {code}' for code, count in sorted(codes.items()))})" if codes else ""


ROWS = [
    Row(
        1,
        "`kill -9` of one of two serving processes under load",
        "replaced by the parent; what it was answering is lost to its callers",
        "errors ≤ requests under way at that moment; answers again in 2 s; checker 0",
        kill_a_serving_process,
    ),
    Row(
        2,
        "`kill -9` of everything, the database too, between answers and their way into the log",
        "the spool is taken up at the next start",
        "ready in 5 s, or in half as long again as after a clean stop; checker 0",
        kill_everything_once,
    ),
    Row(
        2,
        "the same 50 times at random moments, every fourth while it boots, under load of four tenants",
        "one history over all of it",
        "checker 0 / 0 / 0 / 0 / 0",
        kill_everything_often,
        headline=True,
    ),
    Row(
        3,
        "SIGTERM to one of two machines under load, then to the other",
        "not ready, drained, flushed, ended",
        "0 failed requests; exit status 0 in 10 s; checker 0",
        end_one_of_two_replicas,
    ),
]
