"""The chain of a tenant's audit log: what was changed behind the service's back is found, and named."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.audit import store
from app.audit.heads import AuditHeads
from app.audit.ports import SEALS
from app.audit.sealing import verify
from app.audit.service import AuditService
from app.audit.types import Person
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.errors import Unavailable
from app.kernel.context import Role
from app.kernel.paging import cursor
from app.tenancy.keys import MasterKey, new_secret
from app.tenancy.seals import TenantSeals
from tests.integration.audit.test_log import context
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.audit.types import Verdict
    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
MASTER = MasterKey(b"m" * 32)


def sealed_tenant(urls: DatabaseUrls, slug: str = "clinic") -> UUID:
    tenant_id = make_tenant(urls, slug)
    wrapped = MASTER.wrap(tenant_id, new_secret())
    execute(urls.superuser, "update tenants set wrapped_secret = $1 where tenant_id = $2", wrapped, tenant_id)
    return tenant_id


class Log:
    """A tenant's log with five entries, a database that seals, and a way to do wrong."""

    def __init__(self, urls: DatabaseUrls) -> None:
        self.urls, self.clock = urls, ManualClock()
        self.database = Database(urls.runtime, info={SEALS: TenantSeals(MASTER)})
        self.tenant_id = sealed_tenant(urls)

    async def write(self, *numbers: int, actor: str = "ann", **fields: Any) -> None:
        async with self.database.tenant_tx(self.tenant_id) as session:
            for number in numbers:
                given = {"action": "promote", "subject": f"alias:{number}", "before": {"n": 1e300}, "after": {"ø": [0.1, None]}, **fields}
                await store.record_by(session, self.tenant_id, actor, self.clock, **given)
                self.clock.advance(1)

    async def verdict(self, tenant_id: UUID | None = None) -> Verdict:
        of = tenant_id or self.tenant_id
        async with self.database.tenant_tx(of) as session:
            keys = await TenantSeals(MASTER).keys(session, of)
            assert keys is not None
            return await verify(session, of, keys)

    def forge(self, statement: str) -> list[Any]:
        return execute(self.urls.superuser, statement)

    async def page(self, **wanted: Any) -> list[Any]:
        return (await AuditService(self.database).entries(context(self.tenant_id, Role.ADMIN), 100, **wanted)).items


@pytest.fixture
async def log(database_urls: DatabaseUrls) -> AsyncIterator[Log]:
    log = Log(database_urls)
    await log.write(1, 2, 3, 4, 5)
    yield log
    await log.database.close()


async def test_an_untouched_log_holds_from_its_first_entry_to_its_head(log: Log) -> None:
    verdict = await log.verdict()
    assert (verdict.entries, verdict.older, verdict.broken) == (5, 0, None)
    assert log.forge("select sequence from audit_entries order by sequence") == [(n,) for n in range(1, 6)]


FORGERIES = {
    "a reason": ("update audit_entries set reason = 'x' where sequence = 3", 3, "was changed"),
    "an actor": ("update audit_entries set actor = 'bob' where sequence = 3", 3, "was changed"),
    "an action": ("update audit_entries set action = 'x' where sequence = 1", 1, "was changed"),
    "a subject": ("update audit_entries set subject = 'x' where sequence = 5", 5, "was changed"),
    "a time": ("update audit_entries set at = at + interval '1 microsecond' where sequence = 2", 2, "was changed"),
    "an id": ("update audit_entries set id = gen_random_uuid() where sequence = 2", 2, "was changed"),
    "what was": ("update audit_entries set before = '{\"n\": 1}' where sequence = 4", 4, "was changed"),
    "what is": ("update audit_entries set after = null where sequence = 4", 4, "was changed"),
    "a seal": ("update audit_entries set seal = decode(repeat('00', 32), 'hex') where sequence = 4", 4, "was changed"),
    "no seal": ("update audit_entries set seal = null where sequence = 4", 4, "was changed"),
    "deleted": ("delete from audit_entries where sequence = 3", 3, "is missing: entry 4 follows"),
    "the first deleted": ("delete from audit_entries where sequence = 1", 1, "is missing: entry 2 follows"),
    "cut off at the end": ("delete from audit_entries where sequence >= 4", 4, "is missing: the log ends too early, its head says 5"),
    "all deleted": ("delete from audit_entries", 1, "is missing: the log ends too early, its head says 5"),
    "no head": ("delete from audit_heads", 0, "is missing: the head of the chain was taken away"),
    "the head's seal": ("update audit_heads set seal = 'x'", 5, "does not bear the seal that the head"),
    "the head further back": ("update audit_heads set sequence = 4", 4, "does not bear the seal that the head"),
    "head and end": (
        "with cut as (delete from audit_entries where sequence = 5) update audit_heads set sequence = 4, seal = 'x'",
        4,
        "does not bear the seal that the head",
    ),
    "swapped": (
        (
            "update audit_entries e set action = o.action, subject = o.subject from audit_entries o"
            " where (e.sequence, o.sequence) in ((2, 4), (4, 2))"
        ),
        2,
        "was changed",
    ),
    "put in at the end": (
        (
            "insert into audit_entries (tenant_id, id, actor, action, subject, sequence, seal)"
            " select tenant_id, gen_random_uuid(), 'x', 'x', 'x', 6, seal from audit_entries where sequence = 5"
        ),
        6,
        "was put in",
    ),
    "put in before the first": (
        (
            "insert into audit_entries (tenant_id, id, actor, action, subject, sequence, seal)"
            " select tenant_id, gen_random_uuid(), 'x', 'x', 'x', 0, seal from audit_entries where sequence = 5"
        ),
        0,
        "has a number",
    ),
    "put in without a seal": (
        (
            "insert into audit_entries (tenant_id, id, actor, action, subject)"
            " select tenant_id, gen_random_uuid(), 'x', 'x', 'x' from audit_entries where sequence = 5"
        ),
        1,
        "or one of the 1 entries from before the chain",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
async def test_a_changed_deleted_inserted_swapped_or_cut_off_entry_is_found_and_named(log: Log, forgery: tuple[str, int, str]) -> None:
    statement, sequence, what = forgery
    log.forge(statement)
    broken = (await log.verdict()).broken
    assert broken is not None
    assert broken.sequence == sequence
    assert what in broken.what


async def test_entries_moved_to_another_number_are_found(log: Log) -> None:
    for old, new in ((2, -1), (4, 2), (-1, 4)):
        log.forge(f"update audit_entries set sequence = {new} where sequence = {old}")
    broken = (await log.verdict()).broken
    assert broken is not None
    assert broken.sequence == 2


async def test_a_log_of_another_tenants_key_does_not_hold(log: Log, database_urls: DatabaseUrls) -> None:
    other = sealed_tenant(database_urls, "shop")
    log.forge(f"update audit_entries set tenant_id = '{other}'")
    log.forge(f"update audit_heads set tenant_id = '{other}'")
    broken = (await log.verdict(other)).broken
    assert broken is not None
    assert broken.sequence == 1


async def test_entries_from_before_the_chain_stay_and_are_covered_by_its_first_seal(database_urls: DatabaseUrls) -> None:
    log = Log(database_urls)
    plain = Database(database_urls.runtime)
    async with plain.tenant_tx(log.tenant_id) as session:
        await store.record_by(session, log.tenant_id, "ann", log.clock, action="old", subject="x", after={"b": 1, "a": 2})
    await plain.close()
    await log.write(1, 2)
    verdict = await log.verdict()
    assert (verdict.entries, verdict.older, verdict.broken) == (2, 1, None)
    log.forge("update audit_entries set subject = 'y' where action = 'old'")
    broken = (await log.verdict()).broken
    await log.database.close()
    assert broken is not None
    assert broken.sequence == 1


async def test_concurrent_writers_keep_one_chain(database_urls: DatabaseUrls) -> None:
    log = Log(database_urls)
    await asyncio.gather(*(log.write(number) for number in range(10)))
    again = Database(database_urls.runtime, info={SEALS: TenantSeals(MASTER)})  # another process
    mine, log.database = log.database, again
    await asyncio.gather(*(log.write(number) for number in range(5)))
    log.database = mine
    verdict = await log.verdict()
    await again.close()
    await mine.close()
    assert (verdict.entries, verdict.broken) == (15, None)


async def test_a_change_that_fails_leaves_no_gap(log: Log) -> None:
    async def fail() -> None:
        async with log.database.tenant_tx(log.tenant_id) as session:
            await store.record_by(session, log.tenant_id, "ann", log.clock, action="x", subject="x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await log.write(6)
    assert (await log.verdict()).entries == 6


@pytest.mark.parametrize("statement", ["update audit_entries set reason = 'x'", "delete from audit_entries", "delete from audit_heads"])
async def test_the_runtime_role_can_neither_change_nor_delete_an_entry(log: Log, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(log.urls.runtime, statement, tenant_id=log.tenant_id)


async def test_people_are_pseudonyms_in_the_table_and_names_for_who_may_read(log: Log) -> None:
    await log.write(6, actor="bob", after={"subject": Person("cyd"), "list": [Person("ann")]})
    stored = log.forge("select * from audit_entries")
    assert not any(name in str(stored) for name in ("ann", "bob", "cyd"))
    newest, *_ = await log.page()
    assert (newest.actor, newest.after) == ("bob", {"subject": "cyd", "list": ["ann"]})
    assert {entry.actor for entry in await log.page(actor="ann")} == {"ann"}


async def test_a_person_who_is_forgotten_is_a_pseudonym_for_good_and_the_chain_holds(log: Log) -> None:
    async with log.database.tenant_tx(log.tenant_id) as session:
        assert await store.forget_person(session, log.tenant_id, "ann") == 1
        assert await store.forget_person(session, log.tenant_id, "ann") == 0
    await log.write(6)
    await log.write(7, actor="bob")
    actors = {entry.actor for entry in await log.page()}
    assert "bob" in actors
    (pseudonym,) = actors - {"bob"}
    assert pseudonym.startswith("person_")
    assert len(await log.page(actor=pseudonym)) == 6
    assert "ann" not in str(log.forge("select * from audit_people")) + str(log.forge("select * from audit_entries"))
    assert (await log.verdict()).broken is None


async def test_the_same_person_has_another_pseudonym_in_another_tenant(log: Log, database_urls: DatabaseUrls) -> None:
    mine, log.tenant_id = log.tenant_id, sealed_tenant(database_urls, "shop")
    await log.write(1)
    rows = log.forge("select tenant_id, min(actor) from audit_entries group by 1")
    assert {tenant for tenant, _ in rows} == {mine, log.tenant_id}
    assert len({actor for _, actor in rows}) == 2


async def test_the_log_is_filtered_by_actor_action_and_time_page_by_page(log: Log) -> None:
    first = log.clock.now()
    await log.write(6, actor="bob", action="withdraw")
    await log.write(7, actor="bob")
    assert [entry.subject for entry in await log.page(actor="bob")] == ["alias:7", "alias:6"]
    assert [entry.subject for entry in await log.page(action="withdraw")] == ["alias:6"]
    assert [entry.subject for entry in await log.page(actor="bob", action="promote")] == ["alias:7"]
    assert [entry.subject for entry in await log.page(start=first)] == ["alias:7", "alias:6"]
    assert [entry.subject for entry in await log.page(end=first)] == [f"alias:{n}" for n in (5, 4, 3, 2, 1)]
    assert await log.page(actor="\0") == []
    service, admin = AuditService(log.database), context(log.tenant_id, Role.ADMIN)
    one = await service.entries(admin, 1, actor="bob")
    two = await service.entries(admin, 1, one.cursors[-1], actor="bob")
    assert [page.items[0].subject for page in (one, two)] == ["alias:7", "alias:6"]
    assert (one.has_next, two.has_next) == (True, False)
    assert cursor("audit", 1, uuid4().hex) != one.cursors[0]


async def test_the_head_of_each_chain_goes_to_the_log(log: Log, database_urls: DatabaseUrls, capsys: pytest.CaptureFixture[str]) -> None:
    sealed_tenant(database_urls, "empty")
    sync = SyncDatabase(database_urls.sync)
    assert await AuditHeads(log.database, sync, log.clock).write() == 1
    await sync.close()
    ((seal,),) = log.forge("select encode(seal, 'hex') from audit_heads")
    told = capsys.readouterr().out
    assert "audit_head" in told
    assert seal in told
    assert str(log.tenant_id) in told


async def test_an_erased_tenants_entries_are_written_without_a_seal_and_another_key_writes_none(log: Log) -> None:
    other = Database(log.urls.runtime, info={SEALS: TenantSeals(MasterKey(b"x" * 32))})
    mine, log.database = log.database, other
    with pytest.raises(Unavailable, match="keys cannot be read"):
        await log.write(6)
    log.database = mine
    await other.close()
    log.forge("update tenants set wrapped_secret = ''")
    await log.write(7, actor="operator")
    assert json.loads(
        json.dumps([list(row) for row in log.forge("select sequence, actor from audit_entries order by at desc limit 1")])
    ) == [[None, "operator"]]
