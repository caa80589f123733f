"""VALIDATING becomes READY or FAILED: an inspection in the sandbox, claimed by one process of all, begun again where that one died."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from app.audit import store as audit
from app.db.outbox import announce
from app.errors import AppError, InvalidInput, Unavailable
from app.kernel.inspection import InspectionReport, InspectionRequest, Undecided
from app.kernel.proof import Compiled, Proof
from app.kernel.signature import Column, Task
from app.registry import rules, store
from app.registry.artifacts import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.registry.artifacts import ArtifactCache
    from app.registry.compiled_models import CompiledModels
    from app.registry.ports import Announcer, Confinement, GraphCompiler, Inspector
    from app.registry.types import PendingValidation

_AUDIT_ACTOR = "turnout"
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_MOST_TRIES = 10  # to inspect, and to compile: with the pauses between them four minutes and more
_LOOK_AGAIN_S = 5.0
_COMPARING_S = 150.0  # what graphs may take to be compared, at most
log = structlog.get_logger()


class Turns:
    """What waits, tenant after tenant in turn: many slow artifacts of one tenant hold up another's by one inspection at most."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[UUID, dict[PendingValidation, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def add(self, pending: PendingValidation) -> None:
        """Once, however often it is added."""
        self._tenants.setdefault(pending.tenant_id, {})[pending] = None

    def take(self) -> PendingValidation:
        """The oldest of the tenant that has waited longest for its turn."""
        tenant_id, own = self._tenants.popitem(last=False)
        pending = next(iter(own))
        del own[pending]
        if own:
            self._tenants[tenant_id] = own
        return pending


class Validator:
    """Works through pending validations, one at a time a process: inspections cost cores that predictions need."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactCache,
        inspector: Inspector,
        compiler: GraphCompiler,
        graphs: CompiledModels,
        confinement: Confinement,
        clock: Clock,
        announced: Announcer,
        timeout_s: float,
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._inspector = inspector
        self._compiler = compiler
        self._graphs = graphs
        self._confinement = confinement
        self._clock = clock
        self._announced = announced
        self._timeout_s = timeout_s
        self._waiting = Turns()
        self._postponed: dict[PendingValidation, int] = {}  # how often
        self._inspections: dict[PendingValidation, int] = {}  # that found out nothing
        self._compilations: dict[PendingValidation, int] = {}  # likewise
        self._pausing: set[PendingValidation] = set()
        self._wake = asyncio.Event()

    def consider(self, pending: Iterable[PendingValidation]) -> None:
        """Takes note of versions that wait for validation; ones already noted are not doubled, postponed ones wait their time."""
        for each in pending:
            if each not in self._pausing:
                self._waiting.add(each)
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """Validates until cancelled."""
        while True:
            await self._wake.wait()
            while self._waiting:
                pending = self._waiting.take()
                try:
                    await self._validate(pending)
                except Unavailable as error:
                    log.warning("validation_postponed", code=error.code, why=error.message)
                    self._postpone(pending)
                except Exception:
                    log.exception("validation_broke")
                    self._look_again(pending)
            self._wake.clear()

    def _postpone(self, pending: PendingValidation) -> None:
        """Once more after a pause that doubles: what was missing is this machine's or the database's, and others go on meanwhile."""
        times = self._postponed.get(pending, 0)
        self._postponed[pending] = times + 1
        self._pausing.add(pending)
        asyncio.get_running_loop().call_later(min(_FIRST_RETRY_S * 2**times, _LONGEST_RETRY_S), self._resume, pending)

    def _resume(self, pending: PendingValidation) -> None:
        self._pausing.discard(pending)
        self.consider([pending])

    def _look_again(self, pending: PendingValidation) -> None:
        """Whoever holds the claim may have died with it: it runs out, and then this process takes over."""
        asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self.consider, [pending])

    async def _validate(self, pending: PendingValidation) -> None:
        lease = timedelta(seconds=2 * self._timeout_s + _COMPARING_S)
        async with self._database.tenant_tx(pending.tenant_id) as session:
            claimed = await store.claim_validation(session, pending.tenant_id, pending.model_id, pending.number, self._clock.now(), lease)
            waits = claimed is not None or await store.waits_for_validation(session, pending.tenant_id, pending.model_id, pending.number)
        if claimed is None:
            if waits:
                self._look_again(pending)
            else:
                self._forget(pending)
            return
        row, model, task = claimed
        given = None if row.given_columns is None else tuple(Column.from_json(c) for c in row.given_columns)
        request = InspectionRequest(Task(task), given, store.unpack_sample(row.sample))
        digest = str(row.artifact_digest)
        report = await self._inspect(pending, digest, request)
        await self._finish(pending, model, report, await self._compile(pending, digest, request, report))
        self._forget(pending)

    def _forget(self, pending: PendingValidation) -> None:
        self._postponed.pop(pending, None)
        self._inspections.pop(pending, None)
        self._compilations.pop(pending, None)

    async def _inspect(self, pending: PendingValidation, digest: str, request: InspectionRequest) -> InspectionReport:
        if refusal := await self._confinement.refusal(digest):
            return _failed(refusal)
        try:
            path = await self._artifacts.path(pending.tenant_id, digest)
            report = bounded(await self._inspector.inspect(pending.tenant_id, path, request, self._timeout_s))
            self._inspections.pop(pending, None)
            return report
        except ArtifactRefused as refused:
            return InspectionReport.failed(refused.message, environment=store.UNREAD)
        except Unavailable as error:
            if isinstance(error, Undecided):
                why = _given_up(self._inspections, pending, error)
                if why is not None:  # an artifact that sleeps looks like one that starves
                    return _failed(f"{why}.")
            await self._unclaim(pending)
            raise
        except AppError as error:
            return _failed(error.message)

    async def _compile(
        self, pending: PendingValidation, digest: str, request: InspectionRequest, report: InspectionReport
    ) -> Compiled | None:
        """The verdict about the version's graph; None for a version that cannot serve at all."""
        if report.failure is not None or report.signature is None:
            return None
        try:
            path = await self._artifacts.path(pending.tenant_id, digest)
            return await self._compiler.compile(
                pending.tenant_id, path, report.signature, request.task, report.classes or (), request.sample, self._timeout_s
            )
        except Unavailable as error:
            why = _given_up(self._compilations, pending, error)
            if why is not None:
                return Compiled(Proof(why))
            await self._unclaim(pending)
            raise
        except AppError as error:
            return Compiled(Proof(error.message))

    async def _unclaim(self, pending: PendingValidation) -> None:
        async with self._database.tenant_tx(pending.tenant_id) as session:
            await store.release_validation(session, pending.tenant_id, pending.model_id, pending.number)

    async def _finish(self, pending: PendingValidation, model: str, report: InspectionReport, compiled: Compiled | None) -> None:
        graph = None if compiled is None else compiled.graph
        digest = None if graph is None else hashlib.sha256(graph).hexdigest()
        async with self._database.tenant_tx(pending.tenant_id) as session:
            if not await store.finish_validation(session, pending.tenant_id, pending.model_id, pending.number, report, compiled, digest):
                return
            if graph is not None:
                await self._graphs.add(session, pending.tenant_id, graph)
            await audit.record_by(
                session,
                pending.tenant_id,
                _AUDIT_ACTOR,
                self._clock,
                action="validateModelVersion",
                subject=f"version:{model}/{pending.number}",
                before={"status": "VALIDATING"},
                after={"status": "READY" if report.failure is None else "FAILED"},
                reason=report.failure,
            )
            await announce(session, pending.tenant_id)
        self._announced.wake()
        log.info(
            "version_validated",
            model=model,
            version=pending.number,
            ready=report.failure is None,
            estimator=report.estimator,
            native_because=None if compiled is None else compiled.proof.reason,
        )


def bounded(report: InspectionReport) -> InspectionReport:
    """The report, failed where what it found is more than a registration could have said: an artifact may hold anything."""
    if report.failure is not None or report.signature is None:
        return report
    try:
        rules.check_columns(report.signature.columns)
        rules.check_classes(report.classes)
    except InvalidInput as error:
        return InspectionReport.failed(error.message, report.estimator)
    return report


def _given_up(tries: dict[PendingValidation, int], pending: PendingValidation, error: Unavailable) -> str | None:
    """Why there is no other try after this one, which is counted; None where there is."""
    times = tries[pending] = tries.get(pending, 0) + 1
    return f"{error.message.removesuffix('.')}; tried {times} times" if times >= _MOST_TRIES else None


def _failed(why: str) -> InspectionReport:
    return InspectionReport(failure=why, signature=None, classes=None, estimator="", environment={}, warnings=())
