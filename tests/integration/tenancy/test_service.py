from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from app.audit.service import AuditService
from app.db.outbox import changed_tenants, news
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.db.together import Together
from app.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unavailable
from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.registry.everywhere import Everywhere
from app.tenancy.changing import Changes
from app.tenancy.directory import TenantDirectory, stored_tenant, tenants_query
from app.tenancy.identity.gatekeeper import NO_TENANT
from app.tenancy.keys import MasterKey
from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.permissions import actions_of
from app.tenancy.service import TenantService
from app.tenancy.types import Durability, TenantLimits, TenantSettings, TenantStatus
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration

MASTER = MasterKey(bytes(32))


def context(*roles: Role, tenant_id: UUID = NO_TENANT, unit: str | None = None) -> RequestContext:
    given = frozenset(roles)
    return RequestContext(tenant_id, "clinic", "olga", given, actions_of(given), unit, "req", Deadline.after(5))


OPERATOR = context(Role.OPERATOR)


class House:
    """The room with its real parts around it."""

    def __init__(self, urls: DatabaseUrls, home: Path) -> None:
        self.urls, self.clock = urls, ManualClock()
        self.database, self.sync = Database(urls.runtime), SyncDatabase(urls.sync)
        self.directory, self.limiter = TenantDirectory(MASTER), RateLimiter(home / "limits.bin", self.clock)
        self.refreshed = 0
        changes = Changes(self.database, self.directory, self.clock, Everywhere(self.database, self))
        self.service = TenantService(changes, MASTER, self.limiter)

    def wake(self) -> None: ...

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        self.refreshed += 1

    async def stored(self, since: int | None = None) -> list[Any]:
        """All tenants, or those that changed after this generation."""
        query = Together({"tenants": tenants_query(None if since is None else changed_tenants())})
        async with self.sync.driver_connection() as connection:
            rows = await query.read(connection, **({} if since is None else {"since": since}))
        return [stored_tenant(row) for row in rows["tenants"]]


@pytest.fixture
async def house(database_urls: DatabaseUrls, tmp_path: Path) -> AsyncIterator[House]:
    house = House(database_urls, tmp_path)
    yield house
    await house.database.close()
    await house.sync.close()
    house.limiter.close()


async def test_a_new_tenant_is_served_at_once_here_and_found_by_every_other_replica(house: House) -> None:
    limits, settings = TenantLimits(burst=7), TenantSettings(durability=Durability.BUFFERED, holdout_percent=2.5)
    tenant = await house.service.create_tenant(OPERATOR, "clinic", "The Clinic", limits, settings)
    here = house.directory.find("clinic")
    assert here is not None
    assert here.tenant == tenant
    assert (tenant.limits, tenant.settings, tenant.status, house.refreshed) == (limits, settings, TenantStatus.ACTIVE, 1)

    async with house.sync.driver_connection() as connection:
        rows = await Together({"news": news(), "changed": changed_tenants()}).read(connection, since=0)
    assert rows == {"news": [(1, 1)], "changed": [(tenant.tenant_id,)]}
    elsewhere = TenantDirectory(MASTER)
    elsewhere.apply(await house.stored())
    there = elsewhere.find("clinic")
    assert there is not None
    assert there.tenant == tenant
    assert there.keys.ids == here.keys.ids
    assert there.keys.unit_pseudonym("u") == here.keys.unit_pseudonym("u")


async def test_the_tenants_own_audit_log_begins_with_its_making(house: House) -> None:
    tenant = await house.service.create_tenant(OPERATOR, "clinic", "The Clinic")
    (entry,) = (await AuditService(house.database).entries(context(Role.ADMIN, tenant_id=tenant.tenant_id), 9)).items
    assert (entry.actor, entry.action, entry.subject, entry.after["name"]) == ("olga", "createTenant", "tenant:clinic", "The Clinic")


async def test_of_two_who_take_one_id_at_once_one_is_told_so(house: House) -> None:
    outcomes = await asyncio.gather(
        *(house.service.create_tenant(OPERATOR, "clinic", f"Clinic {number}") for number in range(4)), return_exceptions=True
    )
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert len(refusals) == 3
    assert {refusal.message for refusal in refusals} == {"There is a tenant 'clinic' already."}
    assert len(await house.stored()) == 1
    assert [entry.tenant.id for entry in house.directory.entries()] == ["clinic"]


async def test_a_refresh_that_fails_does_not_unmake_the_tenant(house: House) -> None:
    async def away(tenant_id: UUID | None = None) -> None:
        raise Unavailable("away")

    house.caught_up = away
    assert (await house.service.create_tenant(OPERATOR, "clinic", "Clinic")).id == "clinic"


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
async def test_nobody_but_an_operator_makes_or_sees_tenants(house: House, role: Role) -> None:
    ctx = context(role)
    with pytest.raises(PermissionDenied):
        await house.service.create_tenant(ctx, "clinic", "Clinic")
    with pytest.raises(PermissionDenied):
        house.service.tenants(ctx, 9)
    with pytest.raises(PermissionDenied):
        house.service.tenant(ctx, "clinic")
    assert await house.stored() == []


@pytest.mark.parametrize(
    ("slug", "name"), [("Clinic", "x"), ("a" * 40, "x"), ("clinic", ""), ("clinic", " x"), ("clinic", "a\0b"), ("a\n", "x")]
)
async def test_a_bad_id_or_name_is_refused(house: House, slug: str, name: str) -> None:
    with pytest.raises(InvalidInput):
        await house.service.create_tenant(OPERATOR, slug, name)


async def test_tenants_are_listed_newest_first_page_by_page(house: House) -> None:
    for slug in ("a", "c", "b", "d", "e"):
        await house.service.create_tenant(OPERATOR, slug, slug)
        house.clock.advance(1 if slug != "c" else 0)  # c and b at one moment
    first = house.service.tenants(OPERATOR, 2)
    second = house.service.tenants(OPERATOR, 2, first.cursors[-1])
    third = house.service.tenants(OPERATOR, 2, second.cursors[-1])
    assert [[tenant.id for tenant in page.items] for page in (first, second, third)] == [["e", "d"], ["c", "b"], ["a"]]
    assert [page.has_next for page in (first, second, third)] == [True, True, False]


async def test_a_tenant_that_does_not_exist_is_not_found(house: House) -> None:
    with pytest.raises(NotFound):
        house.service.tenant(OPERATOR, "nobody")


async def test_the_viewer_sees_who_they_are_and_what_is_left(house: House) -> None:
    tenant = await house.service.create_tenant(OPERATOR, "clinic", "Clinic", TenantLimits(burst=20, rows_per_day=100))
    house.limiter.take(tenant.tenant_id, tenant.limits, 5)
    house.limiter.charge_rows(tenant.tenant_id, tenant.limits, 60)
    viewer = house.service.viewer(context(Role.ADMIN, Role.READER, tenant_id=tenant.tenant_id, unit="phone"))
    assert (viewer.tenant, viewer.subject, viewer.unit, viewer.roles) == ("clinic", "olga", "phone", (Role.READER, Role.ADMIN))
    assert (viewer.quota.requests_available, viewer.quota.rows_left_today) == (15, 40)
    assert house.service.viewer(OPERATOR).limits == TenantLimits()


async def test_a_unit_hash_is_the_pseudonym_of_the_tenants_keys(house: House) -> None:
    tenant = await house.service.create_tenant(OPERATOR, "clinic", "Clinic")
    entry = house.directory.find("clinic")
    assert entry is not None
    reader = context(Role.READER, tenant_id=tenant.tenant_id)
    assert house.service.unit_hash(reader, "user-42") == entry.keys.unit_pseudonym("user-42")
    with pytest.raises(InvalidInput):
        house.service.unit_hash(reader, "")
    with pytest.raises(PermissionDenied):
        house.service.unit_hash(context(Role.PREDICTOR, tenant_id=tenant.tenant_id), "user-42")


async def test_only_the_tenants_asked_for_are_loaded(house: House) -> None:
    clinic = make_tenant(house.urls, "clinic")
    await house.service.create_tenant(OPERATOR, "shop", "The Shop")
    assert [stored.tenant.id for stored in await house.stored(since=0)] == ["shop"]
    assert {stored.tenant.id for stored in await house.stored()} == {"clinic", "shop"}
    assert await house.stored(since=1) == []
    assert house.directory.by_id(clinic) is None


async def test_a_stored_field_that_we_do_not_know_stops_no_tenant(house: House) -> None:
    tenant_id = make_tenant(house.urls, "clinic")
    statement = """update tenants set limits = '{"burst": 7, "fromTheFuture": 1, "concurrency": -1}' where id = 'clinic'"""
    execute(house.urls.runtime, statement, tenant_id=tenant_id)
    (stored,) = await house.stored()
    assert stored.tenant.limits == TenantLimits(burst=7)
