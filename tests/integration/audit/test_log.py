from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from app.audit import store
from app.audit.service import AuditService
from app.db.session import Database
from app.errors import InvalidInput, PermissionDenied
from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.kernel.paging import cursor
from app.tenancy.permissions import actions_of
from tests.support.clock import ManualClock
from tests.support.database import make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration


def context(tenant_id: UUID, *roles: Role, subject: str = "ada") -> RequestContext:
    given = frozenset(roles)
    return RequestContext(tenant_id, "clinic", subject, given, actions_of(given), None, "req", Deadline.after(5))


@asynccontextmanager
async def opened(urls: DatabaseUrls) -> AsyncIterator[Database]:
    database = Database(urls.runtime)
    try:
        yield database
    finally:
        await database.close()


async def write(database: Database, ctx: RequestContext, clock: ManualClock, *numbers: int, **fields: Any) -> None:
    async with database.tenant_tx(ctx.tenant_id) as session:
        for number in numbers:
            await store.record(session, ctx, clock, **{"action": "promote", "subject": f"alias:{number}", **fields})


async def test_entries_come_newest_first_page_by_page(database_urls: DatabaseUrls) -> None:
    admin, clock = context(make_tenant(database_urls, "clinic"), Role.ADMIN), ManualClock()
    async with opened(database_urls) as database:
        await write(database, admin, clock, *range(12))  # all at one microsecond: the id decides
        clock.advance(0.000_001)
        await write(database, admin, clock, 12)
        audit = AuditService(database)
        seen, after = [], None
        for _ in range(3):
            page = await audit.entries(admin, 5, after)
            seen += [entry.id for entry in page.items]
            after = page.cursors[-1]
        assert page.has_next is False
        assert page.has_previous is True
        whole = await audit.entries(admin, 100)
    assert len(set(seen)) == 13
    assert seen == [entry.id for entry in whole.items]
    assert whole.items[0].subject == "alias:12"
    assert [entry.at for entry in whole.items] == sorted((entry.at for entry in whole.items), reverse=True)


async def test_an_entry_says_who_what_before_after_and_why(database_urls: DatabaseUrls) -> None:
    tenant_id, clock = make_tenant(database_urls, "clinic"), ManualClock()
    admin = context(tenant_id, Role.ADMIN)
    async with opened(database_urls) as database:
        await write(database, admin, clock, 1, before={"version": 1}, after={"version": 2, "tags": ["a"]}, reason="better")
        async with database.tenant_tx(tenant_id) as session:
            await store.record_by(session, tenant_id, "turnout", clock, action="validate", subject="version:churn/1")
        audit = AuditService(database)
        (by_us,) = (await audit.entries(admin, 9, subject="version:churn/1")).items
        (by_ada,) = (await audit.entries(admin, 9, subject="alias:1")).items
        assert (await audit.entries(admin, 9, subject="alias:\0")).items == []
    assert (by_us.actor, by_us.before, by_us.after, by_us.reason) == ("turnout", None, None, None)
    assert (by_ada.actor, by_ada.action, by_ada.reason) == ("ada", "promote", "better")
    assert (by_ada.before, by_ada.after) == ({"version": 1}, {"version": 2, "tags": ["a"]})
    assert by_ada.at == clock.now()
    assert by_ada.id.version == 7
    assert by_ada.id.int >> 80 == clock.time_ms()


async def record_and_fail(database: Database, ctx: RequestContext, clock: ManualClock) -> None:
    async with database.tenant_tx(ctx.tenant_id) as session:
        await store.record(session, ctx, clock, action="promote", subject="alias:1")
        raise ZeroDivisionError


async def test_a_change_that_fails_leaves_no_entry(database_urls: DatabaseUrls) -> None:
    admin, clock = context(make_tenant(database_urls, "clinic"), Role.ADMIN), ManualClock()
    async with opened(database_urls) as database:
        with pytest.raises(ZeroDivisionError):
            await record_and_fail(database, admin, clock)
        with pytest.raises(InvalidInput, match="NUL"):
            await write(database, admin, clock, 1, reason="a\0b")
        assert (await AuditService(database).entries(admin, 9)).items == []


async def test_another_tenants_entries_are_not_there(database_urls: DatabaseUrls) -> None:
    clinic, shop = (context(make_tenant(database_urls, slug), Role.ADMIN) for slug in ("clinic", "shop"))
    async with opened(database_urls) as database:
        await write(database, shop, ManualClock(), 1)
        page = await AuditService(database).entries(shop, 9)
        assert (await AuditService(database).entries(clinic, 9)).items == []
        key = (2_000_000_000_000_000, page.items[0].id.hex)
        assert (await AuditService(database).entries(clinic, 9, cursor("audit", *key))).items == []


@pytest.mark.parametrize("role", [Role.READER, Role.EXPERIMENTER, Role.PUBLISHER, Role.PREDICTOR, Role.OPERATOR])
async def test_only_an_admin_reads_it(database_urls: DatabaseUrls, role: Role) -> None:
    async with opened(database_urls) as database:
        with pytest.raises(PermissionDenied, match="READ_AUDIT"):
            await AuditService(database).entries(context(make_tenant(database_urls, "clinic"), role), 9)


@pytest.mark.parametrize("key", [("x", "y"), (1, "y"), (1,), (2**62, "0" * 32), ("1", 7)])
async def test_a_forged_cursor_is_refused_not_failed(database_urls: DatabaseUrls, key: tuple[Any, ...]) -> None:
    async with opened(database_urls) as database:
        with pytest.raises(InvalidInput, match="cursor"):
            await AuditService(database).entries(context(make_tenant(database_urls, "clinic"), Role.ADMIN), 9, cursor("audit", *key))
