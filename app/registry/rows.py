"""Tables of the registry room. Every key starts with the tenant: a unique key or a reference never tells of another tenant's row."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import OF_TENANT, Base, Bigint, Jsonb


def _version() -> ForeignKeyConstraint:
    key = ("tenant_id", "model_id", "number")
    return ForeignKeyConstraint(key, [f"model_versions.{column}" for column in key])


class ModelRow(Base):
    """A model. `next_number` is the number that its next version gets: read and raised under the row's lock, so none is used twice."""

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        UniqueConstraint("tenant_id", "folded_name"),
        CheckConstraint("task in ('CLASSIFICATION', 'REGRESSION')", name="task"),
        CheckConstraint("cache_seconds >= 0", name="cache_seconds"),
        CheckConstraint("next_number >= 1", name="next_number"),
        OF_TENANT,
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    folded_name: Mapped[str]
    task: Mapped[str]
    description: Mapped[str | None]
    fallback: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    cache_seconds: Mapped[int] = mapped_column(server_default=text("0"))
    next_number: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class ArtifactRow(Base):
    """An artifact whose bytes are complete: the chunks of `upload_id`, in order. `mac` binds the digest to the tenant.

    `signer` and `signature`: the key's id and what it signed, as sent with the upload. `removed_at`: the bytes went by retention.
    """

    __tablename__ = "artifacts"
    __table_args__ = (CheckConstraint("size_bytes >= 0", name="size_bytes"), OF_TENANT)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)  # sha256, hex
    size_bytes: Mapped[int] = mapped_column(Bigint)
    upload_id: Mapped[UUID]
    mac: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str]
    signer: Mapped[str | None]
    signature: Mapped[bytes | None]
    removed_at: Mapped[datetime | None]


class ArtifactChunkRow(Base):
    """A piece of an upload. Chunks that no artifact names are of an upload that was cut off or was a duplicate."""

    __tablename__ = "artifact_chunks"
    __table_args__ = (CheckConstraint("seq >= 0", name="seq"), OF_TENANT)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    upload_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes]  # STORAGE EXTERNAL: artifacts hardly compress, and trying costs more than it saves
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class CompiledModelRow(Base):
    """A graph that answers like its version's artifact, by proof. `mac` binds the digest to the tenant."""

    __tablename__ = "compiled_models"
    __table_args__ = (CheckConstraint("size_bytes >= 0", name="size_bytes"), OF_TENANT)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)  # sha256, hex
    data: Mapped[bytes]  # STORAGE EXTERNAL
    size_bytes: Mapped[int] = mapped_column(Bigint)
    mac: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class ModelVersionRow(Base):
    """A version. `claimed_until`: until then somebody is inspecting it; later, with status VALIDATING, anybody may begin again."""

    __tablename__ = "model_versions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "model_id"], ["models.tenant_id", "models.model_id"]),
        ForeignKeyConstraint(["tenant_id", "artifact_digest"], ["artifacts.tenant_id", "artifacts.digest"]),
        Index(None, "tenant_id", "model_id", "registration_hash"),
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("status in ('VALIDATING', 'READY', 'FAILED', 'WITHDRAWN', 'ARCHIVED')", name="status"),
        CheckConstraint("runtime in ('ONNX', 'SKLEARN', 'OPEN_INFERENCE')", name="runtime"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    status_reason: Mapped[str | None]
    artifact_digest: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(Bigint)
    registration_hash: Mapped[str]
    runtime: Mapped[str | None]
    signature: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    classes: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    given_columns: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    sample: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    metrics: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    tags: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    description: Mapped[str | None]
    environment: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    proof: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    compiled_digest: Mapped[str | None]  # stays when the bytes are removed: the record outlives them
    compiled_size_bytes: Mapped[int | None] = mapped_column(Bigint)
    artifact_deleted_at: Mapped[datetime | None]
    lineage: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    warning: Mapped[str | None]
    origin: Mapped[Any] = mapped_column(Jsonb, nullable=True)  # the tenant and version that this one was published from
    retired_at: Mapped[datetime | None]  # when it was archived, withdrawn or found FAILED
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str]
    claimed_until: Mapped[datetime | None]


class AliasRow(Base):
    """Which version a name stands for now. `revision` rises by one with each change: compare-and-set works on it."""

    __tablename__ = "aliases"
    __table_args__ = (_version(), CheckConstraint("revision >= 1", name="revision"))

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    revision: Mapped[int]


class PromotionRow(Base):
    """One change of an alias; append-only. `parent_revision`: the revision that a rollback of this one goes back to."""

    __tablename__ = "promotions"
    __table_args__ = (_version(), CheckConstraint("revision >= 1", name="revision"))

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
    previous_number: Mapped[int | None]
    parent_revision: Mapped[int | None]
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    by: Mapped[str]
    reason: Mapped[str | None]
    generation: Mapped[int | None] = mapped_column(Bigint)  # of routing, with which this change was announced


class ReplicaRow(Base):
    """A serving process, of no tenant.

    `joined_generation`: of the picture that it began with; `generation`: the newest that it heard of; `left_at`: when it said goodbye.
    """

    __tablename__ = "replicas"

    replica_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    joined_generation: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    generation: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
    left_at: Mapped[datetime | None]


class ReplicaAckRow(Base):
    """From `at` on the replica serves the tenant's routes of `generation`, but for the versions in `cold`, which it could not load.

    Of one generation there may be several: a version that was cold may be loaded later.
    """

    __tablename__ = "replica_acks"
    __table_args__ = (ForeignKeyConstraint(["replica_id"], ["replicas.replica_id"], ondelete="CASCADE"), OF_TENANT)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    replica_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(Bigint, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(primary_key=True, server_default=text("clock_timestamp()"))
    cold: Mapped[Any] = mapped_column(Jsonb, nullable=True)  # ["<model_id>:<number>"]; null: none
