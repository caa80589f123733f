"""What is on the disk is what the database says, a moment after each change; and a process starts from it as from the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import orjson
import pytest

from app.db.breaker import DatabaseBreaker
from app.db.outbox import announce
from app.db.session import Database
from app.errors import Unavailable
from app.prediction.last_good.reading import LastGoodState
from app.prediction.last_good.state import LastGoodFiles, part_of
from app.prediction.last_good.writing import LastGoodKeeper, StateWriter
from app.prediction.picture import FROZEN, Picture, read_picture
from app.prediction.refresher import STALE_AFTER_S
from app.tenancy.documents.store import FOR_ALL
from app.tenancy.keys import MasterKey
from app.tenancy.sealed_files import SealedFolder
from app.tenancy.types import TenantStatus
from tests.integration.prediction.test_refresher import Process
from tests.integration.registry.conftest import Registry, registry
from tests.support.clock import ManualClock
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["registry"]
pytestmark = pytest.mark.integration

DAY_S = 86_400.0
EXPERIMENT = """insert into experiments (tenant_id, key, model_id, model, source, status, rollout, variants, layer, slots, targeting, overrides, secondary_metrics, guardrails,
  planned_looks, created_by) values ($1, 'e', $2, 'risk', 'TURNOUT', 'RUNNING', 100, $3::jsonb, 'default', '[[0, 100000]]', '[]', '[]',
  '[]', '[]', 1, 'ann')"""

VARIANTS = """[{"name": "control", "version": null, "alias": "production", "weight": 50, "control": true, "shadow": false},
  {"name": "new", "version": 2, "alias": null, "weight": 50, "control": false, "shadow": false}]"""


class Machine:
    """Its disk, and what it would start from."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry, self.clock = registry, ManualClock()
        self.folder = SealedFolder(folder, MasterKey(bytes(32)).box("last-good"))
        self.files = LastGoodFiles(self.folder, FROZEN.shape)
        self.writer = StateWriter(self.files, self.clock)

    async def written(self, *, whole: bool = False) -> tuple[int, int]:
        """Portions that were written, and that were looked at."""
        async with self.registry.sync.driver_connection() as connection:
            done = await (self.writer.write_all(connection) if whole else self.writer.write_changed(connection))
        return done.parts, done.seen

    async def restarted(self) -> bool:
        """Whether another writer goes on from what is there."""
        self.writer = StateWriter(self.files, self.clock)
        async with self.registry.sync.driver_connection() as connection:
            return await self.writer.resume(connection)

    async def told(self) -> Picture:
        async with self.registry.sync.driver_connection() as connection:
            return await read_picture(connection, 0, whole=True)

    def kept(self, oldest_s: float = DAY_S) -> Any:
        return LastGoodState(self.folder, self.clock, oldest_s).read()

    async def changed(self, tenant_id: UUID, *statements: str) -> None:
        """A committed change of the tenant, announced."""
        for statement in statements:
            execute(self.registry.urls.superuser, statement)
        database = Database(self.registry.urls.runtime)
        async with database.tenant_tx(tenant_id) as session:
            await announce(session, tenant_id)
        await database.close()

    def on_disk(self) -> set[UUID]:
        return {tenant for name, part in self.files.head().parts.items() for tenant in self.files.part(name, part)}


@pytest.fixture
async def machine(registry: Registry, tmp_path: Path) -> Machine:
    for number in (1, 2):
        assert await registry.ready(f"model {number}".encode()) == number
    await registry.service.promote(registry.ctx, "risk", 1)
    return Machine(registry, tmp_path / "last-good")


def plain(picture: Picture) -> dict[str, Any]:
    """The picture, in one order, without what only the database's answer says of what changed."""
    return {
        "tenants": sorted(picture.tenants, key=lambda stored: stored.tenant.id),
        "models": {tenant: sorted(models, key=lambda model: model.name) for tenant, models in picture.models.items()},
        "pending": sorted(picture.pending, key=repr),
        "sets": (picture.withdrawn, picture.distrusted, picture.needed),
        "running": picture.running,
        "documents": (picture.documents, picture.documents_for_all),
    }


async def test_what_is_read_from_the_disk_is_what_the_database_says(machine: Machine) -> None:
    registry = machine.registry
    others = [make_tenant(registry.urls, f"t-{n}") for n in range(120)]  # more than are read at once
    execute(registry.urls.superuser, "update tenants set status = 'SUSPENDED' where id = 't-7'")
    denial = "insert into token_denials (tenant_id, id, jti, subject, issued_before, expires_at) values ($1, $2, null, 'mallory', $3, $4)"
    at = registry.clock.now()
    execute(registry.urls.superuser, denial, others[0], uuid4(), at, at.replace(year=2099))
    name = "insert into tenant_names (tenant_id, issuer, external_id, created_by) values ($1, 'https://idp', 'org-1', 'ann')"
    execute(registry.urls.superuser, name, others[1])
    document = "insert into documents (tenant_id, id, body, created_at, created_by) values ($1, 'd', '{ viewer { tenant } }', now(), 'a')"
    execute(registry.urls.superuser, document, others[2])
    execute(
        registry.urls.superuser, "insert into platform_documents (id, body, created_at, created_by) values ('all', '{ a }', now(), 'a')"
    )
    ((model_id,),) = registry.sql("select model_id from models")
    execute(registry.urls.superuser, EXPERIMENT, registry.tenant, model_id, VARIANTS)
    assert (await registry.register(b"model 2", "other")).number == 1  # waits for its validation

    assert await machine.written(whole=True) == (machine.files.head().parts.__len__(),) * 2
    read, told = machine.kept().picture, await machine.told()
    assert plain(read) == plain(told)
    assert read.generation == told.generation
    assert {s.tenant.id: s.tenant.status for s in read.tenants}["t-7"] is TenantStatus.SUSPENDED
    assert [d.subject for s in read.tenants for d in s.denials] == ["mallory"]
    assert [route.versions[1].signature for route in read.models[registry.tenant] if route.versions]
    assert len(read.pending) == 1
    assert [each.variants[1].version for each in read.running[registry.tenant]] == [2]
    assert read.needed == {(model_id, 2)}
    assert read.changed == set()


async def test_a_change_rewrites_the_portion_of_its_tenant_and_no_other(machine: Machine) -> None:
    for n in range(60):
        make_tenant(machine.registry.urls, f"t-{n}")
    await machine.written(whole=True)
    before = {name: part.file for name, part in machine.files.head().parts.items()}
    await machine.registry.service.promote(machine.registry.ctx, "risk", 2)
    assert await machine.written() == (1, 1)
    after = {name: part.file for name, part in machine.files.head().parts.items()}
    assert {name for name in after if after[name] != before[name]} == {part_of(machine.registry.tenant)}
    assert plain(machine.kept().picture) == plain(await machine.told())
    assert {path.name for path in machine.folder.path.iterdir()} == {"head", *after.values()}


async def test_writing_all_of_it_again_writes_what_differs_alone(machine: Machine) -> None:
    for n in range(60):
        make_tenant(machine.registry.urls, f"t-{n}")
    _, seen = await machine.written(whole=True)
    assert await machine.written(whole=True) == (0, seen)
    execute(machine.registry.urls.superuser, "update tenants set name = 'Other' where id = 't-1'")  # nobody announced it
    assert await machine.written(whole=True) == (1, seen)


async def test_a_writer_that_begins_goes_on_from_the_disk_where_that_is_of_the_databases_past(machine: Machine) -> None:
    for n in range(60):
        make_tenant(machine.registry.urls, f"t-{n}")
    await machine.written(whole=True)
    await machine.registry.service.promote(machine.registry.ctx, "risk", 2)
    assert await machine.restarted() is True
    assert await machine.written() == (1, 1)
    assert plain(machine.kept().picture) == plain(await machine.told())


async def test_a_database_of_another_past_is_read_as_a_whole_though_its_generation_is_as_high(machine: Machine) -> None:
    """A backup from before was restored and lived on: what it changed since is in no news."""
    await machine.written(whole=True)
    bob = make_tenant(machine.registry.urls, "bob")
    execute(machine.registry.urls.superuser, "update outbox set at = at + interval '1 microsecond'")
    assert await machine.restarted() is False
    await machine.written()
    assert bob in machine.on_disk()
    execute(machine.registry.urls.superuser, "delete from outbox")
    assert await machine.restarted() is False


async def test_a_damaged_portion_is_found_when_a_writer_begins(machine: Machine) -> None:
    await machine.written(whole=True)
    part = machine.files.head().parts[part_of(machine.registry.tenant)]
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.unlink()):
        await machine.written(whole=True)
        damage(machine.folder.path / machine.files.head().parts[part_of(machine.registry.tenant)].file)
        assert machine.kept() is None
        assert await machine.restarted() is False
        await machine.written()
        assert machine.on_disk() == {machine.registry.tenant}
    assert machine.files.head().parts[part_of(machine.registry.tenant)] != part


async def test_an_erased_tenant_is_gone_from_the_disk_with_the_next_writing(machine: Machine) -> None:
    bob = make_tenant(machine.registry.urls, "bob")
    await machine.written(whole=True)
    assert bob in machine.on_disk()
    await machine.changed(bob, "update tenants set status = 'ERASED', wrapped_secret = '', name = '' where id = 'bob'")
    await machine.written()
    assert machine.on_disk() == {machine.registry.tenant}
    assert len(list(machine.folder.path.iterdir())) == 1 + len(machine.files.head().parts)
    await machine.written(whole=True)
    assert machine.on_disk() == {machine.registry.tenant}


async def test_a_document_for_all_that_was_removed_is_gone(machine: Machine) -> None:
    add = "insert into platform_documents (id, body, created_at, created_by) values ('all', '{ a }', now(), 'a')"
    await machine.changed(FOR_ALL, add)
    await machine.written(whole=True)
    assert FOR_ALL in machine.on_disk()
    await machine.changed(FOR_ALL, "delete from platform_documents")
    await machine.written()
    assert FOR_ALL not in machine.on_disk()
    assert machine.kept().picture.documents_for_all.found == {}


async def test_where_the_outbox_does_not_tell_all_of_it_everything_is_read(machine: Machine) -> None:
    await machine.written(whole=True)
    bob = make_tenant(machine.registry.urls, "bob")
    await machine.changed(bob)
    await machine.changed(machine.registry.tenant, "delete from outbox where true")
    await machine.written()
    assert machine.on_disk() == {machine.registry.tenant, bob}


async def test_a_state_that_is_too_old_is_not_served_by(machine: Machine) -> None:
    await machine.written(whole=True)
    machine.clock.advance(DAY_S)
    assert machine.kept().age_s == DAY_S
    machine.clock.advance(1)
    assert machine.kept() is None
    machine.writer.confirm(machine.clock.time_ms())
    assert machine.kept().age_s == 0


async def test_rows_that_are_none_of_ours_are_refused_in_spite_of_their_shape(machine: Machine) -> None:
    await machine.written(whole=True)
    head = machine.files.head()
    name = part_of(machine.registry.tenant)
    odd = machine.files.write_part(name, {machine.registry.tenant: {"tenants": [["too few"]]}}, None)
    machine.files.write_head(replace(head, parts={name: odd}))
    assert machine.kept() is None


async def test_a_process_that_starts_from_the_disk_serves_and_takes_over_what_the_database_says_afterwards(machine: Machine) -> None:
    registry = machine.registry
    gone = make_tenant(registry.urls, "gone")
    await machine.written(whole=True)
    execute(registry.urls.superuser, "delete from tenants where id = 'gone'")
    kept = machine.kept()
    await registry.service.promote(registry.ctx, "risk", 2)

    process = Process(registry)
    clock = process.refresher._clock
    await process.refresher.adopt(replace(kept, age_s=STALE_AFTER_S - 5))
    assert (process.serves(), process.refresher.from_disk, process.table.stale) == (1, True, False)
    assert process.said.looks == 0
    assert gone in process.table._tenants
    clock.advance(5.5)
    process.refresher._tell_age()
    assert process.table.stale is True
    await process.refresher.look()
    await process.until(lambda: process.serves() == 2)
    assert (process.refresher.from_disk, process.table.stale, process.said.looks) == (False, False, 1)
    await process.refresher.settled()


async def test_tenants_that_another_database_does_not_have_are_served_no_more(machine: Machine) -> None:
    """The home was pointed at another server, or that one was set back: what it does not know is not there."""
    registry = machine.registry
    await machine.written(whole=True)
    head = machine.files.head()
    rows = dict(machine.files.part(part_of(registry.tenant), head.parts[part_of(registry.tenant)]))
    stranger = uuid4()
    text = orjson.dumps(rows[registry.tenant]).decode().replace(str(registry.tenant), str(stranger)).replace('"clinic"', '"stranger"')
    part = machine.files.write_part(part_of(stranger), {stranger: orjson.loads(text)}, None)
    machine.files.write_head(replace(head, parts=head.parts | {part_of(stranger): part}))
    process = Process(registry)
    await process.refresher.adopt(machine.kept())
    assert process.table.tenant(stranger).models
    await process.refresher.look()
    assert process.table.tenant(stranger).models == {}
    assert stranger in process.models.shuts
    await process.refresher.settled()


class Told:
    def __init__(self) -> None:
        self.at: list[float] = []

    def last_good_confirmed(self, unix_seconds: float) -> None:
        self.at.append(unix_seconds)


async def until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  a thread elsewhere brings it about
            await asyncio.sleep(0.01)


async def test_one_process_of_a_machine_writes_and_another_takes_its_place(machine: Machine) -> None:
    url, told = machine.registry.urls.sync, (Told(), Told())
    first, second = (LastGoodKeeper(url, machine.folder, each, machine.clock, DatabaseBreaker()) for each in told)
    first.start()
    generation = (await machine.told()).generation
    first.confirmed(generation)
    await until(lambda: told[0].at)
    second.start()
    await machine.registry.service.promote(machine.registry.ctx, "risk", 2)
    for keeper in (second, first):
        keeper.confirmed(generation + 1)
    await until(lambda: machine.files.head().generation == generation + 1)
    assert not told[1].at
    await machine.registry.service.promote(machine.registry.ctx, "risk", 1)
    first.confirmed(generation + 2)
    await first.stop()  # what it knows of is on the disk when it has ended
    assert machine.files.head().generation == generation + 2
    second.confirmed(generation + 2)
    await until(lambda: told[1].at)
    await second.stop()


async def test_a_database_that_is_away_leaves_the_state_as_it_was(machine: Machine) -> None:
    await machine.written(whole=True)
    before = {path.name: path.read_bytes() for path in machine.folder.path.iterdir()}
    machine.registry.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'turnout_sync'")
    with pytest.raises(Unavailable):
        await machine.written(whole=True)
    assert {path.name: path.read_bytes() for path in machine.folder.path.iterdir()} == before
