"""The door to this machine's model host: versions made ready, artifacts inspected, confinement told."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import orjson

from app.errors import ModelUnavailable, Unavailable
from app.kernel.clock import SystemClock
from app.kernel.inspection import Confinement, InspectionReport, InspectionRequest, Undecided
from app.prediction.bulkheads import Gates
from app.prediction.features import LARGEST_ANSWER_CELLS, LARGEST_BATCH
from app.prediction.quarantine import LocalMarks, Quarantine
from app.prediction.runtimes.answers import read_report
from app.prediction.runtimes.calls import Version, describe_fate, is_killed_from_outside
from app.prediction.runtimes.channel import Channel, is_skops
from app.prediction.runtimes.sklearn import SklearnRuntime
from app.prediction.runtimes.zygote import ZygoteClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from uuid import UUID

    from app.kernel.signature import Signature, Task
    from app.prediction.bulkheads import TenantThreads
    from app.prediction.quarantine import Marks

_STARVED = 0.5  # of the time, spent computing: less of it says that the machine was slow, and nothing about the artifact


class ModelHost:
    """One a serving process; `socket_path` is where the model host listens. Knows it again after it was started anew.

    `threads`: where large batches are written out. `marks`: what is held against inputs, of all serving processes that share the host.
    `worker_died` is told "killed" (a call took too long) or "died" of each child that ends under a runtime, `input_quarantined` of each
    input that is refused since.
    """

    def __init__(
        self,
        socket_path: Path,
        worker_died: Callable[[str], None] = lambda _: None,
        threads: TenantThreads | None = None,
        marks: Marks | None = None,
        input_quarantined: Callable[[], None] = lambda: None,
    ) -> None:
        self._zygote = ZygoteClient(socket_path)
        self._worker_died = worker_died
        self._threads, self._gates = threads, Gates()
        self._marks = marks or LocalMarks(SystemClock())
        self._input_quarantined = input_quarantined

    async def open(
        self, tenant_id: UUID, digest: str, artifact: Path, signature: Signature, task: Task, classes: Sequence[str]
    ) -> SklearnRuntime:
        """A runtime whose child has loaded the artifact; raises ModelFailed with the reason, ModelUnavailable, or Unavailable for the host.

        All runtimes of one tenant and digest on this machine share a child. `artifact` is read again whenever a child is replaced.
        """
        rows_a_call = min(LARGEST_BATCH, max(1, LARGEST_ANSWER_CELLS // max(1, len(classes))))
        version = Version(f"{tenant_id}/{digest}", digest, artifact, signature, task, tuple(classes), rows_a_call)
        lane = None if self._threads is None else self._threads.of(tenant_id)
        gate, quarantine = self._gates.of(tenant_id), Quarantine(version.key, self._marks, self._input_quarantined)
        runtime = SklearnRuntime(self._zygote, version, self._worker_died, gate, quarantine, lane)
        await runtime.start()
        return runtime

    async def inspect(self, tenant_id: UUID, artifact: Path, request: InspectionRequest, timeout_s: float) -> InspectionReport:
        """What the artifact is; its faults are in the report and never raised. A child of its own, dead when this returns.

        Raises Unavailable where the model host is away, and Undecided where the child had too little of a processor or was killed from
        outside.
        """
        most_cpu_s = math.ceil(timeout_s) + 1
        question = {
            "op": "inspect",
            "cpu_s": most_cpu_s,
            "tenant": str(tenant_id),
            "skops": await asyncio.to_thread(is_skops, artifact),
        }
        sock, key, pid = await self._zygote.channel(question)
        channel = await Channel.connect(sock, lambda: None)
        try:
            async with asyncio.timeout(timeout_s):
                size = (await asyncio.to_thread(artifact.stat)).st_size
                answer = await channel.question({"op": "inspect", "size": size}, [orjson.dumps(request.to_json())], artifact)
            return read_report(answer)
        except TimeoutError:
            return _too_long(timeout_s, await self._fate(key, pid))
        except ConnectionError:
            return _died(most_cpu_s, await self._fate(key, pid))
        except OSError:
            raise ModelUnavailable("The artifact is not at hand on this machine.") from None
        finally:
            channel.close()
            await asyncio.shield(self._zygote.kill(key, pid))

    async def _fate(self, key: str, pid: int) -> dict[str, Any]:
        fate = await self._zygote.kill(key, pid)
        if "exit" not in fate:
            raise Unavailable("The model host of this machine went away during the inspection.") from None
        return fate

    async def confinement(self) -> Confinement:
        """What holds the children of this machine; raises Unavailable."""
        held = (await self.stats())["confinement"]
        return Confinement(seccomp=held["seccomp"], landlock_abi=held["landlock_abi"], own_uid=held["own_uid"])

    async def stats(self) -> dict[str, Any]:
        """`pid` of the host, `children` (key, pid, rss_bytes), `confinement`; raises Unavailable."""
        return await self._zygote.stats()

    async def close(self) -> None:
        """Nothing is held here: runtimes are closed one by one by whoever opened them."""


def _too_long(timeout_s: float, fate: dict[str, Any]) -> InspectionReport:
    """What is said of a child that computed and gave no answer in time. Raises Undecided of one that mostly waited for a processor."""
    used_s = fate.get("cpu_s", 0.0)
    if used_s < _STARVED * timeout_s:
        raise Undecided(f"The inspection had {used_s:.1f} seconds of a processor within {timeout_s:g}.")
    return InspectionReport.failed(f"The inspection took longer than {timeout_s:g} seconds and was stopped.")


def _died(most_cpu_s: int, fate: dict[str, Any]) -> InspectionReport:
    """What a child that ended early died of. Raises Undecided where something outside killed it: the machine may have been out of memory.

    The kernel kills a child that goes on beyond `most_cpu_s` with the same signal: that is the artifact's doing.
    """
    why = f"The artifact's process died during the inspection: {describe_fate(fate)}."
    if is_killed_from_outside(fate) and fate.get("cpu_s", 0.0) < most_cpu_s:
        raise Undecided(why)
    return InspectionReport.failed(why)
