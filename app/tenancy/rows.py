"""Tables of the tenancy room."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Jsonb


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
