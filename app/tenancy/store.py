"""Queries over `tenants`: rows in, values out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.db.engine import violated_constraint
from app.errors import Conflict, InvalidInput
from app.tenancy.rows import TenantRow
from app.tenancy.types import StoredTenant, Tenant, TenantLimits, TenantSettings, TenantStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

Fields = TypeVar("Fields", TenantLimits, TenantSettings)
_TAKEN = "uq_tenants_id"
_log = logging.getLogger(__name__)


def tenants_query(of: Select[UUID] | None) -> Select[Any]:
    """The tenants that `of` selects, or all, erased ones included; for the sync role, which sees across tenants."""
    query = select(TenantRow.__table__)
    return query if of is None else query.where(TenantRow.tenant_id.in_(of))


def stored_tenant(row: Any) -> StoredTenant:
    """Of a row of `tenants_query`, a named tuple."""
    return _stored(row._asdict())


async def insert_tenant(session: AsyncSession, stored: StoredTenant) -> None:
    """Adds the tenant, in a transaction of that very tenant; raises Conflict where the id is taken."""
    tenant = stored.tenant
    row = {
        "tenant_id": tenant.tenant_id,
        "id": tenant.id,
        "name": tenant.name,
        "status": tenant.status.value,
        "limits": tenant.limits.to_json(),
        "settings": tenant.settings.to_json(),
        "wrapped_secret": stored.wrapped_secret,
        "pseudonym_generation": stored.pseudonym_generation,
        "assignment_generation": stored.assignment_generation,
        "created_at": tenant.created_at,
    }
    try:
        await session.execute(insert(TenantRow).values(row))
    except IntegrityError as error:
        if violated_constraint(error) == _TAKEN:
            raise Conflict(f"There is a tenant {tenant.id!r} already.") from None
        raise


def _stored(row: Mapping[str, Any]) -> StoredTenant:
    tenant = Tenant(
        tenant_id=row["tenant_id"],
        id=row["id"],
        name=row["name"],
        status=TenantStatus(row["status"]),
        limits=_read(TenantLimits(), row["limits"], row["id"]),
        settings=_read(TenantSettings(), row["settings"], row["id"]),
        created_at=row["created_at"],
    )
    return StoredTenant(tenant, row["wrapped_secret"], row["pseudonym_generation"], row["assignment_generation"])


def _read(value: Fields, data: Mapping[str, Any], slug: str) -> Fields:
    """What is stored, over the defaults. A field that another version of Turnout wrote otherwise must not stop the whole directory."""
    for name, item in data.items():
        try:
            value = type(value).from_json({name: item}, value)
        except InvalidInput as error:
            _log.warning("a stored field of a tenant is passed over", extra={"tenant": slug, "problem": error.message})
    return value
