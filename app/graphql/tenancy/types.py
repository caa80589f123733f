"""Callers and tenants on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from app.graphql.paging import PageInfo
from app.graphql.scalars import BigInt
from app.journal.types import Durability
from app.kernel.context import Role
from app.tenancy.types import TenantStatus

strawberry.enum(Role, name="Role")
strawberry.enum(TenantStatus, name="TenantStatus")
strawberry.enum(
    Durability,
    name="Durability",
    description="DURABLE: in the operating system's hands before the answer, survives any crash of ours. DURABLE_FSYNC: on disk, survives "
    "power loss. BUFFERED: may lose up to a second. DATABASE: committed in the database, survives the machine.",
)


@strawberry.type
class TenantLimits:
    requests_per_second: int
    burst: int
    rows_per_day: BigInt
    max_models: int
    max_artifact_bytes: BigInt
    max_stored_bytes: BigInt
    concurrency: int


@strawberry.type
class TenantSettings:
    durability: Durability
    capture_inputs: bool
    retention_days: int
    outcome_window_days: int
    holdout_percent: float


@strawberry.type
class QuotaState:
    requests_available: int
    rows_left_today: BigInt
    resets_at: datetime


@strawberry.type
class Viewer:
    tenant: str
    subject: str
    unit: str | None
    roles: list[Role]
    limits: TenantLimits
    quota: QuotaState


@strawberry.type(description="By what an issuer's tokens know a tenant.")
class TenantName:
    issuer: str
    external_id: str


@strawberry.type(description="Something was erased. `rows`: how many rows are gone so far.")
class Erasure:
    id: strawberry.ID
    at: datetime
    rows: BigInt


@strawberry.type
class Tenant:
    id: str
    name: str
    status: TenantStatus
    limits: TenantLimits
    settings: TenantSettings
    created_at: datetime
    names: list[TenantName]


@strawberry.type
class TenantEdge:
    cursor: str
    node: Tenant


@strawberry.type
class TenantConnection:
    edges: list[TenantEdge]
    page_info: PageInfo


@strawberry.input
class TenantLimitsInput:
    requests_per_second: int | None = strawberry.UNSET
    burst: int | None = strawberry.UNSET
    rows_per_day: BigInt | None = strawberry.UNSET
    max_models: int | None = strawberry.UNSET
    max_artifact_bytes: BigInt | None = strawberry.UNSET
    max_stored_bytes: BigInt | None = strawberry.UNSET
    concurrency: int | None = strawberry.UNSET


@strawberry.input
class TenantSettingsInput:
    durability: Durability | None = strawberry.UNSET
    capture_inputs: bool | None = strawberry.UNSET
    retention_days: int | None = strawberry.UNSET
    outcome_window_days: int | None = strawberry.UNSET
    holdout_percent: float | None = strawberry.UNSET


@strawberry.input
class CreateTenantInput:
    id: str
    name: str
    limits: TenantLimitsInput | None = strawberry.UNSET
    settings: TenantSettingsInput | None = strawberry.UNSET


def sent(value: Any) -> dict[str, Any]:
    """The fields of an input that were sent, under their names on the wire."""
    if value is None or value is strawberry.UNSET:
        return {}
    fields = value.__strawberry_definition__.fields
    pairs = ((_camel(field.python_name), getattr(value, field.python_name)) for field in fields)
    return {name: v for name, v in pairs if v is not strawberry.UNSET}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
