"""What the registry needs from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.clock import Deadline
    from app.kernel.context import RequestContext
    from app.kernel.inspection import InspectionReport, InspectionRequest
    from app.kernel.proof import Compiled
    from app.kernel.signature import Signature, Task


class Inspector(Protocol):
    """Opens an artifact where it can do no harm and says what it is. Never raises for what the artifact does.

    Raises Unavailable where this machine could not find out, which another time it may; Undecided where the artifact may have part in it.
    """

    async def inspect(self, tenant_id: UUID, artifact: Path, request: InspectionRequest, timeout_s: float) -> InspectionReport: ...


class GraphCompiler(Protocol):
    """Makes a graph of an artifact and proves that it answers the same. Never raises for what the artifact does.

    Raises Unavailable where this machine could not find out, which another time it may.
    """

    async def compile(
        self,
        tenant_id: UUID,
        artifact: Path,
        signature: Signature,
        task: Task,
        classes: tuple[str, ...],
        sample: tuple[Any, ...],
        timeout_s: float,
    ) -> Compiled: ...


class ArtifactSeal(Protocol):
    """The tenant's integrity key at work: the same bytes for the same artifact on every replica."""

    def artifact_mac(self, tenant_id: UUID, digest: str, size_bytes: int) -> bytes: ...


class Allowances(Protocol):
    """The tenant's limits that the registry holds it to."""

    def max_models(self, tenant_id: UUID) -> int: ...
    def max_artifact_bytes(self, tenant_id: UUID) -> int: ...
    def max_stored_bytes(self, tenant_id: UUID) -> int: ...


class Standing(Protocol):
    """Whether the tenant is served, told inside the caller's transaction."""

    async def require_served(self, session: AsyncSession, tenant_id: UUID) -> None:
        """Returns where it is, and stays so until the transaction ends. Raises TenantSuspended, NotFound."""


class Door(Protocol):
    """By which every caller comes in."""

    async def admit(self, authorization: str | None, request_id: str, deadline: Deadline, address: str) -> RequestContext:
        """Whom the header's token names. `address`: whose failures are counted.

        Raises Unauthenticated, RateLimited, TenantSuspended, Unavailable or DeadlineExceeded.
        """


class Confinement(Protocol):
    """Whether an artifact may be opened here at all: where the kernel cannot confine, only what this machine's demo made."""

    async def refusal(self, digest: str) -> str | None: ...


class ExperimentGuard(Protocol):
    """Which experiments need a version, told inside the registry's transaction."""

    async def using(self, session: AsyncSession, tenant_id: UUID, model_id: UUID, number: int) -> list[tuple[str, str]]:
        """(key, status) of each experiment that has the version among its variants and is not over."""

    async def still_serving(
        self, session: AsyncSession, tenant_id: UUID, versions: Collection[tuple[UUID, int]]
    ) -> dict[tuple[UUID, int], tuple[str, ...]]:
        """Of each (model, number): the keys of running experiments in which it answers."""


class Announcer(Protocol):
    """Told after a commit, so that this process does not wait for its own poll."""

    def wake(self) -> None:
        """Have a look soon."""

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call; bounded."""
