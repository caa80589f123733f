"""Rows 16 and 17: a disk that is full, a spool that ends in the middle of a record."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from app.journal.layout import segments_of, writer_folders
from tools.chaos.faults import SERVING, fill, full_disk, kill_everything, pids_of, small_disk, until
from tools.chaos.figures import stretch
from tools.chaos.history import Outcome
from tools.chaos.load import Load
from tools.chaos.rows import Claim, Row, beside, by_tests
from tools.chaos.scenarios.common import PATIENCE_S, clean, within
from tools.chaos.world import TENANTS

if TYPE_CHECKING:
    from tools.chaos.figures import Stretch
    from tools.chaos.load import Tried
    from tools.chaos.rows import Stage
    from tools.chaos.world import World

_DURABILITY = """mutation($tenant: String!, $durability: Durability!) {
  updateTenantSettings(tenant: $tenant, settings: {durability: $durability}) { id } }"""
_FULL_FOR_S = 3.0
_OVERFLOWS_WITHIN_S = 40.0
_SMALL_DISK_BYTES = 8 << 20


def full_while_durable(stage: Stage) -> list[Claim]:
    world = stage.world()
    with world.load("r16-") as load:
        time.sleep(stage.seconds)
        with full_disk(pids_of(world.service, SERVING)):
            at = time.monotonic()
            time.sleep(_FULL_FOR_S)
            end = time.monotonic()
        again = until(lambda: any(_is_answered(tried) for tried in load.between(end, time.monotonic())), PATIENCE_S)
        time.sleep(stage.seconds)
    during, after = _while_full(load, at, end), stretch(load.between(end + 2.0, time.monotonic()))
    return [
        Claim(set(during.codes) == {"LOG_UNAVAILABLE"} and not during.answered, f"DURABLE: {during.codes}, {during.answered} answered"),
        Claim(again is not None, "answered again" if again is not None else "never answered again"),
        Claim(after.failed == 0, f"{after.failed} of {after.asked} refused from 2 s after there was room", timed=True),
        *clean(stage, world, load.operations),
    ]


def _while_full(load: Load, at: float, end: float) -> Stretch:
    """What was asked and answered between: what was asked at the very end may have found room."""
    return stretch([tried for tried in load.between(at + 0.2, end) if tried.at + tried.took_s < end])


def _is_answered(tried: Tried) -> bool:
    return tried.operation.outcome is Outcome.OK


def full_while_buffered(stage: Stage) -> list[Claim]:
    """Answers go on; what the buffer cannot keep is counted, and nothing else is missing. Asked is a model without an experiment: what is
    said beside answers is dropped and counted, too.
    """
    world = stage.world()
    callers = [world.plain_caller()]
    _set_durability(world, "BUFFERED")
    try:
        dropped_before = world.metric("turnout_journal_dropped_records_total")
        with Load([world.port], callers, 0.0, 16, "r16b-") as load:
            with full_disk(pids_of(world.service, SERVING)):
                overflow = until(
                    lambda: world.metric("turnout_journal_dropped_records_total") > dropped_before + 50, _OVERFLOWS_WITHIN_S, 0.5
                )
            time.sleep(1.0)
        time.sleep(2.0)  # what is buffered is written half a second later
        world.drained()
        dropped = world.metric("turnout_journal_dropped_records_total") - dropped_before
        verdict, figures = world.verdict(load.operations), stretch(load.tried)
    finally:
        _set_durability(world, "DURABLE")
    others = verdict.counts[1:]
    return [
        within("BUFFERED: the buffer overflowed", overflow, _OVERFLOWS_WITHIN_S),
        Claim(figures.failed == 0, f"{figures.failed} of {figures.asked} refused"),
        Claim(len(verdict.lost) == dropped, f"{len(verdict.lost)} rows missing, {dropped:.0f} counted as dropped"),
        Claim(not any(others), f"checker beside {' / '.join(map(str, others))}"),
    ]


def full_tmpfs(stage: Stage) -> list[Claim]:
    """The spool on a file system of its own that is really full: other bytes took all there was. Mounting one needs root."""
    world = stage.world()
    world.drained()
    world.stop()
    with small_disk(world.spool, _SMALL_DISK_BYTES) as why_not:
        if why_not is not None:
            return [Claim(holds=True, measured=f"a full tmpfs: skipped, {why_not}")]
        world.start()
        try:
            with world.load("r16t-") as load:
                time.sleep(stage.seconds)
                filler = world.spool / "filler"
                fill(filler)
                at = time.monotonic()
                time.sleep(_FULL_FOR_S)
                end = time.monotonic()
                filler.unlink()
                time.sleep(2.0 + stage.seconds)
            during, after = _while_full(load, at, end), stretch(load.between(end + 2.0, time.monotonic()))
            told = clean(stage, world, load.operations)
        finally:
            world.stop()  # before the disk goes
    return [
        Claim(
            set(during.codes) <= {"LOG_UNAVAILABLE"} and during.failed > 0,
            f"a full tmpfs of {_SMALL_DISK_BYTES >> 20} MiB: {during.codes}, {during.answered} answered",
        ),
        Claim(after.failed == 0, f"{after.failed} of {after.asked} refused from 2 s after there was room"),
        *told,
    ]


def _set_durability(world: World, durability: str) -> None:
    operator = world.service.client("platform", "OPERATOR")
    operator.ask(_DURABILITY, tenant=TENANTS[0], durability=durability)
    time.sleep(1.5)  # every process has heard of it


def torn(stage: Stage) -> list[Claim]:
    """After kill -9 of everything each open segment gets the beginning of one more record, as a write that was cut off leaves it."""
    world = stage.world()
    with world.load("r17-") as load:
        time.sleep(stage.seconds)
        until(lambda: any(map(_is_answered, list(load.tried))), PATIENCE_S)  # so that there is something to tear
        kill_everything(world.service)
    tears = 0
    for folder in writer_folders(world.spool):
        for segment in segments_of(folder):
            data = segment.path.read_bytes()
            if len(data) > 100:
                with segment.path.open("ab") as file:
                    file.write(data[: random.randint(1, 60)])
                tears += 1
    world.start()
    return [Claim(tears > 0, f"{tears} segments torn after a crash"), *clean(stage, world, load.operations)]


_JOURNAL_TESTS = "tests/integration/journal/test_journal.py"
_TORN = "every_byte or flipped_bit or damaged or torn or zeros or rubbish"
ROWS = [
    Row(
        16,
        "no room on the disk for the spool (RLIMIT_FSIZE of running processes; a small tmpfs that is full)",
        "DURABLE: refused before predicting; BUFFERED: answered, and what is lost is counted",
        "no silent loss: LOG_UNAVAILABLE alone, checker 0; rows missing = records counted as dropped",
        beside(
            full_while_durable, full_while_buffered, full_tmpfs, by_tests("tests/integration/journal/test_journal.py", words="full_disk")
        ),
    ),
    Row(
        17,
        "the spool torn at every byte of its last record; bits flipped; tails of a cut-off write after kill -9",
        "reading stops at the tear; everything else is replayed",
        "all whole records at every cut; checker 0",
        beside(torn, by_tests("tests/unit/journal", words=_TORN)),
    ),
]
