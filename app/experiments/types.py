"""Experiments, their variants and metrics, and what a unit is told to use. Frozen values; the words are the contract's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

UNLEASH_PREFIX = "unleash-"  # of the keys of experiments that a flag of an Unleash server gave birth to
BUCKETS = 100_000  # into which a layer's units fall: a thousandth of a percent each


class ExperimentStatus(StrEnum):
    DRAFT = "DRAFT"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    CONCLUDED = "CONCLUDED"


class ExperimentSource(StrEnum):
    TURNOUT = "TURNOUT"
    UNLEASH = "UNLEASH"


class MetricKind(StrEnum):
    PROPORTION = "PROPORTION"
    MEAN = "MEAN"


class MetricDirection(StrEnum):
    INCREASE = "INCREASE"
    DECREASE = "DECREASE"


class MetricAggregation(StrEnum):
    """How the outcomes of one unit become one number. Units without an outcome count 0 under ANY and SUM, else they are left out."""

    ANY = "ANY"
    SUM = "SUM"
    MEAN = "MEAN"
    LAST = "LAST"


class MetricRole(StrEnum):
    PRIMARY = "PRIMARY"
    SECONDARY = "SECONDARY"
    GUARDRAIL = "GUARDRAIL"


@dataclass(frozen=True, slots=True)
class Metric:
    """What an experiment measures; the tenant's own, by name."""

    name: str
    kind: MetricKind
    direction: MetricDirection
    aggregation: MetricAggregation

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind.value, "direction": self.direction.value, "aggregation": self.aggregation.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Metric:
        return cls(data["name"], MetricKind(data["kind"]), MetricDirection(data["direction"]), MetricAggregation(data["aggregation"]))


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm. Exactly one of `version` and `alias` (alias: Unleash alone). A shadow answers nobody and has no weight in the split."""

    name: str
    version: int | None
    alias: str | None
    weight: int
    control: bool
    shadow: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "version": self.version, "alias": self.alias,
            "weight": self.weight, "control": self.control, "shadow": self.shadow,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Variant:
        return cls(data["name"], data["version"], data["alias"], data["weight"], data["control"], data["shadow"])


@dataclass(frozen=True, slots=True)
class TargetingRule:
    """Who may take part, by an attribute of the request. Operators are Unleash's; all rules must hold."""

    attribute: str
    operator: str
    values: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"attribute": self.attribute, "operator": self.operator, "values": list(self.values)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TargetingRule:
        return cls(data["attribute"], data["operator"], tuple(data["values"]))


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """What somebody wants to find out and how, before anything is checked. `overrides`: (unit hash, variant), never the unit itself."""

    key: str
    model: str
    hypothesis: str | None
    variants: tuple[Variant, ...]
    primary_metric: Metric | None  # None: born in Unleash and never given one
    secondary_metrics: tuple[Metric, ...] = ()
    guardrails: tuple[Metric, ...] = ()
    planned_units: int | None = None
    planned_looks: int = 1
    layer: str | None = None
    targeting: tuple[TargetingRule, ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All of them: the primary one first."""
        first = () if self.primary_metric is None else (self.primary_metric,)
        return (*first, *self.secondary_metrics, *self.guardrails)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as people see it. `rollout`: percent of units that take part, 0 (stopped by a guardrail) or 0.1 to 100."""

    tenant_id: UUID
    key: str
    model: str
    status: ExperimentStatus
    source: ExperimentSource
    hypothesis: str | None
    rollout: float
    variants: tuple[Variant, ...]  # in the order in which they were declared, shadows included
    primary_metric: Metric | None
    secondary_metrics: tuple[Metric, ...]
    guardrails: tuple[Metric, ...]
    planned_units: int | None
    planned_looks: int
    layer: str | None
    targeting: tuple[TargetingRule, ...]
    created_at: datetime
    created_by: str
    started_at: datetime | None
    ended_at: datetime | None
    revision: int  # raised by every change; orders flag documents of the tenant together with `generation` of routing

    @property
    def arms(self) -> tuple[Variant, ...]:
        """Variants that answer: all but shadows."""
        return tuple(variant for variant in self.variants if not variant.shadow)

    @property
    def shadows(self) -> tuple[Variant, ...]:
        return tuple(variant for variant in self.variants if variant.shadow)


@dataclass(frozen=True, slots=True)
class RunningExperiment:
    """As much of a RUNNING experiment of the service's own as deciding takes; read by every serving process as the sync role."""

    key: str
    model: str
    rollout: float  # percent; 0: nobody
    variants: tuple[Variant, ...]
    layer: str | None
    slots: tuple[tuple[int, int], ...]  # [start, end) buckets of the layer that are this experiment's; without a layer one slot from 0
    targeting: tuple[TargetingRule, ...]
    overrides: tuple[tuple[str, str], ...]  # (unit hash, variant)


class DecisionReason(StrEnum):
    """Why a unit got what it got; the words of the contract's RoutingReason that a flag can cause."""

    EXPERIMENT = "EXPERIMENT"
    OUT_OF_ROLLOUT = "OUT_OF_ROLLOUT"
    NOT_TARGETED = "NOT_TARGETED"
    HOLDOUT = "HOLDOUT"
    PINNED = "PINNED"  # an override: the unit tests by hand, and does not count
    FLAG_OFF = "FLAG_OFF"
    NO_UNIT = "NO_UNIT"
    UNKNOWN_VARIANT = "UNKNOWN_VARIANT"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the flags say of one unit and one model.

    `variant`, `version` and `alias` are None unless a variant was chosen; the model's alias `production` answers then.
    `propensity`: the probability, 0 to 1, over the choice of the unit's hash, of getting exactly this outcome given its
    attributes; None where nothing was drawn. `flag_revision` names the flag document that decided.
    """

    reason: DecisionReason
    experiment: str | None
    variant: str | None
    version: int | None
    alias: str | None
    propensity: float | None
    flag_revision: int
