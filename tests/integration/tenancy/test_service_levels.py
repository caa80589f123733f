from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from app.db.session import Database
from app.errors import InvalidInput, PermissionDenied
from app.kernel.context import Role
from app.settings import UsageSettings
from app.tenancy.service_levels import ServiceLevels
from tests.integration.audit.test_log import context
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    database = Database(database_urls.runtime)
    yield database
    await database.close()


def levels(database: Database, clock: ManualClock) -> ServiceLevels:
    return ServiceLevels(database, clock, "host/1-0", UsageSettings("EUR", 0, 0, 0, 0, slo_latency_ms=100, slo_objective=0.9))


async def test_late_and_failed_requests_are_told_apart_and_spend_the_error_budget(database: Database, database_urls: DatabaseUrls) -> None:
    clock, tenant_id = ManualClock(), make_tenant(database_urls, "clinic")
    reader, mine, other = context(tenant_id, Role.READER), levels(database, clock), levels(database, clock)
    assert (await mine.of(reader, 30)).share == 1.0
    assert (await mine.of(reader, 30)).error_budget_left == 1.0
    for _ in range(36):
        mine.count(tenant_id, 0.1, failed=False)  # just in time
    mine.count(tenant_id, 0.100_001, failed=False)
    other.count(tenant_id, 9.0, failed=True)  # failed, and not late as well
    for process in (mine, other, mine, other):  # however often it is written
        await process.write()
    other.count(tenant_id, 0.0, failed=False)
    mine.count(tenant_id, 0.0, failed=False)
    await other.write()
    await mine.write()
    level = await mine.of(reader, 1)
    assert (level.requests, level.failed, level.late, level.objective) == (40, 1, 1, 0.9)
    assert level.share == 0.95
    assert level.error_budget_left == pytest.approx(0.5)
    assert execute(database_urls.superuser, "select count(*) from service_days") == [(2,)]


async def test_only_the_last_days_count_and_what_a_process_wrote_stays(database: Database, database_urls: DatabaseUrls) -> None:
    clock, tenant_id = ManualClock(), make_tenant(database_urls, "clinic")
    reader = context(tenant_id, Role.READER)
    for _ in range(3):  # a process a day
        process = levels(database, clock)
        process.count(tenant_id, 1.0, failed=False)
        await process.write()
        clock.advance(timedelta(days=1).total_seconds())
    process.count(tenant_id, 1.0, failed=False)
    await process.write()
    assert [(await process.of(reader, days)).late for days in (1, 2, 3, 4, 400)] == [1, 2, 3, 4, 4]


async def test_what_cannot_be_written_is_written_later(database: Database, database_urls: DatabaseUrls) -> None:
    clock, tenant_id = ManualClock(), make_tenant(database_urls, "clinic")
    process = levels(Database("postgresql://turnout_runtime:x@127.0.0.1:1/turnout"), clock)
    process.count(tenant_id, 0.0, failed=True)
    await process.write()
    process._database = database
    await process.write()
    assert (await process.of(context(tenant_id, Role.READER), 1)).failed == 1


async def test_another_tenants_level_is_its_own_and_bad_days_are_refused(database: Database, database_urls: DatabaseUrls) -> None:
    clinic, shop = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "shop")
    process = levels(database, ManualClock())
    process.count(shop, 0.0, failed=True)
    await process.write()
    assert (await process.of(context(clinic, Role.ADMIN), 30)).requests == 0
    for days in (0, -1, 401):
        with pytest.raises(InvalidInput, match="days"):
            await process.of(context(clinic, Role.ADMIN), days)
    with pytest.raises(PermissionDenied, match="READ_USAGE"):
        await process.of(context(clinic, Role.PREDICTOR), 30)
