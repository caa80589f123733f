"""The database's roles: made where we may, and checked at every start. A hole in them is named, and Turnout does not serve."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.db.privileges import DatabaseRole

_ITERATIONS = 4096


def embedded_statements(passwords: Mapping[DatabaseRole, str], existing: set[str]) -> list[str]:
    """SQL that makes the roles of `passwords`, or gives those that exist these passwords."""
    return [_role_statement(role, password, exists=role.value in existing) for role, password in passwords.items()]


def _role_statement(role: DatabaseRole, password: str, *, exists: bool) -> str:
    verb = "alter" if exists else "create"
    attributes = "login nosuperuser nocreatedb nocreaterole noinherit noreplication nobypassrls"
    return f"{verb} role {role} with {attributes} password '{scram_verifier(password)}'"


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores of a password: sent instead of it, the password itself reaches no log of the server.

    Source: RFC 5803; PostgreSQL documentation, "pg_authid".
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_b64(salt)}${_b64(stored)}:{_b64(server)}"


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
