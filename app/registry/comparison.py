"""Two versions of one model side by side, as far as the registry knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.kernel.context import Action
from app.registry import rules, store
from app.registry.routes import route_of
from app.registry.types import VersionStatus

if TYPE_CHECKING:
    from app.db.session import Database
    from app.kernel.context import RequestContext
    from app.kernel.signature import Task
    from app.registry.rows import ModelVersionRow
    from app.registry.types import ModelVersion, VersionRoute


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """`difference`: b less a, where both are numbers."""

    name: str
    a: Any
    b: Any
    difference: float | None


@dataclass(frozen=True, slots=True)
class SignatureBreak:
    """Something that callers of one version send and the other would refuse or read otherwise; codes as of promotion blockers."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class VersionPair:
    """`route_a`, `route_b`: None for a version that cannot serve. `sample`: rows as sent, of version `sample_of`: b's, else a's."""

    task: Task
    a: ModelVersion
    b: ModelVersion
    route_a: VersionRoute | None
    route_b: VersionRoute | None
    sample: tuple[Any, ...]
    sample_of: int | None


class VersionPairs:
    """Reads two versions in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, ctx: RequestContext, model: str, a: int, b: int) -> VersionPair:
        """Both versions; raises NotFound."""
        ctx.require(Action.READ_REGISTRY)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row = await store.find_model(session, ctx.tenant_id, model)
            of_a, of_b = await store.find_version(session, row, a), await store.find_version(session, row, b)
            task = store.model_value(row).task
            sampled = of_b if of_b.sample is not None else of_a
            return VersionPair(
                task,
                store.version_value(of_a, row.name),
                store.version_value(of_b, row.name),
                route_of(of_a, task) if _serves(of_a) else None,
                route_of(of_b, task) if _serves(of_b) else None,
                store.unpack_sample(sampled.sample),
                None if sampled.sample is None else sampled.number,
            )


def _serves(row: ModelVersionRow) -> bool:
    return row.status == VersionStatus.READY and row.signature is not None


def metrics_of(a: Any, b: Any) -> list[ComparedMetric]:
    """Every metric that either has, by name."""
    of_a, of_b = (given if isinstance(given, dict) else {} for given in (a, b))
    return [ComparedMetric(name, of_a.get(name), of_b.get(name), _less(of_b.get(name), of_a.get(name))) for name in sorted({*of_a, *of_b})]


def breaks_of(old: ModelVersion, new: ModelVersion) -> list[SignatureBreak]:
    """What callers of `old` would meet at `new`; empty where one of them has no signature."""
    if old.inspected is None or new.inspected is None:
        return []
    return [SignatureBreak(code, message) for code, message in rules.signature_breaks(old.inspected, new.inspected)]


def _less(left: Any, right: Any) -> float | None:
    numbers = [value for value in (left, right) if isinstance(value, int | float) and not isinstance(value, bool)]
    return float(numbers[0] - numbers[1]) if len(numbers) == 2 else None
