"""Health as a list of probes handed in: this room knows how to ask, not what there is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_log = structlog.get_logger(__name__)


class Status(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`details` are shown to anybody who asks `/health`: no secrets, no tenants."""

    status: Status
    details: Mapping[str, Any] = field(default_factory=dict)


class HealthProbe(Protocol):
    """One thing that can be well or not."""

    @property
    def name(self) -> str:
        """Its key in `/health`: "database", "spool"."""

    @property
    def vital(self) -> bool:
        """Whether nothing can be answered without it; else its fall is a degradation of the whole."""

    async def check(self) -> ProbeResult: ...


@dataclass(frozen=True, slots=True)
class HealthReport:
    status: Status
    probes: Mapping[str, ProbeResult]  # by name, in the order asked

    @classmethod
    async def collect(cls, probes: Sequence[HealthProbe], timeout_s: float) -> HealthReport:
        """What all `probes` say, asked at once; who has not answered after `timeout_s` seconds is down. Raises nothing of theirs."""
        tasks = [asyncio.create_task(_asked(probe)) for probe in probes]
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=timeout_s)
            finally:
                for task in tasks:
                    task.cancel()  # not waited for: one that will not end must not hold the others' answers back
        results = {
            probe.name: task.result() if task.done() and not task.cancelled() else ProbeResult(Status.DOWN, {"error": "timeout"})
            for probe, task in zip(probes, tasks, strict=True)
        }
        return cls(_overall(probes, results), results)


async def _asked(probe: HealthProbe) -> ProbeResult:
    try:
        return await probe.check()
    except Exception as error:  # noqa: BLE001  a probe's failure is an answer
        _log.warning("health.probe_failed", probe=probe.name, error=type(error).__name__)
        return ProbeResult(Status.DOWN, {"error": type(error).__name__})


def _overall(probes: Sequence[HealthProbe], results: Mapping[str, ProbeResult]) -> Status:
    if any(probe.vital and results[probe.name].status is Status.DOWN for probe in probes):
        return Status.DOWN
    if any(result.status is not Status.OK for result in results.values()):
        return Status.DEGRADED
    return Status.OK
