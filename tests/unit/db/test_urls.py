"""Database URLs: whatever dialect they name, and never shown."""

from __future__ import annotations

import pytest

from app.db.driver import plain_dsn
from app.db.roles import _with_login, scram_verifier
from app.errors import ConfigurationError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_a_url_of_any_postgres_dialect_is_taken(scheme: str) -> None:
    assert plain_dsn(f" {scheme}://u:p@h:5432/d?host=/run/x ") == "postgresql://u:p@h:5432/d?host=/run/x"


@pytest.mark.parametrize("url", ["", "u:hidden@h/d", "mysql://u:hidden@h/d", "postgresql:/u:hidden@h"])
def test_another_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must look like postgresql://user:password@host:5432/database\.") as caught:
        plain_dsn(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("owner", "runtime"),
    [
        ("postgresql://o:p%40@h:5433/d?sslmode=require", "postgresql://r:new@h:5433/d?sslmode=require"),
        ("postgresql://o@h1:1,h2:2/d", "postgresql://r:new@h1:1,h2:2/d"),
        ("postgres:///d?host=%2Frun%2Fa+b&user=o&password=p", "postgresql://r:new@/d?host=%2Frun%2Fa+b"),
    ],
)
def test_another_roles_url_differs_in_the_login_alone(owner: str, runtime: str) -> None:
    assert _with_login(owner, "r", "new") == runtime


def test_a_verifier_holds_no_password_and_is_salted() -> None:
    first, second = scram_verifier("a-password"), scram_verifier("a-password")
    assert first != second
    assert "a-password" not in first
    assert first.startswith("SCRAM-SHA-256$64:")
