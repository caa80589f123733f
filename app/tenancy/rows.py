"""Tables of the tenancy room."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import OF_TENANT, Base, Bigint, Jsonb


class TenantRow(Base):
    """One tenant. `wrapped_secret` is its secret under the master key; the generations say which derived key counts now."""

    __tablename__ = "tenants"
    __table_args__ = (
        UniqueConstraint("id"),
        CheckConstraint("status in ('ACTIVE', 'SUSPENDED', 'ERASED')", name="status"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[str]  # what people see: "clinic"
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="ACTIVE")
    limits: Mapped[dict[str, Any]] = mapped_column(Jsonb, server_default=text("'{}'::jsonb"))
    settings: Mapped[dict[str, Any]] = mapped_column(Jsonb, server_default=text("'{}'::jsonb"))
    wrapped_secret: Mapped[bytes]
    pseudonym_generation: Mapped[int] = mapped_column(server_default=text("1"))
    assignment_generation: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class TenantNameRow(Base):
    """The name by which an issuer's tokens know the tenant."""

    __tablename__ = "tenant_names"
    __table_args__ = (OF_TENANT,)

    issuer: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str]


class TokenDenialRow(Base):
    """Tokens that work no longer: the one with `jti`, or all of `subject` issued before the moment. Kept until the last has expired."""

    __tablename__ = "token_denials"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    jti: Mapped[str | None]
    subject: Mapped[str | None]
    issued_before: Mapped[datetime]
    expires_at: Mapped[datetime]


class DocumentRow(Base):
    """A GraphQL document that a tenant registered."""

    __tablename__ = "documents"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str]


class PlatformDocumentRow(Base):
    """A GraphQL document that operators registered for all tenants."""

    __tablename__ = "platform_documents"

    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str]


class ServiceDayRow(Base):
    """How one replica served a tenant on one UTC day: what was asked, and how much of it failed or came late."""

    __tablename__ = "service_days"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    replica: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(Bigint)
    failed: Mapped[int] = mapped_column(Bigint)
    late: Mapped[int] = mapped_column(Bigint)


class TombstoneRow(Base):
    """An erasure: nothing of the unit from before `at` may land any more. `swept_at`: since when nothing is left; `rows`: how many went.

    Never changed but by the owner, who sweeps: erased again, a unit gets another one.
    """

    __tablename__ = "tombstones"
    __table_args__ = (Index("ix_tombstones_unswept", "at", postgresql_where=text("swept_at is null")), OF_TENANT)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    unit_hash: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    swept_at: Mapped[datetime | None]
    rows: Mapped[int] = mapped_column(Bigint, server_default=text("0"))
