"""What `/health` asks: the database, the picture of routes, the model host, the spool; and what is loaded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from app.journal.depth import read_depth
from app.observability.health import ProbeResult, Status
from app.registry.liveness import listed_replicas

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from app.db.sync import SyncDatabase
    from app.experiments.unleash.source import UnleashFlagSource
    from app.kernel.clock import Clock
    from app.observability.health import HealthProbe
    from app.prediction.breakers import Breakers
    from app.prediction.follower import Follower
    from app.prediction.pool import RuntimePool
    from app.prediction.routing import RoutingTable
    from app.prediction.runtimes.host import ModelHost
    from app.tenancy.directory import TenantDirectory
    from app.tenancy.limits.budgets import Budgets

_STALE_AFTER_S = 10.0
_OLDEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One named question. Nothing here is vital: with all of it away, loaded models still answer."""

    name: str
    ask: Callable[[], Awaitable[ProbeResult]]
    vital: bool = False

    async def check(self) -> ProbeResult:
        return await self.ask()


class Readiness:
    """Why this process should not get requests yet; None from the moment on when its first versions were open."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._was_ready = False

    def __call__(self) -> str | None:
        if self._was_ready:
            return None
        if self._follower.refreshed_at is None:
            return "the first picture of tenants and routes is not there yet"
        if self._follower.opening:
            return "models are being loaded"
        self._was_ready = True
        return None


def probes_of(
    database: SyncDatabase,
    follower: Follower,
    host: ModelHost,
    flag_server: UnleashFlagSource | None,
    budgets: Budgets,
    spool: Path,
    clock: Clock,
) -> list[HealthProbe]:
    """The probes of one serving process."""

    async def ask_database() -> ProbeResult:
        async with database.connection() as connection:
            number = (await connection.execute(text("show server_version_num"))).scalar_one()
        return ProbeResult(Status.OK, {"version": int(number) // 10_000})

    async def ask_model_host() -> ProbeResult:
        confinement = await host.confinement()
        details = {"landlockAbi": confinement.landlock_abi, "seccomp": confinement.seccomp, "confined": confinement.confined}
        return ProbeResult(Status.OK if confinement.confined else Status.DEGRADED, details)

    asked = {
        "database": ask_database,
        "routing": lambda: _ask_routing(follower, clock),
        "replicas": lambda: _ask_replicas(database),
        "modelHost": ask_model_host,
        "flags": lambda: _ask_flags(flag_server),
        "limits": lambda: _ask_limits(budgets),
        "spool": lambda: _ask_spool(spool, clock),
    }
    return [Probe(name, ask) for name, ask in asked.items()]


async def _ask_routing(follower: Follower, clock: Clock) -> ProbeResult:
    at = follower.refreshed_at
    age_s = None if at is None else round(clock.monotonic() - at, 1)
    fresh = age_s is not None and age_s < _STALE_AFTER_S and not follower.from_disk
    details: dict[str, Any] = {"ageSeconds": age_s, "source": "lastGood" if follower.from_disk else "database"}
    if not fresh:
        details["reason"] = "the database has not been heard for as long as this says: what it last said is served"
    return ProbeResult(Status.OK if fresh else Status.DEGRADED, details)


async def _ask_flags(flag_server: UnleashFlagSource | None) -> ProbeResult:
    """Why a document was refused names flags, and is in the log."""
    if flag_server is None:
        return ProbeResult(Status.OK, {"source": "experiments"})
    state = flag_server.state()
    well = state.silent is None and state.refused is None and state.revision is not None
    details: dict[str, Any] = {"source": "unleash", "revision": state.revision, "fromDatabase": state.stored}
    details |= {"heardAt": None if state.heard_at is None else state.heard_at.isoformat(timespec="seconds")}
    details |= {"silent": state.silent is not None, "refused": state.refused is not None, "problems": state.problems}
    return ProbeResult(Status.OK if well else Status.DEGRADED, details)


async def _ask_spool(spool: Path, clock: Clock) -> ProbeResult:
    depth = await asyncio.to_thread(read_depth, spool, clock)
    late = depth.oldest_age_s > _OLDEST_S or depth.quarantined > 0 or depth.waiting_for is not None
    details: dict[str, Any] = {"bytes": depth.bytes, "records": depth.records, "oldestSeconds": round(depth.oldest_age_s, 1)}
    details |= {"quarantined": depth.quarantined, "waitingFor": depth.waiting_for}
    return ProbeResult(Status.DEGRADED if late else Status.OK, details)


async def _ask_limits(budgets: Budgets) -> ProbeResult:
    """Not well while this process holds its share alone; with no store configured there is nothing to be ill."""
    state = budgets.state()
    if state is None:
        return ProbeResult(Status.OK, {"held": "by this machine"})
    silent_s = None if state.silent_s is None else round(state.silent_s, 1)
    details = {"held": "with others" if state.ready else "by this machine's share", "machines": budgets.machines}
    return ProbeResult(Status.OK if state.ready else Status.DEGRADED, {**details, "lastAnswerSeconds": silent_s})


async def _ask_replicas(database: SyncDatabase) -> ProbeResult:
    """Well also where some are silent: they may have been taken away on purpose, and promotions say what they do not serve."""
    async with database.driver_connection() as connection:
        replicas = await listed_replicas(connection)
    oldest_s = round(max((each.silent_s for each in replicas), default=0.0), 1)
    silent = sum(each.silent for each in replicas)
    return ProbeResult(Status.OK, {"listed": len(replicas), "silent": silent, "oldestHeartbeatSeconds": oldest_s})


def loaded_models(
    pool: RuntimePool, breakers: Breakers, table: RoutingTable, directory: TenantDirectory, named: bool
) -> list[dict[str, Any]]:
    """Each version that requests are routed to: its runtime, task and breaker; whose it is, only where `named`."""
    shown = []
    for tenant_id, model, route in table.versions():
        runtime = pool.opened(tenant_id, route)
        item: dict[str, Any] = {
            "runtime": None if runtime is None else runtime.kind,
            "task": route.task.value,
            "loaded": runtime is not None,
            "breaker": breakers.state(tenant_id, route).value,
        }
        if named:
            entry = directory.by_id(tenant_id)
            item |= {"tenant": None if entry is None else entry.tenant.id, "model": model, "version": route.number}
        shown.append(item)
    return shown
