"""Holes in the isolation of tenants, planted one by one: each is named at start, with its cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from app.db import migrate
from app.db.holes import find_warnings
from app.db.privileges import SERVING_ROLES, DatabaseRole
from app.db.roles import assert_roles, check_roles, provision_roles, scram_verifier, server_warnings
from app.errors import ConfigurationError
from tests.support.database import DatabaseUrls, execute, temporary_server, urls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

PARTITION = "create table predictions_20261121 partition of predictions for values from ('2026-11-21') to ('2026-11-22');"
# What is planted, and the one sentence that must be said.
PLANTED = {
    "alter table models disable row level security":
        "Row-level security is off on the table models: alter table models enable row level security.",
    "alter table models no force row level security":
        "Row-level security does not bind the owner of the table models: alter table models force row level security.",
    "create policy open on models to turnout_runtime using (true)":
        "The policy open lets turnout_runtime past the isolation of tenants on the table models: drop policy open on models.",
    "create policy sync_reads on audit_entries for select to turnout_sync using (true)":
        "The policy sync_reads lets turnout_sync past the isolation of tenants on the table audit_entries: "
        "drop policy sync_reads on audit_entries.",
    "grant delete on models to turnout_runtime":
        "The runtime role turnout_runtime may DELETE on the table models: revoke DELETE on models from turnout_runtime, public.",
    "grant truncate, references on models to turnout_runtime":
        "The runtime role turnout_runtime may REFERENCES, TRUNCATE on the table models: "
        "revoke REFERENCES, TRUNCATE on models from turnout_runtime, public.",
    "grant update (reason) on promotions to turnout_runtime":
        "The runtime role turnout_runtime may UPDATE the column reason of promotions: "
        "revoke UPDATE (reason) on promotions from turnout_runtime, public.",
    "grant select on predictions to turnout_log":
        "The log role turnout_log may SELECT on the table predictions: revoke SELECT on predictions from turnout_log, public.",
    "grant select (wrapped_secret) on tenants to turnout_log":
        "The log role turnout_log may SELECT the column wrapped_secret of tenants: "
        "revoke SELECT (wrapped_secret) on tenants from turnout_log, public.",
    "grant select (sample) on model_versions to turnout_sync":
        "The sync role turnout_sync may SELECT the column sample of model_versions: "
        "revoke SELECT (sample) on model_versions from turnout_sync, public.",
    "grant select on model_versions to turnout_sync":
        "The sync role turnout_sync may SELECT on the table model_versions: revoke SELECT on model_versions from turnout_sync, public.",
    PARTITION + "grant select on predictions_20261121 to turnout_runtime":
        "The runtime role turnout_runtime may SELECT on the partition predictions_20261121, past the policies of its parent: "
        "revoke SELECT on predictions_20261121 from turnout_runtime, public.",
    "alter default privileges for role turnout_owner grant select on tables to turnout_runtime":
        "The runtime role turnout_runtime gets privileges on every new table, and so on partitions past their parent's policies: "
        "alter default privileges for role turnout_owner revoke all on tables from turnout_runtime.",
    "create view everything as select * from models; grant select on everything to turnout_runtime":
        "The runtime role turnout_runtime may use the view everything, which shows what its owner may see: "
        "alter view everything set (security_invoker = true), and revoke all on everything from turnout_runtime, public.",
    "create materialized view copied as select * from models; grant select on copied to turnout_runtime":
        "The runtime role turnout_runtime may use the materialized view copied, on which no policy works: "
        "revoke all on copied from turnout_runtime, public.",
    "create table copied as select name from models; grant select on copied to turnout_runtime":
        "The runtime role turnout_runtime may SELECT on the table copied: revoke SELECT on copied from turnout_runtime, public.",
    "create schema side; create table side.copied as select name from models; grant select on side.copied to public":
        "The runtime role turnout_runtime may SELECT on the table side.copied: revoke SELECT on side.copied from turnout_runtime, public.",
    "create function peek() returns bigint language sql security definer as 'select count(*) from models'":
        "The runtime role turnout_runtime may call peek(), which runs with the rights of its owner (SECURITY DEFINER): "
        "revoke execute on function peek() from turnout_runtime, public.",
    "alter table aliases owner to turnout_runtime":
        "The runtime role turnout_runtime owns aliases and may change it and its policies: alter table aliases owner to the owner role.",
    "grant create on schema public to turnout_runtime":
        "The runtime role turnout_runtime may make things in the schema public, and what it makes it owns: "
        "revoke create on schema public from turnout_runtime, public.",
    "revoke insert on models from turnout_runtime":
        "The runtime role turnout_runtime may not INSERT on models: grant INSERT on models to it.",
    "revoke select (status) on model_versions from turnout_sync":
        "The sync role turnout_sync may not SELECT the columns status of model_versions: grant select (status) on model_versions to it.",
    "drop table promotions":
        "The table promotions is missing: run turnout migrate.",
}  # fmt: skip
# What is planted in the roles, which all databases of the server share; how it is taken back; what must be said.
PLANTED_IN_ROLES = {
    "alter role turnout_runtime superuser": (
        "alter role turnout_runtime nosuperuser",
        (
            "The runtime role turnout_runtime is a superuser, whom row-level security does not bind: "
            "alter role turnout_runtime nosuperuser, or use another role."
        ),
    ),
    "alter role turnout_owner superuser": (
        "alter role turnout_owner nosuperuser",
        (
            "The owner role turnout_owner is a superuser, whom row-level security does not bind: "
            "alter role turnout_owner nosuperuser, or use another role."
        ),
    ),
    "alter role turnout_sync bypassrls": (
        "alter role turnout_sync nobypassrls",
        "The sync role turnout_sync may bypass row-level security: alter role turnout_sync nobypassrls.",
    ),
    "alter role turnout_log createrole": (
        "alter role turnout_log nocreaterole",
        "The log role turnout_log may make and change roles: alter role turnout_log nocreaterole.",
    ),
    "grant turnout_owner to turnout_runtime": (
        "revoke turnout_owner from turnout_runtime",
        (
            "The runtime role turnout_runtime is a member of turnout_owner and may do what that role may: "
            "revoke turnout_owner from turnout_runtime."
        ),
    ),
    "create role strong bypassrls; grant strong to turnout_log": (
        "drop role strong",
        "The log role turnout_log is a member of strong, whom row-level security does not bind: revoke strong from turnout_log.",
    ),
    "grant pg_read_all_data to turnout_sync": (
        "revoke pg_read_all_data from turnout_sync",
        (
            "The sync role turnout_sync is a member of pg_read_all_data and may do what that role may: "
            "revoke pg_read_all_data from turnout_sync."
        ),
    ),
}  # fmt: skip


def urls_by_role(urls: DatabaseUrls) -> dict[DatabaseRole, str]:
    return {
        DatabaseRole.OWNER: urls.owner, DatabaseRole.RUNTIME: urls.runtime, DatabaseRole.LOG: urls.log, DatabaseRole.SYNC: urls.sync,
    }  # fmt: skip


def plant(urls: DatabaseUrls, statements: str) -> None:
    for statement in statements.split(";"):
        execute(urls.superuser, statement)


def test_a_migrated_database_has_no_hole(database_urls: DatabaseUrls) -> None:
    execute(database_urls.owner, PARTITION)
    assert check_roles(urls_by_role(database_urls)) == []
    assert_roles(urls_by_role(database_urls))
    assert server_warnings(database_urls.runtime) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_hole_is_named_with_its_cure(database_urls: DatabaseUrls, planted: str) -> None:
    plant(database_urls, planted)
    assert PLANTED[planted] in check_roles(urls_by_role(database_urls))


@pytest.fixture
def roles_of_the_server(database_urls: DatabaseUrls) -> Iterator[DatabaseUrls]:
    yield database_urls
    for remove, _ in PLANTED_IN_ROLES.values():
        try:
            execute(database_urls.superuser, remove)
        except asyncpg.UndefinedObjectError:
            continue


@pytest.mark.parametrize("planted", PLANTED_IN_ROLES)
def test_a_role_that_can_do_too_much_is_named_with_its_cure(roles_of_the_server: DatabaseUrls, planted: str) -> None:
    plant(roles_of_the_server, planted)
    assert PLANTED_IN_ROLES[planted][1] in check_roles(urls_by_role(roles_of_the_server))


def test_turnout_refuses_to_start_and_lists_every_hole_once(database_urls: DatabaseUrls) -> None:
    plant(database_urls, "alter table models disable row level security; alter table models no force row level security")
    with pytest.raises(ConfigurationError) as caught:
        assert_roles(urls_by_role(database_urls))
    assert str(caught.value) == (
        "The database does not keep tenants apart, so Turnout does not serve:"
        "\n  - Row-level security is off on the table models: alter table models enable row level security."
        "\n  - Row-level security does not bind the owner of the table models: alter table models force row level security."
    )


class Aged:
    """A server that tells another version."""

    def __init__(self, version: int) -> None:
        self._version = version

    async def fetchval(self, _query: str) -> int:
        return self._version


@pytest.mark.parametrize(("version", "warned"), [(150013, True), (150014, False), (160009, True), (180000, False), (190000, False)])
async def test_a_server_without_the_fixes_of_row_level_security_is_warned_of(version: int, warned: bool) -> None:
    assert bool(await find_warnings(Aged(version))) is warned


def test_a_login_works_with_the_verifier_that_stands_for_its_password(database_urls: DatabaseUrls) -> None:
    plant(database_urls, f"create role visitor login password '{scram_verifier('a pass:word/é')}'")
    try:
        url = database_urls.runtime.replace(
            database_urls.runtime[: database_urls.runtime.index("@")], "postgresql://visitor:a%20pass%3Aword%2F%C3%A9"
        )
        assert execute(url, "select current_user")[0][0] == "visitor"
    finally:
        plant(database_urls, "drop role visitor")


@pytest.fixture
def server_of_its_own() -> Iterator[DatabaseUrls]:
    """Roles belong to a server, not to a database."""
    with temporary_server() as server:
        yield urls_of(server, "turnout")


def test_roles_that_exist_are_not_taken_over(database_urls: DatabaseUrls) -> None:
    with pytest.raises(ConfigurationError, match=r"exist already.*turnout_log, turnout_runtime, turnout_sync"):
        provision_roles(database_urls.owner)


def test_an_owner_with_createrole_makes_the_others(server_of_its_own: DatabaseUrls) -> None:
    urls = server_of_its_own
    plant(urls, "revoke all on database turnout from turnout_runtime, turnout_log, turnout_sync")
    plant(urls, "drop role turnout_runtime, turnout_log, turnout_sync")
    with pytest.raises(ConfigurationError, match="Give it CREATEROLE"):
        provision_roles(urls.owner)
    plant(urls, "alter role turnout_owner createrole")
    made = provision_roles(urls.owner)
    assert list(made) == list(SERVING_ROLES)
    migrate.upgrade(urls.owner)
    assert check_roles({DatabaseRole.OWNER: urls.owner, **made}) == []
