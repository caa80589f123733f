"""What a row of the table is, and how one is run: bounded, and with whatever it raises counted as a failure."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tests.support.service import ROOT
from tools.chaos.world import Kind, World

if TYPE_CHECKING:
    from collections.abc import Callable

_PYTEST_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One part of a pass line, with what was measured. `timed`: about how long something took, which a busy machine decides, too."""

    holds: bool
    measured: str
    timed: bool = False


class Skipped(Exception):
    """Cannot be done on this machine; the text says why."""


class Outcome(StrEnum):
    PASS = "pass"
    FAIL = "FAIL"
    SKIP = "skipped"


@dataclass(frozen=True, slots=True)
class Row:
    """One fault test. The texts go into the table as they are; `run` gives the claims of the pass line."""

    number: int
    fault: str
    expected: str
    pass_line: str
    run: Callable[[Stage], list[Claim]]
    headline: bool = False  # one of those by which the whole is judged: run beside its row's number


@dataclass(frozen=True, slots=True)
class Result:
    row: Row
    outcome: Outcome
    measured: str
    took_s: float


@dataclass
class Stage:
    """What rows share: how long to load, the worlds (made when first asked for, kept), a voice."""

    seconds: float = 5.0  # of load around a fault; what a pass line names by itself is as long as it says
    kills: int = 50
    outage_s: float = 60.0
    say: Callable[[str], None] = print
    one_awake: bool = True  # a world that sleeps takes nothing from the one that is measured
    _worlds: dict[Kind, World] = field(default_factory=dict)

    def world(self, kind: Kind = Kind.EMBEDDED) -> World:
        """A world of this kind, running and with a history that begins now; the other one sleeps meanwhile."""
        for other, world in self._worlds.items():
            if other is not kind and self.one_awake:
                world.stop()
        if kind not in self._worlds:
            self.say(f"  making the {kind} world: a service, four tenants, eight versions, four experiments")
            self._worlds[kind] = World(kind)
            self._worlds[kind].build()
        world = self._worlds[kind].awake()
        world.begin()
        return world

    def own_world(self, kind: Kind, settings: dict[str, str] | None = None, cluster: dict[str, str] | None = None) -> World:
        """One with settings of its own, which the caller closes."""
        for other in self._worlds.values():
            other.stop()
        world = World(kind, settings, cluster)
        try:
            world.build()
            world.begin()
        except BaseException:
            world.close()
            raise
        return world

    def forget(self) -> None:
        """Every world is thrown away: after a row that failed, nobody knows what it left."""
        for world in self._worlds.values():
            world.close()
        self._worlds.clear()


def run_row(row: Row, stage: Stage) -> Result:
    """Never raises but KeyboardInterrupt."""
    began = time.monotonic()
    try:
        claims = row.run(stage)
    except Skipped as reason:
        return Result(row, Outcome.SKIP, str(reason), time.monotonic() - began)
    except Exception as error:  # noqa: BLE001  a row that breaks down has failed
        stage.say(traceback.format_exc(limit=-2))
        stage.forget()
        return Result(row, Outcome.FAIL, f"{type(error).__name__}: {str(error)[-160:]}", time.monotonic() - began)
    holds = all(claim.holds for claim in claims)
    if not holds:
        stage.forget()
    measured = "; ".join(claim.measured if claim.holds else f"**{claim.measured}**" for claim in claims)
    return Result(row, Outcome.PASS if holds else Outcome.FAIL, measured, time.monotonic() - began)


def beside(*runs: Callable[[Stage], list[Claim]]) -> Callable[[Stage], list[Claim]]:
    """All of these, their claims one after the other."""
    return lambda stage: [claim for run in runs for claim in run(stage)]


def by_tests(*which: str, words: str = "") -> Callable[[Stage], list[Claim]]:
    """A row that tests of the suite hold already: they are run, and must all pass. `words` as pytest's -k."""

    def run(stage: Stage) -> list[Claim]:
        stage.say(f"  running {', '.join(which)}")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *which]
        done = subprocess.run(
            [*command, "-k", words] if words else command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_PYTEST_WITHIN_S
        )
        summary = (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]
        if done.returncode:
            stage.say(done.stdout[-2000:])
        passed = re.search(r"(\d+) passed", summary)
        told = f"{passed[1] if passed else 0} tests passed" if done.returncode == 0 else re.sub(r" in [0-9.]+s.*", "", summary).strip("= ")
        return [Claim(done.returncode == 0 and passed is not None, told)]

    return run
