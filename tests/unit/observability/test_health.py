from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from app.observability.health import HealthReport, ProbeResult, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.unit


@dataclass(frozen=True, slots=True)
class Probe:
    name: str
    answer: Callable[[], Awaitable[ProbeResult]]
    vital: bool = False

    async def check(self) -> ProbeResult:
        return await self.answer()


def saying(name: str, status: Status, *, vital: bool = False) -> Probe:
    async def answer() -> ProbeResult:
        return ProbeResult(status, {"seen": name})

    return Probe(name, answer, vital)


@pytest.mark.parametrize(
    ("probes", "status"),
    [
        ([], Status.OK),
        ([saying("a", Status.OK), saying("b", Status.OK, vital=True)], Status.OK),
        ([saying("a", Status.DEGRADED, vital=True)], Status.DEGRADED),
        ([saying("a", Status.DOWN), saying("b", Status.OK, vital=True)], Status.DEGRADED),
        ([saying("a", Status.OK), saying("b", Status.DOWN, vital=True)], Status.DOWN),
    ],
)
async def test_only_a_vital_part_takes_the_whole_down(probes: list[Probe], status: Status) -> None:
    report = await HealthReport.collect(probes, 5)

    assert report.status is status
    assert list(report.probes) == [probe.name for probe in probes]


async def test_probes_are_asked_at_once() -> None:
    meeting = asyncio.Barrier(3)

    async def meet() -> ProbeResult:
        await meeting.wait()
        return ProbeResult(Status.OK)

    report = await HealthReport.collect([Probe(name, meet) for name in "abc"], 5)

    assert report.status is Status.OK


async def test_a_probe_that_fails_is_down_and_its_text_is_not_shown() -> None:
    async def fail() -> ProbeResult:
        raise ValueError("postgresql://user:secret@host")

    async def cancelled() -> ProbeResult:
        raise asyncio.CancelledError

    report = await HealthReport.collect([Probe("a", fail), Probe("b", cancelled), saying("c", Status.OK)], 5)

    assert report.probes["a"] == ProbeResult(Status.DOWN, {"error": "ValueError"})
    assert report.probes["b"].status is Status.DOWN
    assert report.probes["c"].status is Status.OK


async def test_one_that_neither_answers_nor_ends_holds_nobody_back() -> None:
    released = asyncio.Event()

    async def stubborn() -> ProbeResult:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return ProbeResult(Status.OK)

    report = await HealthReport.collect([Probe("slow", stubborn), saying("b", Status.OK)], 0.01)
    released.set()

    assert report.probes["slow"] == ProbeResult(Status.DOWN, {"error": "timeout"})
    assert report.probes["b"].status is Status.OK


async def test_one_that_is_too_slow_is_told_to_stop() -> None:
    stopped = asyncio.Event()

    async def slow() -> ProbeResult:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ProbeResult(Status.OK)

    await HealthReport.collect([Probe("slow", slow)], 0.01)
    await stopped.wait()
