"""What every table shares: the declarative base, constraint names that migrations can rely on, column types."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Double, ForeignKeyConstraint, LargeBinary, MetaData, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

Jsonb = JSONB(none_as_null=True)  # Python's None is SQL's NULL, never the JSON word null
Bigint = BigInteger()
OF_TENANT = {"info": {"of_tenant": True}}  # in __table_args__: the database lets these rows exist only for tenants that exist


class Base(DeclarativeBase):
    """Base of all rows. Times are aware UTC, texts unbounded, uuids native."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        bytes: LargeBinary(),
        float: Double(),
        datetime: DateTime(timezone=True),
        UUID: Uuid(),
    }


def refer_to_tenants(metadata: MetaData) -> None:
    """Adds the references of tables marked OF_TENANT; for migrations, which know all rooms.

    Rooms import no other room's rows, and SQLAlchemy writes no row of a table that refers to one that it has not seen.
    """
    for table in metadata.tables.values():
        if table.info.get("of_tenant") and not any(key.column_keys == ["tenant_id"] for key in table.foreign_key_constraints):
            table.append_constraint(ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]))
