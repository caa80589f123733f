"""What each role can do, table by table; the tables are listed from the catalog, so that a new one cannot be forgotten."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.db.privileges import GRANTS, DatabaseRole, Privilege
from tests.support.database import DatabaseUrls, execute, make_tenant

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TABLES = """
    select c.relname as name, c.relrowsecurity as secured, c.relforcerowsecurity as forced,
           array(select attname::text from pg_attribute a where a.attrelid = c.oid and attnum > 0 and not attisdropped) as columns
    from pg_class c where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
    and relname <> 'alembic_version' order by 1"""
MODEL, UPLOAD, REPLICA = UUID(int=1), UUID(int=2), UUID(int=5)
TENDED = ("tenants", "tombstones")  # whose rows the owner lists, to know what there is to do
OF_NO_TENANT = {"routing_generation", "replicas", "flag_documents", "platform_documents"}
# One row of each table, in an order in which references hold.
ROWS: dict[str, dict[str, Any]] = {
    "models": {"model_id": MODEL, "name": "risk", "folded_name": "Risk", "task": "REGRESSION"},
    "artifacts": {"digest": "d", "size_bytes": 1, "upload_id": UPLOAD, "mac": b"m", "created_by": "ann"},
    "artifact_chunks": {"upload_id": UPLOAD, "seq": 0, "data": b"x"},
    "compiled_models": {"digest": "c", "data": b"x", "size_bytes": 1, "mac": b"m"},
    "replica_acks": {"replica_id": REPLICA, "at": NOW, "generation": 1},
    "model_versions": {"model_id": MODEL, "number": 1, "status": "READY", "registration_hash": "h", "created_by": "ann"},
    "aliases": {"model_id": MODEL, "name": "production", "number": 1, "revision": 1},
    "promotions": {"model_id": MODEL, "alias": "production", "revision": 1, "number": 1, "by": "ann"},
    "audit_entries": {"id": UUID(int=3), "actor": "ann", "action": "promote", "subject": "risk"},
    "outbox": {"generation": 1},
    "experiments": {
        "key": "new-price", "model_id": MODEL, "model": "risk", "status": "DRAFT", "source": "TURNOUT", "rollout": 100.0, "variants": "[]",
        "secondary_metrics": "[]", "guardrails": "[]", "planned_looks": 1, "slots": "[]", "targeting": "[]", "overrides": "[]",
        "created_by": "ann",
    },
    "metrics": {"name": "bought", "kind": "PROPORTION", "direction": "INCREASE", "aggregation": "ANY"},
    "exposures": {
        "experiment": "new-price", "unit_hash": "u", "variant": "control", "version": 1, "first_at": NOW, "prediction_id": UUID(int=4),
        "requests": 1,
    },
    "exposure_tallies": {"experiment": "new-price", "variant": "control"},
    "outcomes": {"id": UUID(int=6), "metric": "bought", "value": 1.0, "occurred_at": NOW, "pending": True, "dedup_key": "k"},
    "stale_units": {"unit_hash": "u"},
    "unit_values": {"experiment": "new-price", "metric": "bought", "unit_hash": "u", "variant": "control", "value": 1.0},
    "metric_sums": {"experiment": "new-price", "metric": "bought", "variant": "control"},
    "looks": {"experiment": "new-price", "look": 1, "units": 1, "sums": "{}"},
    "tenant_names": {"issuer": "idp", "external_id": "org_1", "created_by": "ann"},
    "token_denials": {"id": UUID(int=8), "issued_before": NOW, "expires_at": NOW},
    "documents": {"id": "d", "body": "{ viewer { tenant } }", "created_by": "ann"},
    "usage_days": {"day": NOW.date(), "model": "risk", "version": 1, "requests": 1, "rows": 1, "compute_us": 5},
    "service_days": {"day": NOW.date(), "replica": "here/1-0", "requests": 1, "failed": 0, "late": 0},
    "audit_heads": {"sequence": 1, "seal": b"s"},
    "audit_people": {"pseudonym": "p", "subject": "ann"},
    "tombstones": {"unit_hash": "gone", "id": UUID(int=9)},
}  # fmt: skip
# What the log role writes, likewise.
LOGGED: dict[str, dict[str, Any]] = {
    "exposure_queue": {
        "id": UUID(int=7), "at": NOW, "experiment": "new-price", "variant": "control", "version": 1, "unit_hash": "u",
    },
    "covariate_queue": {"prediction_id": UUID(int=4), "experiment": "new-price", "unit_hash": "u"},
    "shadow_answers": {
        "prediction_id": UUID(int=4), "kind": "SHADOW", "variant": "candidate", "row": 0, "at": NOW, "experiment": "new-price", "version": 2,
        "served_version": 1, "compute_us": 5,
    },
    "usage_deltas": {"id": UUID(int=10), "day": NOW.date(), "model": "risk", "version": 1, "requests": 1, "rows": 1, "compute_us": 5},
    "captured_inputs": {"prediction_id": UUID(int=4), "at": NOW, "sealed": b"x"},
}  # fmt: skip
PREDICTION = {
    "id": UUID(int=4), "at": NOW, "model": "risk", "version": 1, "reason": "ALIAS", "key_generation": 1, "rows": 1, "compute_us": 5, "degraded": False,
}  # fmt: skip


def tables(urls: DatabaseUrls) -> dict[str, Any]:
    return {row["name"]: row for row in execute(urls.superuser, TABLES)}


def insert(url: str, table: str, row: dict[str, Any], tenant_id: UUID | None = None) -> None:
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    execute(url, f"insert into {table} ({', '.join(row)}) values ({places})", *row.values(), tenant_id=tenant_id)


@pytest.fixture
def tenants(database_urls: DatabaseUrls) -> tuple[UUID, UUID]:
    """clinic and shop, each with a row in every table."""
    partition = "create table predictions_20261121 partition of predictions for values from ('2026-11-21') to ('2026-11-22')"
    execute(database_urls.owner, partition)
    both = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "shop")
    insert(database_urls.runtime, "replicas", {"replica_id": REPLICA, "name": "here/1-0"})
    for number, tenant_id in enumerate(both, 1):
        for table, row in ROWS.items():
            own = {"outbox": {"generation": number}, "tenant_names": {"external_id": f"org_{number}"}}.get(table, {})
            values = {"tenant_id": tenant_id, **row, **own}
            insert(database_urls.runtime, table, values, tenant_id)
        for table, row in {"predictions": PREDICTION, **LOGGED}.items():
            insert(database_urls.log, table, {"tenant_id": tenant_id, **row})
    return both


def test_every_table_with_a_tenant_has_row_level_security_forced(database_urls: DatabaseUrls) -> None:
    found = tables(database_urls)
    of_tenants = {name for name, row in found.items() if "tenant_id" in row["columns"]}
    assert of_tenants == found.keys() - OF_NO_TENANT
    assert of_tenants == {"tenants", "predictions", *ROWS, *LOGGED}
    assert {name for name in of_tenants if found[name]["secured"] and found[name]["forced"]} == of_tenants


def test_a_tenant_sees_its_own_rows_and_without_one_there_are_none(database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]) -> None:
    clinic, shop = tenants
    for role in (database_urls.runtime, database_urls.owner):
        for table in {"tenants", "predictions", *ROWS, *LOGGED} - {"outbox", *(TENDED if role == database_urls.owner else ())}:
            count = f"select array_agg(distinct tenant_id) from {table}"
            assert execute(role, count)[0][0] is None, table
            assert execute(role, count, tenant_id=clinic)[0][0] == [clinic], table
            assert execute(role, count, tenant_id=shop)[0][0] == [shop], table
            assert execute(role, count, tenant_id=uuid4())[0][0] is None, table


def test_the_owner_finds_whom_to_tend_and_changes_them_one_tenant_at_a_time(
    database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]
) -> None:
    for table in TENDED:
        assert {row[0] for row in execute(database_urls.owner, f"select tenant_id from {table}")} == set(tenants)
        assert execute(database_urls.owner, f"update {table} set tenant_id = tenant_id returning 1") == []
        changed = execute(database_urls.owner, f"update {table} set tenant_id = tenant_id returning tenant_id", tenant_id=tenants[0])
        assert changed == [(tenants[0],)]


def test_a_tenant_cannot_write_another_tenants_rows(database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]) -> None:
    clinic, shop = tenants
    for table, row in ROWS.items():
        for named in (clinic, None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                insert(database_urls.runtime, table, {"tenant_id": shop, **row, **_other_key(table)}, named)
    for table, grant in GRANTS[DatabaseRole.RUNTIME].items():
        if Privilege.UPDATE in grant.privileges and table not in OF_NO_TENANT:
            changed = execute(
                database_urls.runtime, f"update {table} set tenant_id = tenant_id where tenant_id = $1 returning 1", shop, tenant_id=clinic
            )
            assert changed == [], table
            with pytest.raises(asyncpg.PostgresError, match="row-level security"):
                execute(database_urls.runtime, f"update {table} set tenant_id = $1", uuid4(), tenant_id=clinic)
        if Privilege.DELETE in grant.privileges and table not in OF_NO_TENANT:
            assert execute(database_urls.runtime, f"delete from {table} where tenant_id = $1 returning 1", shop, tenant_id=clinic) == []


def test_each_role_can_do_what_the_table_of_privileges_says_and_nothing_else(
    database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]
) -> None:
    """Tried for real, statement by statement, in transactions that are rolled back."""
    clinic, _ = tenants
    attempts: dict[Privilege, Callable[[str, str], str]] = {
        Privilege.SELECT: lambda table, column: f"select {column} from {table}",
        Privilege.INSERT: lambda table, column: f"insert into {table} select * from {table} where false",
        Privilege.UPDATE: lambda table, column: f"update {table} set {column} = default where false",
        Privilege.DELETE: lambda table, column: f"delete from {table} where false",
        Privilege.TRUNCATE: lambda table, column: f"truncate {table}",
    }
    for role in (DatabaseRole.RUNTIME, DatabaseRole.LOG, DatabaseRole.SYNC):
        url = getattr(database_urls, role.value.removeprefix("turnout_"))
        for table, found in tables(database_urls).items():
            grant = GRANTS[role].get(table)
            for column in found["columns"]:
                readable = grant is not None and Privilege.SELECT in grant.privileges and (not grant.columns or column in grant.columns)
                assert _may(url, attempts[Privilege.SELECT](table, column), clinic) is readable, (role, table, column)
            for privilege in (Privilege.UPDATE, Privilege.DELETE, Privilege.TRUNCATE):
                allowed = grant is not None and privilege in grant.privileges
                statement = attempts[privilege](table, found["columns"][-1])
                if privilege is not Privilege.TRUNCATE and grant is not None and not grant.privileges & {Privilege.SELECT}:
                    statement = statement.replace(" where false", "")
                assert _may(url, statement, clinic) is allowed, (role, statement)
    for role, url in ((DatabaseRole.LOG, database_urls.log), (DatabaseRole.SYNC, database_urls.sync)):
        for table, row in {**ROWS, **LOGGED, "predictions": PREDICTION}.items():
            values = {"tenant_id": clinic, **row, **{name: uuid4() for name in ("id", "prediction_id") if isinstance(row.get(name), UUID)}}
            if role is DatabaseRole.LOG and table in {"predictions", *LOGGED}:
                insert(url, table, values)
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                    insert(url, table, values, clinic)


def test_the_sync_role_reads_every_tenants_routing(database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]) -> None:
    for table in GRANTS[DatabaseRole.SYNC].keys() - OF_NO_TENANT:
        assert {row[0] for row in execute(database_urls.sync, f"select tenant_id from {table}")} == set(tenants), table


def test_the_log_role_inserts_for_any_tenant_once_and_cannot_read(database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]) -> None:
    clinic, shop = tenants
    again = """
        insert into predictions (tenant_id, id, at, model, version, reason, key_generation, rows, compute_us, degraded)
        select t, '00000000-0000-0000-0000-000000000004', $2, 'risk', 1, 'ALIAS', 1, 1, 5, false from unnest($1::uuid[]) t
        on conflict do nothing"""
    execute(database_urls.log, again, [clinic, shop, clinic], NOW)
    assert execute(database_urls.superuser, "select count(*) from predictions")[0][0] == 2
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(database_urls.log, again + " returning id", [clinic], NOW)


@pytest.mark.parametrize("role", ["runtime", "log", "sync"])
def test_no_role_reaches_a_partition_past_its_parents_policies(database_urls: DatabaseUrls, tenants: tuple[UUID, UUID], role: str) -> None:
    for statement in ("select * from predictions_20261121", "delete from predictions_20261121"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(getattr(database_urls, role), statement, tenant_id=tenants[0])


@pytest.mark.parametrize("role", ["runtime", "log", "sync"])
def test_no_role_becomes_another_or_makes_tables(database_urls: DatabaseUrls, role: str) -> None:
    for statement in ("set role turnout_owner", "set session authorization turnout_owner", "create table t (a int)", "create schema s"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(getattr(database_urls, role), statement)


def test_turning_row_security_off_is_refused_not_obeyed(database_urls: DatabaseUrls, tenants: tuple[UUID, UUID]) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        execute(f"{database_urls.runtime}&row_security=off", "select * from models", tenant_id=tenants[0])


def _other_key(table: str) -> dict[str, Any]:
    """A key that is free, so that only the policy can refuse the row."""
    key: dict[str, dict[str, Any]] = {
        "models": {"model_id": uuid4(), "name": "other", "folded_name": "Other"}, "artifacts": {"digest": "other"},
        "artifact_chunks": {"seq": 9}, "compiled_models": {"digest": "other"}, "model_versions": {"number": 9}, "aliases": {"name": "other"},
        "promotions": {"revision": 9}, "audit_entries": {"id": uuid4()}, "outbox": {"generation": 9}, "replica_acks": {"generation": 9, "at": NOW.replace(year=2027)},
        "experiments": {"key": "other"}, "metrics": {"name": "other"}, "exposures": {"unit_hash": "other"},
        "exposure_tallies": {"variant": "other"}, "outcomes": {"id": uuid4(), "dedup_key": "other"}, "stale_units": {"unit_hash": "other"},
        "unit_values": {"unit_hash": "other"}, "metric_sums": {"variant": "other"}, "looks": {"look": 9}, "tenant_names": {"external_id": "org_9"}, "token_denials": {"id": uuid4()},
        "documents": {"id": "other"}, "usage_days": {"version": 9}, "service_days": {"replica": "other"}, "audit_heads": {},
        "audit_people": {"pseudonym": "other"}, "tombstones": {"unit_hash": "other"},
    }  # fmt: skip
    return key[table]


def _may(url: str, statement: str, tenant_id: UUID) -> bool:
    try:
        execute(url, f"explain {statement}" if not statement.startswith("truncate") else statement, tenant_id=tenant_id)
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True
