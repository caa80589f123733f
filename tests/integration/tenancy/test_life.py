"""Operators' changes of a tenant, revoked tokens and other issuers' names, with two replicas' directories over one real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from app.audit.service import AuditService
from app.db.driver import connect
from app.db.outbox import changed_tenants, news
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.db.together import Together
from app.errors import Conflict, InvalidInput, NotFound, PermissionDenied, QuotaExceeded, TenantSuspended, Unauthenticated, Unavailable
from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.tenancy import revocations
from app.tenancy.changing import Changes
from app.tenancy.directory import TenantDirectory, tenant_queries, tenants_of
from app.tenancy.identity.gatekeeper import NO_TENANT, Gatekeeper
from app.tenancy.identity.keysets import StaticKeys
from app.tenancy.identity.verifier import LEEWAY_S, LONGEST_LIFETIME_S, TrustedIssuer, Verifier, build_key
from app.tenancy.keys import MasterKey
from app.tenancy.life import TenantLife
from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.newcomers import Newcomers, derived_id
from app.tenancy.permissions import actions_of
from app.tenancy.revocations import KEPT, Revocations
from app.tenancy.service import TenantService
from app.tenancy.types import Durability, TenantLimits, TenantName, TenantStatus
from tests.support import tokens
from tests.support.clock import ManualClock
from tests.support.database import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from uuid import UUID

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration

MASTER = MasterKey(bytes(32))


class Replica:
    """One serving process's tenancy: directory, services and door."""

    def __init__(self, urls: DatabaseUrls, home: Path, clock: ManualClock, replicas: list[Replica], **issuer: Any) -> None:
        self.database, self.sync, self.clock, self._all = Database(urls.runtime), SyncDatabase(urls.sync), clock, replicas
        self.directory, self.limiter = TenantDirectory(MASTER), RateLimiter(home / "limits.bin", clock)
        self.waited_for: list[int] = []
        changes = Changes(self.database, self.directory, clock, self)
        self.tenants, self.life = TenantService(changes, MASTER, self.limiter), TenantLife(changes)
        self.revocations, self.newcomers = Revocations(changes, self.sync), Newcomers(changes, MASTER)
        keys = StaticKeys({"RS256": build_key(tokens.public_pem().decode(), "RS256")})
        self.verifier = Verifier([TrustedIssuer(tokens.issuer(**issuer), keys)], clock)
        self.door = Gatekeeper(self.verifier, self.directory, clock, self.caught_up, self.newcomers)
        replicas.append(self)

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        async with self.sync.driver_connection() as connection:
            self.directory.apply(tenants_of(await Together(tenant_queries(None)).read(connection)))

    async def in_force(self, tenant_id: UUID | None, generation: int) -> None:
        """As the registry's acknowledgements would have it: every replica has looked."""
        self.waited_for.append(generation)
        self.clock.advance(0.001)  # so that the audit log has an order
        for replica in self._all:
            await replica.caught_up()

    async def enter(self, token: str) -> RequestContext:
        return await self.door.admit(f"Bearer {token}", "req", Deadline.after(5))

    async def close(self) -> None:
        await self.database.close()
        await self.sync.close()
        self.limiter.close()


class House:
    """Two replicas; `here` is asked, `there` must heed."""

    def __init__(self, urls: DatabaseUrls, home: Path, **issuer: Any) -> None:
        self.urls, self.clock = urls, ManualClock(datetime.now(UTC).replace(microsecond=500_000))  # the database has its own
        replicas: list[Replica] = []
        (home / "1").mkdir()
        (home / "2").mkdir()
        self.here, self.there = (Replica(urls, home / name, self.clock, replicas, **issuer) for name in ("1", "2"))
        self.life, self.revocations = self.here.life, self.here.revocations

    async def tenant(self, slug: str = "clinic") -> UUID:
        made = await self.here.tenants.create_tenant(OPERATOR, slug, slug.title())
        self.clock.advance(0.001)
        return made.tenant_id

    def token(self, tenant: str = "clinic", age_s: float = 1, **claims: Any) -> str:
        """Of the issuer, `age_s` old, good for an hour."""
        now = self.clock.time_ms() // 1000
        return tokens.good_token(org_id=tenant, **{"iat": now - int(age_s), "exp": now + 3600, "roles": ["ADMIN"], **claims})

    async def audit(self, tenant_id: UUID) -> list[Any]:
        """Newest first, as (action, actor, before, after, reason)."""
        entries = (await AuditService(self.here.database).entries(context(Role.ADMIN, tenant_id=tenant_id), 99)).items
        return [(e.action, e.actor, e.before, e.after, e.reason) for e in entries]

    async def changed(self) -> list[UUID]:
        """Of which tenants the outbox tells, in order."""
        async with self.here.sync.driver_connection() as connection:
            rows = await Together({"news": news(), "changed": changed_tenants()}).read(connection, since=0)
        assert rows["news"][0][0] == len(rows["changed"])
        return [row[0] for row in rows["changed"]]


def context(*roles: Role, tenant_id: UUID = NO_TENANT, tenant: str = "clinic") -> RequestContext:
    given = frozenset(roles)
    return RequestContext(tenant_id, tenant, "olga", given, actions_of(given), None, "req", Deadline.after(5))


OPERATOR = context(Role.OPERATOR, tenant="platform")


@pytest.fixture
async def houses(database_urls: DatabaseUrls, tmp_path: Path) -> AsyncIterator[Callable[..., House]]:
    made: list[House] = []

    def make(**issuer: Any) -> House:
        made.append(House(database_urls, tmp_path, **issuer))
        return made[-1]

    yield make
    for house in made:
        await house.here.close()
        await house.there.close()


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses()


async def refusal(replica: Replica, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await replica.enter(token)
    assert caught.value.message == "A valid bearer token is needed."
    return caught.value.reason


# Limits and settings


async def test_limits_that_are_given_change_and_the_others_stay_on_every_replica(house: House) -> None:
    tenant_id = await house.tenant()
    await house.life.update_limits(OPERATOR, "clinic", {"burst": 7, "maxModels": 3})
    changed = await house.life.update_limits(OPERATOR, "clinic", {"burst": None, "rowsPerDay": 5})
    expected = TenantLimits(burst=7, max_models=3, rows_per_day=5)
    assert changed.limits == expected
    for replica in (house.here, house.there):
        entry = replica.directory.find("clinic")
        assert entry is not None
        assert entry.tenant == changed
    assert house.here.waited_for == [1, 2, 3]  # the tenant itself, and each change
    assert await house.changed() == [tenant_id] * 3
    newest, before, _ = await house.audit(tenant_id)
    assert newest == ("updateTenantLimits", "olga", {"rowsPerDay": 50_000_000}, {"rowsPerDay": 5}, None)
    assert before[2:4] == ({"burst": 20_000, "maxModels": 200}, {"burst": 7, "maxModels": 3})


async def test_settings_that_are_given_change_and_the_others_stay(house: House) -> None:
    tenant_id = await house.tenant()
    changed = await house.life.update_settings(OPERATOR, "clinic", {"holdoutPercent": 2.5, "durability": "BUFFERED", "captureInputs": None})
    assert (changed.settings.holdout_percent, changed.settings.durability, changed.settings.capture_inputs) == (
        2.5, Durability.BUFFERED, False,
    )  # fmt: skip
    there = house.there.directory.find("clinic")
    assert there is not None
    assert there.tenant.settings == changed.settings
    assert (await house.audit(tenant_id))[0][2:4] == (
        {"durability": "DURABLE", "holdoutPercent": 0.0},
        {"durability": "BUFFERED", "holdoutPercent": 2.5},
    )


async def test_what_is_so_already_is_no_change_and_nobody_is_told(house: House) -> None:
    tenant_id = await house.tenant()
    await house.life.update_limits(OPERATOR, "clinic", {})
    await house.life.update_limits(OPERATOR, "clinic", {"burst": TenantLimits().burst})
    await house.life.update_settings(OPERATOR, "clinic", {"holdoutPercent": 0})
    await house.life.resume(OPERATOR, "clinic")
    await house.life.suspend(OPERATOR, "clinic", "late")
    await house.life.suspend(OPERATOR, "clinic", "later")
    assert [entry[0] for entry in await house.audit(tenant_id)] == ["suspendTenant", "createTenant"]
    assert await house.changed() == [tenant_id] * 2


async def test_a_stored_field_of_a_newer_version_outlives_a_change(house: House) -> None:
    tenant_id = await house.tenant()
    execute(house.urls.runtime, """update tenants set limits = '{"fromTheFuture": 1}'""", tenant_id=tenant_id)
    await house.life.update_limits(OPERATOR, "clinic", {"burst": 7})
    ((limits,),) = execute(house.urls.runtime, "select limits::text from tenants", tenant_id=tenant_id)
    assert '"fromTheFuture": 1' in limits
    assert '"burst": 7' in limits


async def test_two_changes_at_once_both_count(house: House) -> None:
    await house.tenant()
    await asyncio.gather(
        house.life.update_limits(OPERATOR, "clinic", {"burst": 7}), house.there.life.update_limits(OPERATOR, "clinic", {"maxModels": 3})
    )
    entry = house.here.directory.find("clinic")
    assert entry is not None
    assert entry.tenant.limits == TenantLimits(burst=7, max_models=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda life: life.update_limits(OPERATOR, "clinic", {"burst": 0}), "limits.burst"),
        (lambda life: life.update_settings(OPERATOR, "clinic", {"retentionDays": 0}), "settings.retentionDays"),
        (lambda life: life.suspend(OPERATOR, "clinic", " "), "reason is empty"),
        (lambda life: life.suspend(OPERATOR, "clinic", "x" * 1_001), "reason has 1,001 characters; at most 1,000 are kept"),
        (lambda life: life.suspend(OPERATOR, "clinic", "a\0b"), "reason holds a character"),
        (lambda life: life.erase(OPERATOR, "clinic", "Clinic", "x"), "confirm must repeat"),
        (lambda life: life.erase(OPERATOR, "clinic", "clinic", ""), "reason is empty"),
        (lambda life: life.map_name(OPERATOR, "clinic", "", "x"), "issuer must be"),
        (lambda life: life.map_name(OPERATOR, "clinic", "https://a", "a\nb"), "externalId must be"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(house: House, call: Any, message: str) -> None:
    tenant_id = await house.tenant()
    with pytest.raises(InvalidInput, match=message):
        await call(house.life)
    assert [entry[0] for entry in await house.audit(tenant_id)] == ["createTenant"]
    assert house.here.directory.find("clinic").tenant.status is TenantStatus.ACTIVE  # type: ignore[union-attr]


CALLS: list[Any] = [
    lambda life, ctx, slug: life.update_limits(ctx, slug, {"burst": 1}),
    lambda life, ctx, slug: life.update_settings(ctx, slug, {"retentionDays": 1}),
    lambda life, ctx, slug: life.suspend(ctx, slug, "x"),
    lambda life, ctx, slug: life.resume(ctx, slug, "x"),
    lambda life, ctx, slug: life.erase(ctx, slug, slug, "x"),
    lambda life, ctx, slug: life.map_name(ctx, slug, "https://a", "x"),
    lambda life, ctx, slug: life.unmap_name(ctx, slug, "https://a", "x"),
]


@pytest.mark.parametrize("call", CALLS)
async def test_operators_alone_may_and_a_tenant_that_is_not_there_is_not_found(house: House, call: Any) -> None:
    tenant_id = await house.tenant()
    for role in set(Role) - {Role.OPERATOR}:
        with pytest.raises(PermissionDenied):
            await call(house.life, context(role, tenant_id=tenant_id), "clinic")
    with pytest.raises(NotFound, match="There is no such tenant"):
        await call(house.life, OPERATOR, "nobody")


async def test_a_tenant_that_another_replica_made_is_found_at_once(house: House) -> None:
    await house.there.tenants.create_tenant(OPERATOR, "clinic", "Clinic")
    assert (await house.life.suspend(OPERATOR, "clinic", "x")).status is TenantStatus.SUSPENDED


# Suspending and erasing


async def test_a_suspended_tenant_is_refused_on_every_replica_also_with_a_token_seen_before_until_it_is_resumed(house: House) -> None:
    tenant_id = await house.tenant()
    await house.there.caught_up()
    token = house.token()
    for replica in (house.here, house.there):
        assert (await replica.enter(token)).tenant == "clinic"
    assert (await house.life.suspend(OPERATOR, "clinic", "unpaid")).status is TenantStatus.SUSPENDED
    for replica in (house.here, house.there):
        with pytest.raises(TenantSuspended):
            await replica.enter(token)
    assert (await house.life.resume(OPERATOR, "clinic", "paid")).status is TenantStatus.ACTIVE
    for replica in (house.here, house.there):
        assert (await replica.enter(token)).tenant == "clinic"
    assert (await house.audit(tenant_id))[:2] == [
        ("resumeTenant", "olga", {"status": "SUSPENDED"}, {"status": "ACTIVE"}, "paid"),
        ("suspendTenant", "olga", {"status": "ACTIVE"}, {"status": "SUSPENDED"}, "unpaid"),
    ]


async def test_an_erased_tenant_is_gone_for_everybody_its_secret_destroyed_and_its_id_taken(house: House) -> None:
    tenant_id = await house.tenant()
    await house.there.caught_up()
    token = house.token()
    await house.there.enter(token)
    erasure = await house.life.erase(OPERATOR, "clinic", "clinic", "contract ended")
    for replica in (house.here, house.there):
        assert await refusal(replica, token) == "unknown_tenant"
        assert replica.directory.by_id(tenant_id) is None
    statement = "select status, wrapped_secret, name, limits::text, settings::text from tenants"
    assert [tuple(row) for row in execute(house.urls.runtime, statement, tenant_id=tenant_id)] == [("ERASED", b"", "", "{}", "{}")]
    for call in CALLS[:4] + CALLS[5:6]:
        with pytest.raises(NotFound):
            await call(house.life, OPERATOR, "clinic")
    with pytest.raises(Conflict):
        await house.tenant()
    assert (await house.audit(tenant_id))[0] == ("eraseTenant", "olga", {"status": "ACTIVE"}, {"status": "ERASED"}, "contract ended")
    execute(house.urls.superuser, "update tombstones set rows = 42 where tenant_id = $1", tenant_id)
    again = await house.there.life.erase(OPERATOR, "clinic", "clinic", "once more")
    assert (again.id, again.at, again.rows) == (erasure.id, erasure.at, 42)
    assert len(await house.changed()) == 2


async def test_a_suspended_tenant_can_be_erased(house: House) -> None:
    await house.tenant()
    await house.life.suspend(OPERATOR, "clinic", "x")
    await house.life.erase(OPERATOR, "clinic", "clinic", "x")
    assert await refusal(house.there, house.token()) == "unknown_tenant"


# Revoked tokens


async def test_a_callers_older_tokens_end_on_every_replica_and_newer_and_others_do_not(house: House) -> None:
    tenant_id = await house.tenant()
    await house.there.caught_up()
    old, undated, other = house.token(sub="ada"), house.token(sub="ada", iat=tokens.MISSING), house.token(sub="eve")
    for replica in (house.here, house.there):
        for token in (old, undated, other):
            await replica.enter(token)
    admin = context(Role.ADMIN, tenant_id=tenant_id)
    assert await house.revocations.revoke(admin, None, "ada", None, "left the company") is True
    same_second = house.token(sub="ada", age_s=0)
    house.clock.advance(1)
    newer = house.token(sub="ada", age_s=0)
    for replica in (house.here, house.there):
        assert [await refusal(replica, token) for token in (old, undated, same_second)] == ["revoked"] * 3
        assert [(await replica.enter(token)).subject for token in (other, newer)] == ["eve", "ada"]
    assert (await house.audit(tenant_id))[0] == ("revokeTokens", "olga", None, {"subject": "ada"}, "left the company")


async def test_one_token_ends_by_its_id_and_the_callers_others_do_not(house: House) -> None:
    tenant_id = await house.tenant()
    await house.there.caught_up()
    lost, kept = house.token(sub="ada", jti="t-1"), house.token(sub="ada", jti="t-2")
    for token in (lost, kept):
        await house.there.enter(token)
    await house.revocations.revoke(context(Role.ADMIN, tenant_id=tenant_id), "clinic", None, "t-1", "lost laptop")
    assert await refusal(house.there, lost) == "revoked"
    assert (await house.there.enter(kept)).subject == "ada"


async def test_revoking_again_ends_what_was_issued_between(house: House) -> None:
    tenant_id = await house.tenant()
    admin = context(Role.ADMIN, tenant_id=tenant_id)
    await house.revocations.revoke(admin, None, "ada", None, "x")
    house.clock.advance(5)
    between = house.token(sub="ada")
    assert (await house.here.enter(between)).subject == "ada"
    await house.revocations.revoke(admin, None, "ada", None, "x")
    assert await refusal(house.here, between) == "revoked"
    assert [tuple(row) for row in execute(house.urls.runtime, "select count(*) from token_denials", tenant_id=tenant_id)] == [(1,)]


async def test_an_admin_ends_tokens_of_the_own_tenant_and_an_operator_of_the_one_that_is_named(house: House) -> None:
    clinic, shop = await house.tenant(), await house.tenant("shop")
    admin = context(Role.ADMIN, tenant_id=clinic)
    revoke = house.revocations.revoke
    with pytest.raises(NotFound) as foreign:
        await revoke(admin, "shop", "ada", None, "x")
    with pytest.raises(NotFound) as nobody:
        await revoke(admin, "nobody", "ada", None, "x")
    assert str(foreign.value) == str(nobody.value)
    with pytest.raises(NotFound):
        await revoke(OPERATOR, "nobody", "ada", None, "x")
    with pytest.raises(InvalidInput, match="tenant must be named"):
        await revoke(OPERATOR, None, "ada", None, "x")
    for role in set(Role) - {Role.ADMIN, Role.OPERATOR}:
        with pytest.raises(PermissionDenied):
            await revoke(context(role, tenant_id=clinic), None, "ada", None, "x")
    await revoke(OPERATOR, "shop", "ada", None, "x")
    assert await refusal(house.there, house.token("shop", sub="ada")) == "revoked"
    assert (await house.there.enter(house.token(sub="ada"))).tenant_id == clinic
    both = context(Role.ADMIN, Role.OPERATOR, tenant_id=clinic)
    await revoke(both, None, "eve", None, "x")
    await revoke(both, "shop", "bob", None, "x")
    assert await refusal(house.there, house.token(sub="eve")) == await refusal(house.there, house.token("shop", sub="bob")) == "revoked"
    assert len(await house.audit(shop)) == 3


@pytest.mark.parametrize(("subject", "jti"), [(None, None), ("ada", "t-1"), ("", None), (None, "a\0b"), ("x" * 201, None)])
async def test_exactly_one_good_word_says_which_tokens_end(house: House, subject: str | None, jti: str | None) -> None:
    tenant_id = await house.tenant()
    with pytest.raises(InvalidInput):
        await house.revocations.revoke(context(Role.ADMIN, tenant_id=tenant_id), None, subject, jti, "x")
    assert [entry[0] for entry in await house.audit(tenant_id)] == ["createTenant"]


async def test_a_denial_is_kept_until_no_token_that_it_means_can_be_good_and_not_longer(house: House) -> None:
    tenant_id = await house.tenant()
    admin = context(Role.ADMIN, tenant_id=tenant_id)
    # The youngest token that was good at the revocation, from an issuer whose clock is a leeway ahead, with the longest lifetime.
    now = house.clock.time_ms() // 1000
    ahead = now + int(LEEWAY_S)
    token = house.token(sub="ada", jti="youngest", iat=ahead, exp=ahead + int(LONGEST_LIFETIME_S + LEEWAY_S))
    await house.here.enter(token)
    await house.revocations.revoke(admin, None, None, "youngest", "x")
    house.clock.advance(KEPT.total_seconds() - 1)
    assert await house.revocations.sweep() == 0
    house.clock.advance(1)
    with pytest.raises(Unauthenticated) as caught:
        await house.here.enter(token)
    assert caught.value.reason == "expired"
    assert await house.revocations.sweep() == 1
    assert execute(house.urls.runtime, "select 1 from token_denials", tenant_id=tenant_id) == []


async def test_a_new_denial_takes_those_that_ended_along(house: House) -> None:
    tenant_id = await house.tenant()
    admin = context(Role.ADMIN, tenant_id=tenant_id)
    await house.revocations.revoke(admin, None, "ada", None, "x")
    house.clock.advance(KEPT.total_seconds())
    await house.revocations.revoke(admin, None, "eve", None, "x")
    found = execute(house.urls.runtime, "select subject from token_denials", tenant_id=tenant_id)
    assert [row[0] for row in found] == ["eve"]


async def test_a_tenant_cannot_fill_everybodys_memory_with_denials(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MOST_DENIALS", 2)
    tenant_id = await house.tenant()
    admin = context(Role.ADMIN, tenant_id=tenant_id)
    for subject in ("a", "b", "b"):
        await house.revocations.revoke(admin, None, subject, None, "x")
    with pytest.raises(QuotaExceeded):
        await house.revocations.revoke(admin, None, "c", None, "x")
    assert [row[0] for row in execute(house.urls.runtime, "select subject from token_denials order by 1", tenant_id=tenant_id)] == [
        "a",
        "b",
    ]


# Names of other issuers


async def test_a_mapped_name_is_the_tenants_on_every_replica_until_it_is_unmapped(house: House) -> None:
    tenant_id = await house.tenant()
    token = house.token("org_2Xy")
    assert await refusal(house.there, token) == "unknown_tenant"
    named = await house.life.map_name(OPERATOR, "clinic", tokens.ISSUER, "org_2Xy")
    assert named.names == (TenantName(tokens.ISSUER, "org_2Xy"),)
    entered = await house.there.enter(token)
    assert (entered.tenant_id, entered.tenant) == (tenant_id, "clinic")
    await house.life.map_name(OPERATOR, "clinic", tokens.ISSUER, "org_2Xy")
    assert (await house.life.unmap_name(OPERATOR, "clinic", tokens.ISSUER, "org_2Xy")).names == ()
    assert await refusal(house.there, token) == "unknown_tenant"
    with pytest.raises(NotFound, match="no such name"):
        await house.life.unmap_name(OPERATOR, "clinic", tokens.ISSUER, "org_2Xy")
    shown = {"issuer": tokens.ISSUER, "externalId": "org_2Xy"}
    assert [entry[:1] + entry[2:4] for entry in await house.audit(tenant_id)][:2] == [
        ("unmapTenantName", shown, None),
        ("mapTenantName", None, shown),
    ]


async def test_a_name_belongs_to_one_tenant_and_to_one_issuer(house: House) -> None:
    await house.tenant()
    shop = await house.tenant("shop")
    await house.life.map_name(OPERATOR, "clinic", tokens.ISSUER, "org")
    with pytest.raises(Conflict, match="another tenant"):
        await house.life.map_name(OPERATOR, "shop", tokens.ISSUER, "org")
    await house.life.map_name(OPERATOR, "shop", "https://other.example", "org")
    assert (await house.there.enter(house.token("org"))).tenant == "clinic"
    await house.life.unmap_name(OPERATOR, "clinic", tokens.ISSUER, "org")
    await house.life.map_name(OPERATOR, "shop", tokens.ISSUER, "org")
    assert (await house.there.enter(house.token("org"))).tenant_id == shop


async def test_a_mapped_name_goes_before_a_tenants_own_id(house: House) -> None:
    await house.tenant()
    shop = await house.tenant("shop")
    await house.life.map_name(OPERATOR, "shop", tokens.ISSUER, "clinic")
    assert (await house.there.enter(house.token("clinic"))).tenant_id == shop


async def test_for_an_issuer_with_mapped_names_alone_our_ids_mean_nothing(houses: Callable[..., House]) -> None:
    house = houses(own_tenant_names=False)
    tenant_id = await house.tenant()
    assert await refusal(house.here, house.token("clinic")) == "unknown_tenant"
    await house.life.map_name(OPERATOR, "clinic", tokens.ISSUER, "clinic")
    assert (await house.here.enter(house.token("clinic"))).tenant_id == tenant_id


async def test_an_erased_tenants_name_stays_taken_until_it_is_freed(house: House) -> None:
    await house.tenant()
    await house.life.map_name(OPERATOR, "clinic", tokens.ISSUER, "org")
    await house.life.erase(OPERATOR, "clinic", "clinic", "x")
    assert await refusal(house.here, house.token("org")) == "unknown_tenant"
    await house.tenant("clinic-two")
    with pytest.raises(Conflict):
        await house.life.map_name(OPERATOR, "clinic-two", tokens.ISSUER, "org")
    freed = await house.life.unmap_name(OPERATOR, "clinic", tokens.ISSUER, "org")
    assert (freed.status, freed.names) == (TenantStatus.ERASED, ())
    await house.life.map_name(OPERATOR, "clinic-two", tokens.ISSUER, "org")
    assert (await house.there.enter(house.token("org"))).tenant == "clinic-two"


# Tenants that their first token makes


async def test_no_tenant_is_made_unless_the_issuer_may(house: House) -> None:
    assert await refusal(house.here, house.token("brand-new")) == "unknown_tenant"
    assert await house.changed() == []


async def test_the_first_good_token_makes_the_tenant_once_whoever_comes_at_once(houses: Callable[..., House]) -> None:
    house = houses(creates_tenants=True)
    callers = [house.token("brand-new", sub=f"u{number}") for number in range(6)]
    entered = await asyncio.gather(*(replica.enter(token) for token in callers for replica in (house.here, house.there)))
    assert len({ctx.tenant_id for ctx in entered}) == 1
    assert {ctx.tenant for ctx in entered} == {"brand-new"}
    ((action, actor, before, after, reason),) = await house.audit(entered[0].tenant_id)
    assert (action, actor, before, reason) == ("createTenant", "turnout", None, None)
    assert (after["name"], after["issuer"], after["limits"]) == ("brand-new", tokens.ISSUER, TenantLimits().to_json())
    assert len(await house.changed()) == 1


@pytest.mark.parametrize(("own", "external"), [(True, "org_2Xy"), (True, "Acme GmbH"), (False, "brand-new")])
async def test_a_name_that_is_no_id_of_ours_gets_one_that_follows_from_it(houses: Callable[..., House], own: bool, external: str) -> None:
    house = houses(creates_tenants=True, own_tenant_names=own)
    token = house.token(external)
    entered = await asyncio.gather(house.here.enter(token), house.there.enter(token))
    slug = derived_id(tokens.ISSUER, external)
    assert {ctx.tenant for ctx in entered} == {slug}
    assert slug.startswith("t-")
    tenant = house.here.tenants.tenant(OPERATOR, slug)
    assert (tenant.name, tenant.names) == (external, (TenantName(tokens.ISSUER, external),))


async def test_neither_an_operators_token_nor_one_without_a_role_makes_a_tenant(houses: Callable[..., House]) -> None:
    house = houses(creates_tenants=True)
    assert (await house.here.enter(house.token("brand-new", roles=["ADMIN", "OPERATOR"]))).tenant_id == NO_TENANT
    assert await refusal(house.here, house.token("brand-new", roles=["nothing-here"])) == "unknown_tenant"
    assert await house.changed() == []


@pytest.mark.parametrize("external", ["clinic", "org_2Xy"])
async def test_an_erased_tenant_does_not_come_back_with_its_tokens(houses: Callable[..., House], external: str) -> None:
    house = houses(creates_tenants=True)
    slug = (await house.here.enter(house.token(external))).tenant
    await house.life.erase(OPERATOR, slug, slug, "x")
    for _ in range(2):
        for replica in (house.here, house.there):
            assert await refusal(replica, house.token(external)) == "unknown_tenant"
    assert len(await house.changed()) == 2


async def test_where_the_tenant_cannot_be_made_just_now_the_token_is_not_held_to_be_bad(houses: Callable[..., House]) -> None:
    house = houses(creates_tenants=True)
    token = house.token("brand-new")
    connection = await connect(house.urls.superuser)
    try:
        async with connection.transaction():
            await connection.execute("lock table tenants in exclusive mode")
            with pytest.raises(Unavailable):
                await house.here.enter(token)
    finally:
        await connection.close()
    assert (await house.here.enter(token)).tenant == "brand-new"
