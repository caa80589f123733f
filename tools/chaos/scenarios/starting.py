"""Row 10: PostgreSQL away at the start, with a last good state on the disk and without one."""

from __future__ import annotations

import shutil
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from app.kernel.home import LAST_GOOD
from tools.chaos.faults import until
from tools.chaos.figures import stretch
from tools.chaos.rows import Claim
from tools.chaos.scenarios.common import DRAINED_WITHIN_S, answered, clean, within
from tools.chaos.world import READY_WITHIN_S, Kind

if TYPE_CHECKING:
    from tools.chaos.rows import Stage
    from tools.chaos.world import World

_ALIVE_WITHIN_S = 20.0


def away_at_the_start(stage: Stage) -> list[Claim]:
    world = stage.world(Kind.EXTERNAL)
    assert world.cluster is not None
    with world.load("r10-") as before:
        time.sleep(stage.seconds)
    world.drained()
    world.stop()
    usual = world.start()
    world.stop()
    world.cluster.stop()
    try:
        ready = world.start(30)
        told = world.health()["status"]
        with world.load("r10b-") as load:
            time.sleep(stage.seconds)
    finally:
        world.cluster.start()
    took = world.drained(DRAINED_WITHIN_S)
    return [
        Claim(ready <= max(5.0, 1.5 * usual), f"ready after {ready:.1f} s (with the database {usual:.1f} s)", timed=True),
        Claim(told == "degraded", f"health says {told}"),
        answered(stretch(load.tried)),
        within("drained", took, DRAINED_WITHIN_S),
        *clean(stage, world, [*before.operations, *load.operations])[1:],
    ]


def away_without_a_state(stage: Stage) -> list[Claim]:
    """The same with an empty disk: there is nothing to answer by, which is said, and nobody dies of it."""
    world = stage.world(Kind.EXTERNAL)
    assert world.cluster is not None
    world.drained()
    world.stop()
    state = world.home / LAST_GOOD
    state.rename(aside := world.folder / "last-good-aside")
    world.cluster.stop()
    try:
        world.launch()
        alive = until(lambda: _status(world, "/livez") == HTTPStatus.OK, _ALIVE_WITHIN_S)
        until(lambda: "no_last_good_state" in world.said(), _ALIVE_WITHIN_S)
        unready, parent = _status(world, "/readyz"), world.service.process.pid
        with world.load("r10c-", share=0.1) as load:
            time.sleep(stage.seconds)
    finally:
        world.cluster.start()
    ready = until(world.ready, READY_WITHIN_S)
    refused = stretch(load.tried)
    shutil.rmtree(aside)
    with world.load("r10d-") as after:
        time.sleep(stage.seconds)
    return [
        within("without a last good state: alive", alive, _ALIVE_WITHIN_S),
        Claim(unready == HTTPStatus.SERVICE_UNAVAILABLE, f"/readyz {unready}"),
        Claim(set(refused.codes) == {"UNAVAILABLE"} and not refused.answered, f"{refused.codes}, {refused.answered} answered"),
        within("ready by itself once it is back,", ready, DRAINED_WITHIN_S),
        Claim(world.service.process.pid == parent and "starting it again" not in world.said(), "nobody died of waiting"),
        answered(stretch(after.tried)),
        *clean(stage, world, [*load.operations, *after.operations]),
    ]


def _status(world: World, path: str) -> int:
    """0 where nobody answers."""
    try:
        return httpx.get(f"{world.service.url}{path}", timeout=2).status_code
    except httpx.TransportError:
        return 0
