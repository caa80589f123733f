"""Queries over tenants, their names and their denied tokens: rows in, values out."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.db.engine import violated_constraint
from app.errors import Conflict, InvalidInput
from app.journal.types import WHOLE_TENANT
from app.tenancy.rows import TenantNameRow, TenantRow, TokenDenialRow, TombstoneRow
from app.tenancy.types import (
    Erasure,
    StoredTenant,
    Tenant,
    TenantLimits,
    TenantName,
    TenantSettings,
    TenantStatus,
    TokenDenial,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

Fields = TypeVar("Fields", TenantLimits, TenantSettings)
_TAKEN, _NAME_TAKEN = "uq_tenants_id", "pk_tenant_names"
_log = logging.getLogger(__name__)


def tenants_query(of: Select[UUID] | None) -> Select[Any]:
    """The tenants that `of` selects, or all, erased ones included; for the sync role, which sees across tenants."""
    query = select(TenantRow.__table__)
    return query if of is None else query.where(TenantRow.tenant_id.in_(of))


def tenant_ids() -> Select[UUID]:
    """Every tenant, erased ones included; for the sync role."""
    return select(TenantRow.tenant_id)


def tenant_queries(of: Select[UUID] | None) -> dict[str, Select[Any]]:
    """What `tenants_of` reads, for the sync role. Denials that no token outlives are left out."""
    names = select(TenantNameRow.tenant_id, TenantNameRow.issuer, TenantNameRow.external_id)
    denials = select(TokenDenialRow.tenant_id, TokenDenialRow.jti, TokenDenialRow.subject, TokenDenialRow.issued_before)
    denials = denials.where(TokenDenialRow.expires_at > func.now())
    if of is not None:
        names, denials = names.where(TenantNameRow.tenant_id.in_(of)), denials.where(TokenDenialRow.tenant_id.in_(of))
    return {"tenants": tenants_query(of), "names": names, "denials": denials}


def tenants_of(rows: Mapping[str, Iterable[Any]]) -> list[StoredTenant]:
    """The tenants, with their names and denials, from the rows of `tenant_queries`."""
    names: dict[UUID, list[TenantName]] = defaultdict(list)
    for row in rows["names"]:
        names[row.tenant_id].append(TenantName(row.issuer, row.external_id))
    denials: dict[UUID, list[TokenDenial]] = defaultdict(list)
    for row in rows["denials"]:
        denials[row.tenant_id].append(TokenDenial(row.jti, row.subject, row.issued_before.timestamp()))
    return [stored_tenant(row, names.get(row.tenant_id, ()), denials.get(row.tenant_id, ())) for row in rows["tenants"]]


def stored_tenant(row: Any, names: Iterable[TenantName] = (), denials: Iterable[TokenDenial] = ()) -> StoredTenant:
    """Of a row of `tenants_query`, a named tuple, or of a TenantRow."""
    tenant = Tenant(
        tenant_id=row.tenant_id,
        id=row.id,
        name=row.name,
        status=TenantStatus(row.status),
        limits=_read(TenantLimits(), row.limits, row.id),
        settings=_read(TenantSettings(), row.settings, row.id),
        created_at=row.created_at,
        names=tuple(sorted(names, key=lambda name: (name.issuer, name.external_id))),
    )
    return StoredTenant(tenant, row.wrapped_secret, row.pseudonym_generation, row.assignment_generation, tuple(denials))


async def locked_tenant(session: AsyncSession, tenant_id: UUID, *, erased: bool = False) -> TenantRow | None:
    """The tenant's row, held until the transaction ends; None where it was erased, unless that is no matter."""
    query = select(TenantRow).where(TenantRow.tenant_id == tenant_id).with_for_update()
    row = (await session.execute(query)).scalar_one_or_none()
    return None if row is None or (row.status == TenantStatus.ERASED.value and not erased) else row


async def names_of(session: AsyncSession, tenant_id: UUID) -> list[TenantName]:
    rows = (await session.execute(select(TenantNameRow).where(TenantNameRow.tenant_id == tenant_id))).scalars()
    return [TenantName(row.issuer, row.external_id) for row in rows]


async def insert_name(session: AsyncSession, tenant_id: UUID, name: TenantName, by: str) -> None:
    """Maps the name to the tenant; raises Conflict where it is mapped already, to whichever tenant."""
    values = {"tenant_id": tenant_id, "issuer": name.issuer, "external_id": name.external_id, "created_by": by}
    try:
        await session.execute(insert(TenantNameRow).values(values))
    except IntegrityError as error:
        if violated_constraint(error) == _NAME_TAKEN:
            raise Conflict("This name of the issuer is mapped to another tenant: unmap it there first.") from None
        raise


async def delete_name(session: AsyncSession, tenant_id: UUID, name: TenantName) -> bool:
    """Whether the tenant had this name."""
    these = (TenantNameRow.tenant_id == tenant_id, TenantNameRow.issuer == name.issuer, TenantNameRow.external_id == name.external_id)
    return bool((await session.execute(delete(TenantNameRow).where(*these).returning(TenantNameRow.issuer))).all())


async def replace_denial(session: AsyncSession, tenant_id: UUID, denial: TokenDenial, now: datetime, until: datetime) -> int:
    """How many denials the tenant has, now that this one took the place of its like, and those that ended are gone."""
    row = TokenDenialRow
    alike = row.jti == denial.jti if denial.subject is None else row.subject == denial.subject
    await session.execute(delete(row).where(row.tenant_id == tenant_id, alike | (row.expires_at <= now)))
    values = {"tenant_id": tenant_id, "id": uuid4(), "jti": denial.jti, "subject": denial.subject}
    await session.execute(insert(row).values({**values, "issued_before": now, "expires_at": until}))
    return (await session.execute(select(func.count()).select_from(row).where(row.tenant_id == tenant_id))).scalar_one()


async def delete_ended_denials(session: AsyncSession, tenant_id: UUID, now: datetime) -> int:
    """How many denials no token outlives any more, and are gone."""
    row = TokenDenialRow
    ended = delete(row).where(row.tenant_id == tenant_id, row.expires_at <= now).returning(row.id)
    return len((await session.execute(ended)).all())


def with_ended_denials(now: datetime) -> Select[UUID]:
    """The tenants that have denials to delete; for the sync role."""
    return select(TokenDenialRow.tenant_id).where(TokenDenialRow.expires_at <= now).distinct()


async def bury_tenant(session: AsyncSession, tenant_id: UUID, erasure: Erasure) -> None:
    """What stays of a tenant: its ids and the stone. Its secret is overwritten, and with it goes whatever was sealed under it."""
    nothing: dict[str, Any] = {"limits": {}, "settings": {}, "wrapped_secret": b""}
    gone = {**nothing, "name": "", "status": TenantStatus.ERASED.value}
    await session.execute(update(TenantRow).where(TenantRow.tenant_id == tenant_id).values(gone))
    stone = {"tenant_id": tenant_id, "unit_hash": WHOLE_TENANT, "id": erasure.id, "at": erasure.at}
    await session.execute(insert(TombstoneRow).values(stone))


async def erasure_of(session: AsyncSession, tenant_id: UUID) -> Erasure | None:
    """The tenant's own erasure."""
    query = select(TombstoneRow).where(TombstoneRow.tenant_id == tenant_id, TombstoneRow.unit_hash == WHOLE_TENANT)
    row = (await session.execute(query)).scalar_one_or_none()
    return None if row is None else Erasure(row.id, row.at, row.rows)


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


def _read(value: Fields, data: Mapping[str, Any], slug: str) -> Fields:
    """What is stored, over the defaults. A field that another version of Turnout wrote otherwise must not stop the whole directory."""
    for name, item in data.items():
        try:
            value = type(value).from_json({name: item}, value)
        except InvalidInput as error:
            _log.warning("a stored field of a tenant is passed over", extra={"tenant": slug, "problem": error.message})
    return value
