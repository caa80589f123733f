"""What a tenant is: its limits, its settings and its life, as frozen values that cross rooms."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from app.errors import InvalidInput
from app.journal.types import Durability

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from app.kernel.context import Action, Role

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_LARGEST = 2**53  # the largest whole number that JSON carries exactly
_LARGEST_INT = 2**31 - 1  # GraphQL's Int


class TenantStatus(StrEnum):
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"  # every request is refused, nothing is lost
    ERASED = "ERASED"  # as if it had never been


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """How much a tenant may ask of one machine (requests, rows, concurrency) and keep (models, bytes)."""

    requests_per_second: int = 10_000  # no obstacle to an ordinary tenant: a fence around a runaway client
    burst: int = 20_000  # requests at once, after a quiet moment
    rows_per_day: int = 50_000_000  # predicted rows in a UTC day
    max_models: int = 200
    max_artifact_bytes: int = 256 * _MIB
    max_stored_bytes: int = 20 * _GIB
    concurrency: int = 256  # predictions under way at once

    def to_json(self) -> dict[str, Any]:
        return {
            "requestsPerSecond": self.requests_per_second,
            "burst": self.burst,
            "rowsPerDay": self.rows_per_day,
            "maxModels": self.max_models,
            "maxArtifactBytes": self.max_artifact_bytes,
            "maxStoredBytes": self.max_stored_bytes,
            "concurrency": self.concurrency,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: TenantLimits | None = None) -> TenantLimits:
        """`base` (or the defaults) with what `data` gives; null is "as it was". Raises InvalidInput that names the field."""
        base = base or cls()
        read = _Fields("limits", data, set(base.to_json()))
        return cls(
            requests_per_second=read.whole("requestsPerSecond", base.requests_per_second, 1, 1_000_000),
            burst=read.whole("burst", base.burst, 1, 10_000_000),
            rows_per_day=read.whole("rowsPerDay", base.rows_per_day, 0, _LARGEST),
            max_models=read.whole("maxModels", base.max_models, 0, _LARGEST_INT),
            max_artifact_bytes=read.whole("maxArtifactBytes", base.max_artifact_bytes, 1, 64 * _GIB),
            max_stored_bytes=read.whole("maxStoredBytes", base.max_stored_bytes, 0, _LARGEST),
            concurrency=read.whole("concurrency", base.concurrency, 1, 1_000_000),
        )


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """How a tenant's predictions are kept and, later, split."""

    durability: Durability = Durability.DURABLE
    capture_inputs: bool = False
    retention_days: int = 90
    outcome_window_days: int = 30
    holdout_percent: float = 0.0  # of units, kept out of every experiment

    def to_json(self) -> dict[str, Any]:
        return {
            "durability": self.durability.value,
            "captureInputs": self.capture_inputs,
            "retentionDays": self.retention_days,
            "outcomeWindowDays": self.outcome_window_days,
            "holdoutPercent": self.holdout_percent,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: TenantSettings | None = None) -> TenantSettings:
        """`base` (or the defaults) with what `data` gives; null is "as it was". Raises InvalidInput that names the field."""
        base = base or cls()
        read = _Fields("settings", data, set(base.to_json()))
        return cls(
            durability=read.durability("durability", base.durability),
            capture_inputs=read.boolean("captureInputs", base.capture_inputs),
            retention_days=read.whole("retentionDays", base.retention_days, 1, 3_650),
            outcome_window_days=read.whole("outcomeWindowDays", base.outcome_window_days, 1, 365),
            holdout_percent=read.percent("holdoutPercent", base.holdout_percent),
        )


@dataclass(frozen=True, slots=True)
class TenantName:
    """By what an issuer's tokens know a tenant."""

    issuer: str
    external_id: str


@dataclass(frozen=True, slots=True)
class TokenDenial:
    """Tokens that work no longer: the one with `jti`, or all of `subject` that were issued before the moment, in Unix seconds."""

    jti: str | None
    subject: str | None
    issued_before_s: float


@dataclass(frozen=True, slots=True)
class Erasure:
    """That something was erased. `rows`: how many rows are gone so far."""

    id: UUID
    at: datetime
    rows: int


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as people see it. `id` is the name in tokens and on the wire; `tenant_id` keys the tables."""

    tenant_id: UUID
    id: str
    name: str
    status: TenantStatus
    limits: TenantLimits
    settings: TenantSettings
    created_at: datetime
    names: tuple[TenantName, ...] = ()  # by issuer and name


@dataclass(frozen=True, slots=True)
class StoredTenant:
    """A tenant as the database holds it: its secret still wrapped, which generation of each renewable key counts, and who is denied."""

    tenant: Tenant
    wrapped_secret: bytes = field(repr=False)
    pseudonym_generation: int = 1
    assignment_generation: int = 1
    denials: tuple[TokenDenial, ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a verified token names. `tenant` is the name in the token; whether there is such a tenant is not known yet."""

    tenant: str
    subject: str
    roles: frozenset[Role]
    allowed: frozenset[Action]
    unit: str | None  # set where the token is pinned to one unit
    expires_at_s: float  # Unix time
    issuer: str = ""
    jti: str | None = None  # the token's own id
    issued_at_s: float | None = None  # Unix time; None: the token does not say
    own_names: bool = True  # whether `tenant` may be one of our ids, where it is not mapped
    creates_tenants: bool = False  # whether a tenant that is not there is made


@dataclass(frozen=True, slots=True)
class QuotaState:
    """What is left of a tenant's limits on this machine."""

    requests_available: int
    rows_left_today: int
    resets_at: datetime  # when the day's rows begin anew


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is calling, and what is left of their limits."""

    tenant: str
    subject: str
    unit: str | None
    roles: tuple[Role, ...]
    limits: TenantLimits
    quota: QuotaState


class _Fields:
    """Reads one JSON object field by field; what is wrong is said with the field's name."""

    def __init__(self, where: str, data: Mapping[str, Any], known: set[str]) -> None:
        self._where, self._data = where, data
        if unknown := sorted(set(map(str, data)) - known):
            raise InvalidInput(f"{where} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}.")

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self._data.get(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise self._wrong(name, value, f"a whole number from {low} to {high}")

    def percent(self, name: str, default: float) -> float:
        value = self._data.get(name)
        if value is None:
            return default
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 100:
            return float(value)
        raise self._wrong(name, value, "a number from 0 to 100")

    def boolean(self, name: str, default: bool) -> bool:
        value = self._data.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self._wrong(name, value, "true or false")

    def durability(self, name: str, default: Durability) -> Durability:
        value = self._data.get(name)
        if value is None:
            return default
        try:
            return Durability(value)
        except ValueError:
            raise self._wrong(name, value, "one of " + ", ".join(Durability)) from None

    def _wrong(self, name: str, value: Any, good: str) -> InvalidInput:
        return InvalidInput(f"{self._where}.{name} is {str(value)[:40]!r}; it must be {good}.")
