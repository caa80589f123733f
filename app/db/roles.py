"""The database's roles: made where we may, and checked at every start. A hole in them is named, and Turnout does not serve."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from app.db.driver import connect, plain_dsn, run_blocking, translated
from app.db.holes import find_holes, find_warnings
from app.db.privileges import SERVING_ROLES, DatabaseRole
from app.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Slowness protects passwords that people choose. Ours are 192 random bits, and each login costs the driver this many rounds in Python.
_ITERATIONS = 64


def assert_roles(urls: Mapping[DatabaseRole, str]) -> None:
    """Returns where the roles keep tenants apart; raises ConfigurationError that names every hole and its cure."""
    if holes := check_roles(urls):
        listed = "".join(f"\n  - {hole}" for hole in holes)
        raise ConfigurationError(f"The database does not keep tenants apart, so Turnout does not serve:{listed}")


def check_roles(urls: Mapping[DatabaseRole, str]) -> list[str]:
    """The holes in the isolation of tenants, a sentence each with its cure; none: the empty list.

    Logs in as each of the roles in `urls` and looks at what it could do, by whatever grant or membership.
    Raises Unavailable, and ConfigurationError where a login is refused.
    """

    async def run() -> list[str]:
        holes: dict[str, None] = {}  # in order, each once: some are seen by several roles
        for role, url in urls.items():
            connection = await connect(url, server_settings={"search_path": "public"})
            try:
                with translated():
                    holes.update(dict.fromkeys(await find_holes(connection, role)))
            finally:
                await connection.close()
        return list(holes)

    return run_blocking(run())


def server_warnings(url: str) -> list[str]:
    """What is not good about the server behind `url`, but no reason to refuse it: missing security fixes."""

    async def run() -> list[str]:
        connection = await connect(url)
        try:
            with translated():
                return await find_warnings(connection)
        finally:
            await connection.close()

    return run_blocking(run())


def provision_roles(owner_url: str) -> dict[DatabaseRole, str]:
    """Makes runtime, log and sync on an external server and returns their URLs, which hold new passwords: keep them, nobody else does.

    Raises ConfigurationError where the owner may not make roles, or where one is there already with a password that we do not know.
    """
    passwords = {role: secrets.token_urlsafe(24) for role in SERVING_ROLES}

    async def run() -> None:
        connection = await connect(owner_url)
        try:
            with translated():
                existing = await connection.fetch("select rolname from pg_roles where rolname = any($1)", list(SERVING_ROLES))
                _require_none(row["rolname"] for row in existing)
                await _make(connection, passwords)
        finally:
            await connection.close()

    run_blocking(run())
    return {role: _with_login(owner_url, role.value, password) for role, password in passwords.items()}


def embedded_statements(passwords: Mapping[str, str], existing: set[str]) -> list[str]:
    """SQL that makes the roles of `passwords`, or gives those that exist these passwords."""
    return [_alter(role, password) if role in existing else _create(role, password) for role, password in passwords.items()]


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores of a long random password: sent instead of it, so that the password itself reaches no log of the server.

    Source: RFC 5803; PostgreSQL documentation, "pg_authid".
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_b64(salt)}${_b64(stored)}:{_b64(server)}"


async def _make(connection: asyncpg.Connection, passwords: Mapping[DatabaseRole, str]) -> None:
    try:
        async with connection.transaction():
            for role, password in passwords.items():
                await connection.execute(_create(role, password))
            database = await connection.fetchval("select quote_ident(current_database())")
            await connection.execute(f"grant connect on database {database} to {', '.join(passwords)}")
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"The owner may not make the roles {', '.join(passwords)} ({error}). Give it CREATEROLE, or make them yourself "
            "and set TURNOUT_DATABASE_URL, TURNOUT_DATABASE_LOG_URL and TURNOUT_DATABASE_SYNC_URL."
        ) from error


def _require_none(existing: Iterable[str]) -> None:
    if names := ", ".join(sorted(existing)):
        raise ConfigurationError(
            f"These roles exist already, with passwords that only their maker knows: {names}. Set TURNOUT_DATABASE_URL, "
            "TURNOUT_DATABASE_LOG_URL and TURNOUT_DATABASE_SYNC_URL; or, if nothing else uses them, drop the roles and run this again."
        )


def _create(role: str, password: str) -> str:
    # The owner of a database may make tables in it by way of pg_database_owner, of which it is a member.
    inherit = "inherit" if role == DatabaseRole.OWNER else "noinherit"
    attributes = f"login nosuperuser nocreatedb nocreaterole {inherit} noreplication nobypassrls"
    return f"create role {role} with {attributes} password '{scram_verifier(password)}'"


def _alter(role: str, password: str) -> str:
    return f"alter role {role} with login password '{scram_verifier(password)}'"


def _with_login(url: str, user: str, password: str) -> str:
    """`url` with another user; both texts need no quoting."""
    parts = urlsplit(plain_dsn(url))
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in {"user", "password"}])
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}", query=query))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
