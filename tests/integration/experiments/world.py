"""One tenant with an experiment, and everything that happens to it: predictions by the log's own way in, outcomes by the service."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from app.db.engine import Timeouts
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.experiments.folding import Folder
from app.experiments.outcomes import OutcomeService
from app.journal.partitions import ensure_partitions
from app.journal.sink import PostgresSink
from app.journal.types import PredictionRecord, ShadowRecord
from app.kernel.clock import Deadline
from app.kernel.context import Action, RequestContext, Role
from app.kernel.ids import IdMint, is_genuine
from app.tenancy.keys import TenantKeys
from tests.support.clock import ManualClock
from tests.support.database import DatabaseUrls, execute, make_tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.journal.types import Record

WINDOW_DAYS = 30
ROOMY = Timeouts(statement_s=60, command_s=60, lock_s=20, idle_in_transaction_s=60)
SECRET = bytes(range(32))
ARMS = [
    {"name": "control", "version": 1, "alias": None, "weight": 1, "control": True, "shadow": False},
    {"name": "blue", "version": 2, "alias": None, "weight": 1, "control": False, "shadow": False},
    {"name": "green", "version": 3, "alias": None, "weight": 2, "control": False, "shadow": False},
]
METRICS = {
    "bought": ("PROPORTION", "ANY"), "spent": ("MEAN", "SUM"), "rating": ("MEAN", "MEAN"), "last-seen": ("MEAN", "LAST"), "crashed": ("PROPORTION", "ANY"),
}  # fmt: skip


@dataclass
class Keys:
    """What the tenancy room answers, for every tenant of the test."""

    of: dict[UUID, TenantKeys] = field(default_factory=dict)
    window_days: int = WINDOW_DAYS
    class_names: tuple[str, ...] | None = None

    def __getitem__(self, tenant_id: UUID) -> TenantKeys:
        if tenant_id not in self.of:
            self.of[tenant_id] = TenantKeys.derive(tenant_id, SECRET)
        return self.of[tenant_id]

    def unit_hash(self, tenant_id: UUID, unit: str) -> str:
        return self[tenant_id].unit_pseudonym(unit)

    def is_own(self, tenant_id: UUID, prediction_id: UUID) -> bool:
        return is_genuine(prediction_id, self[tenant_id].ids)

    def outcome_window_days(self, tenant_id: UUID) -> int:
        return self.window_days

    async def classes(self, session: AsyncSession, tenant_id: UUID, model: str, version: int) -> tuple[str, ...] | None:
        return self.class_names


class World:
    """Made by `open_world`; closed by `close`."""

    def __init__(self, urls: DatabaseUrls, clock: ManualClock, batch: int = 20_000) -> None:
        self.urls, self.clock, self.keys = urls, clock, Keys()
        self.tenant_id = make_tenant(urls, f"t{uuid4().hex[:8]}")
        self.database, self.sync = Database(urls.runtime, ROOMY), SyncDatabase(urls.sync)
        self.folder = Folder(self.database, self.sync, self.keys, clock, batch=batch)
        self.outcomes = OutcomeService(self.database, clock, self.keys, self.keys, self.keys)
        self.sink = PostgresSink(urls.log)
        self.mint = IdMint(clock)

    async def close(self) -> None:
        await self.sink.close()
        await self.database.close()
        await self.sync.close()

    def caller(self, *roles: Role, tenant_id: UUID | None = None, unit: str | None = None) -> RequestContext:
        return RequestContext(
            tenant_id or self.tenant_id, "clinic", "ann", frozenset(roles or {Role.ADMIN}), frozenset(Action), unit, "r", Deadline.after(60)
        )

    def ask(self, statement: str, *arguments: Any) -> list[Any]:
        return execute(self.urls.runtime, statement, *arguments, tenant_id=self.tenant_id)

    def metrics(self, **more: tuple[str, str]) -> None:
        for name, (kind, aggregation) in {**METRICS, **more}.items():
            self.ask(
                "insert into metrics (tenant_id, name, kind, direction, aggregation) values ($1, $2, $3, 'INCREASE', $4)",
                self.tenant_id, name, kind, aggregation,
            )  # fmt: skip

    def experiment(self, key: str = "colour", **columns: Any) -> None:
        """RUNNING, with `spent` as its primary metric."""
        model_id = uuid4()
        self.ask(
            "insert into models (tenant_id, model_id, name, folded_name, task) values ($1, $2, $3, $3, 'REGRESSION')",
            self.tenant_id, model_id, f"m{model_id.hex[:8]}",
        )  # fmt: skip
        values = {
            "tenant_id": self.tenant_id, "key": key, "model_id": model_id, "model": f"m{model_id.hex[:8]}", "status": "RUNNING", "source": "TURNOUT",
            "rollout": 100.0, "variants": ARMS, "primary_metric": "spent", "secondary_metrics": ["bought", "rating", "last-seen"],
            "guardrails": ["crashed"], "planned_units": None, "planned_looks": 1, "slots": [[0, 100_000]], "targeting": [], "overrides": [],
            "created_by": "ann", **columns,
        }  # fmt: skip
        given = [json.dumps(v) if isinstance(v, list | dict) else v for v in values.values()]
        self.ask(f"insert into experiments ({', '.join(values)}) values ({', '.join(f'${n}' for n in range(1, len(given) + 1))})", *given)

    def unit_hash(self, unit: str) -> str:
        return self.keys.unit_hash(self.tenant_id, unit)

    def prediction(
        self, unit: str | None, variant: str | None = None, experiment: str | None = "colour", **changes: Any
    ) -> PredictionRecord:
        """Made now, in nobody's log yet."""
        values: dict[str, Any] = {
            "id": self.mint.mint(self.keys[self.tenant_id].ids), "tenant_id": self.tenant_id,
            "unit_hash": None if unit is None else self.unit_hash(unit), "key_generation": 1, "model": "m", "version": 1,
            "reason": "EXPERIMENT" if variant else "ALIAS", "experiment": experiment if variant else None, "variant": variant,
            "propensity": 0.5, "flag_revision": 1, "rows": 1, "compute_us": 9, "score": None, "degraded": False,
        }  # fmt: skip
        return PredictionRecord(**(values | changes))

    def covariate(self, of: PredictionRecord, score: float | None, **changes: Any) -> ShadowRecord:
        values: dict[str, Any] = {
            "id": of.id, "tenant_id": of.tenant_id, "kind": "COVARIATE", "variant": "control", "row": 0, "experiment": of.experiment,
            "unit_hash": of.unit_hash, "version": 1, "served_variant": of.variant, "served_version": of.version, "served_label": None,
            "served_score": of.score, "label": None, "score": score, "compute_us": 9,
        }  # fmt: skip
        return ShadowRecord(**(values | changes))

    async def log(self, *records: Record) -> None:
        await self.sink.insert(list(records))

    def sums(self) -> dict[str, list[Any]]:
        """Tallies and sums byte by byte: numerics as the text that the database holds."""
        tallies = """select experiment, variant, units, requests, covered, cov_total::text, cov_squares::text, fell_back
          from exposure_tallies order by 1, 2"""
        sums = """select experiment, metric, variant, counted, total::text, squares::text, both_counted, both_total::text, both_squares::text,
          both_cov_total::text, both_cov_squares::text, cross_products::text from metric_sums order by 1, 2, 3"""
        values = "select experiment, metric, unit_hash, variant, value::text, covariate::text from unit_values order by 1, 2, 3"
        return {"tallies": _rows(self.ask(tallies)), "sums": _rows(self.ask(sums)), "values": _rows(self.ask(values))}


async def open_world(urls: DatabaseUrls, clock: ManualClock | None = None, batch: int = 20_000) -> World:
    clock = clock or ManualClock()
    await ensure_partitions(urls.owner, clock, days_ahead=40)
    return World(urls, clock, batch)


def _rows(found: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in found]
