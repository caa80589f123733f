"""Tables of the journal room."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import OF_TENANT, Base, Bigint


class PredictionRow(Base):
    """One answered prediction; one partition a day, made ahead, and no default partition: it would slow each new one down.

    `at` is the time inside `id`, so a record that is written twice meets its own key. No reference to other tables: the log
    outlives what it names, and a reference costs a look-up a row.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_newest_first", "tenant_id", text("at DESC")),
        Index("ix_predictions_at", "at", postgresql_using="brin"),
        CheckConstraint("rows >= 0", name="rows"),
        CheckConstraint("compute_us >= 0", name="compute_us"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7
    at: Mapped[datetime] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[int]
    reason: Mapped[str]
    unit_hash: Mapped[str | None]
    key_generation: Mapped[int]
    experiment: Mapped[str | None]
    variant: Mapped[str | None]
    propensity: Mapped[float | None]
    flag_revision: Mapped[int | None] = mapped_column(Bigint)
    rows: Mapped[int]
    compute_us: Mapped[int]
    score: Mapped[float | None]
    degraded: Mapped[bool]


class ShadowAnswerRow(Base):
    """What a version said off the caller's time on an input that another one answered. No reference to other tables, as above.

    `kind` SHADOW: a shadow variant's answer. COVARIATE: the control version's, on a unit's first exposed input.
    """

    __tablename__ = "shadow_answers"
    __table_args__ = (
        CheckConstraint("kind in ('SHADOW', 'COVARIATE')", name="kind"),
        Index("ix_shadow_answers_of_experiment", "tenant_id", "experiment", "kind", "variant"),
        Index("ix_shadow_answers_at", "at", postgresql_using="brin"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    prediction_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)  # of the batch
    at: Mapped[datetime]  # of the prediction
    experiment: Mapped[str]
    unit_hash: Mapped[str | None]
    version: Mapped[int]
    served_variant: Mapped[str | None]
    served_version: Mapped[int]
    served_label: Mapped[str | None]
    served_score: Mapped[float | None]
    label: Mapped[str | None]
    score: Mapped[float | None]
    compute_us: Mapped[int]


class UsageDeltaRow(Base):
    """What one landing of the journal adds to usage; written by the database itself, in the same transaction."""

    __tablename__ = "usage_deltas"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    day: Mapped[date]  # UTC
    model: Mapped[str]
    version: Mapped[int]
    requests: Mapped[int] = mapped_column(Bigint)
    rows: Mapped[int] = mapped_column(Bigint)
    compute_us: Mapped[int] = mapped_column(Bigint)


class UsageDayRow(Base):
    """What one version answered on one UTC day, deltas apart that are not added yet."""

    __tablename__ = "usage_days"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(Bigint)
    rows: Mapped[int] = mapped_column(Bigint)
    compute_us: Mapped[int] = mapped_column(Bigint)


class CapturedInputRow(Base):
    """The features of one prediction under the tenant's data key; only of tenants that turned capture on."""

    __tablename__ = "captured_inputs"
    __table_args__ = (
        Index("ix_captured_inputs_of_unit", "tenant_id", "unit_hash"),
        Index("ix_captured_inputs_at", "at", postgresql_using="brin"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    prediction_id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    unit_hash: Mapped[str | None]
    sealed: Mapped[bytes]
