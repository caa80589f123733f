"""Tables of the experiments room. Every key starts with the tenant."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Numeric, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import OF_TENANT, Base, Bigint, Jsonb

_ALONE = "status = 'RUNNING' and source = 'TURNOUT' and layer is null"


class ExperimentRow(Base):
    """An experiment. `slots`: the buckets of its layer that are its own, [[start, end], ...]; `overrides`: [[unit hash, variant], ...]."""

    __tablename__ = "experiments"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "model_id"], ["models.tenant_id", "models.model_id"]),
        CheckConstraint("status in ('DRAFT', 'RUNNING', 'STOPPED', 'CONCLUDED')", name="status"),
        CheckConstraint("source in ('TURNOUT', 'UNLEASH')", name="source"),
        CheckConstraint("rollout >= 0 and rollout <= 100", name="rollout"),
        CheckConstraint("planned_looks >= 1", name="planned_looks"),
        Index("uq_experiments_alone", "tenant_id", "model_id", unique=True, postgresql_where=text(_ALONE)),
        Index("ix_experiments_newest_first", "tenant_id", text("created_at DESC"), "key"),
        OF_TENANT,
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[UUID]
    model: Mapped[str]
    status: Mapped[str]
    source: Mapped[str]
    hypothesis: Mapped[str | None]
    rollout: Mapped[float]
    variants: Mapped[Any] = mapped_column(Jsonb)
    primary_metric: Mapped[str | None]
    secondary_metrics: Mapped[Any] = mapped_column(Jsonb)
    guardrails: Mapped[Any] = mapped_column(Jsonb)
    planned_units: Mapped[int | None] = mapped_column(Bigint)
    planned_looks: Mapped[int]
    layer: Mapped[str | None]
    slots: Mapped[Any] = mapped_column(Jsonb)
    targeting: Mapped[Any] = mapped_column(Jsonb)
    overrides: Mapped[Any] = mapped_column(Jsonb)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(server_default=text("1"))


class MetricRow(Base):
    """A metric of the tenant: declared once, alike ever after."""

    __tablename__ = "metrics"
    __table_args__ = (
        CheckConstraint("kind in ('PROPORTION', 'MEAN')", name="kind"),
        CheckConstraint("direction in ('INCREASE', 'DECREASE')", name="direction"),
        CheckConstraint("aggregation in ('ANY', 'SUM', 'MEAN', 'LAST')", name="aggregation"),
        OF_TENANT,
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    direction: Mapped[str]
    aggregation: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class QueuedExposureRow(Base):
    """A served prediction of an experiment that is not counted yet. Put here by the database itself when the journal lands."""

    __tablename__ = "exposure_queue"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # the prediction's
    at: Mapped[datetime]
    experiment: Mapped[str]
    variant: Mapped[str]
    version: Mapped[int]
    unit_hash: Mapped[str]
    propensity: Mapped[float | None]
    score: Mapped[float | None]  # None, too, where a fallback answered: it is another version's
    fell_back: Mapped[bool] = mapped_column(server_default=text("false"))


class ExposureRow(Base):
    """A unit's first exposure in an experiment, and how many requests it made. `covariate`: the control version's score on that input."""

    __tablename__ = "exposures"
    __table_args__ = (Index("ix_exposures_tenant_id_unit_hash", "tenant_id", "unit_hash"), OF_TENANT)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    unit_hash: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str]
    version: Mapped[int]
    first_at: Mapped[datetime]
    prediction_id: Mapped[UUID]
    requests: Mapped[int] = mapped_column(Bigint)
    propensity: Mapped[float | None]
    covariate: Mapped[float | None]
    fallbacks: Mapped[int] = mapped_column(Bigint, server_default=text("0"))  # of the requests: those that a fallback answered


class ExposureTallyRow(Base):
    """Exposures of one arm in numbers; exact, and the same when rebuilt."""

    __tablename__ = "exposure_tallies"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    units: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    requests: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    covered: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    cov_total: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    cov_squares: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    fell_back: Mapped[int] = mapped_column(Bigint, server_default=text("0"))  # of the units: those with a fallback's answer


class OutcomeRow(Base):
    """What happened after a prediction. `pending`: its prediction has not reached the log yet. `dedup_key`: what a retry repeats."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("tenant_id", "dedup_key"),
        Index("ix_outcomes_pending", "tenant_id", "prediction_id", postgresql_where=text("pending")),
        Index("ix_outcomes_of_unit", "tenant_id", "unit_hash", "metric"),
        Index("ix_outcomes_of_prediction", "tenant_id", "prediction_id", "metric"),
        OF_TENANT,
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7
    metric: Mapped[str]
    value: Mapped[float]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    prediction_id: Mapped[UUID | None]
    row: Mapped[int | None]
    unit_hash: Mapped[str | None]
    pending: Mapped[bool]
    dedup_key: Mapped[str]


class QueuedCovariateRow(Base):
    """A covariate that came after its exposure, perhaps. Put here by the database itself, as exposures are."""

    __tablename__ = "covariate_queue"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    prediction_id: Mapped[UUID] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    unit_hash: Mapped[str]


class StaleUnitRow(Base):
    """A unit whose values must be computed anew. Everybody makes a mark of their own: who takes one away, unseen ones stay."""

    __tablename__ = "stale_units"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    unit_hash: Mapped[str] = mapped_column(primary_key=True)
    mark: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))


class UnitValueRow(Base):
    """One unit's outcomes of one metric as one number, as it is counted in `metric_sums`."""

    __tablename__ = "unit_values"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    unit_hash: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str]
    value: Mapped[float]
    covariate: Mapped[float | None]


class MetricSumsRow(Base):
    """Sums over the units of one arm that have a value; `both_`: over those with a covariate as well. Exact: taking away undoes adding."""

    __tablename__ = "metric_sums"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    counted: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    total: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    squares: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    both_counted: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    both_total: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    both_squares: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    both_cov_total: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    both_cov_squares: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))
    cross_products: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))


class LookRow(Base):
    """All sums as they were when a planned look fell due: the planned analysis reads these and nothing newer."""

    __tablename__ = "looks"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    look: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    units: Mapped[int] = mapped_column(Bigint)
    sums: Mapped[Any] = mapped_column(Jsonb)


class FlagDocumentRow(Base):
    """The last good document of a flag server, for a start without that server. Of no tenant: it holds the rules of all."""

    __tablename__ = "flag_documents"

    source: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(Bigint)
    document: Mapped[Any] = mapped_column(Jsonb)
    fetched_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
