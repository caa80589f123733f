"""TURNOUT_HOME/database-roles.json: the URLs of the roles that `turnout migrate` made on a server of yours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from app.db.privileges import SERVING_ROLES, DatabaseRole
from app.errors import ConfigurationError
from app.tenancy.private_files import create_private, read_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME = "database-roles.json"
_WHAT = "The file of database roles"


def has_role_file(home: Path) -> bool:
    """Whether `turnout migrate` has made roles on a server of yours; from then on that server is this home's database."""
    return (home / FILE_NAME).exists()


def read_role_urls(home: Path) -> dict[DatabaseRole, str] | None:
    """The URL of each serving role, None where migrate made none; raises ConfigurationError for a file that is open or damaged."""
    if not has_role_file(home):
        return None
    path = home / FILE_NAME
    try:
        data = json.loads(read_private(path, _WHAT))
        return {role: str(data[role.value]) for role in SERVING_ROLES}
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{_WHAT} {path} is damaged. Bring it back from a copy; or drop the roles, remove the file and run turnout migrate."
        ) from None


def write_role_urls(home: Path, urls: Mapping[DatabaseRole, str]) -> Path:
    """Where they are kept now, mode 0600."""
    path = home / FILE_NAME
    content = json.dumps({role.value: urls[role] for role in SERVING_ROLES}, indent=1)
    create_private(path, content.encode() + b"\n", _WHAT)
    return path
