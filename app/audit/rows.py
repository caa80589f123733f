"""Tables of the audit room."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import OF_TENANT, Base, Bigint, Jsonb


class AuditEntryRow(Base):
    """Who changed what; append-only for the service. It refers to nothing: it outlives what it names."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_newest_first", "tenant_id", text("at DESC"), text("id DESC")),
        UniqueConstraint("tenant_id", "sequence"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    before: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    after: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    reason: Mapped[str | None]
    sequence: Mapped[int | None] = mapped_column(Bigint)  # of the tenant's chain; None: older than the chain
    seal: Mapped[bytes | None]  # over this entry and the seal before it


class AuditHeadRow(Base):
    """The newest link of a tenant's chain; locked by whoever adds one."""

    __tablename__ = "audit_heads"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(Bigint)
    seal: Mapped[bytes]


class AuditPersonRow(Base):
    """Who stands behind a pseudonym in the log; erasure takes `subject` away, and the chain stays whole."""

    __tablename__ = "audit_people"
    __table_args__ = (OF_TENANT,)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    pseudonym: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str | None]
