"""Tables of the audit room."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Jsonb


class AuditEntryRow(Base):
    """Who changed what; append-only for the service. It refers to nothing: it outlives what it names."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_newest_first", "tenant_id", text("at DESC"), text("id DESC")),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)  # UUIDv7
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    before: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    after: Mapped[Any] = mapped_column(Jsonb, nullable=True)
    reason: Mapped[str | None]
