"""Where the database of this TURNOUT_HOME is, for commands that look into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.errors import ConfigurationError
from app.supervisor.database import is_embedded
from app.supervisor.lock import holder
from app.supervisor.role_file import read_role_urls

if TYPE_CHECKING:
    from app.settings import Settings


def known_urls(settings: Settings) -> dict[DatabaseRole, str]:
    """As whom one can connect to the running database; empty where roles were never made. Raises ConfigurationError."""
    if is_embedded(settings):
        server = EmbeddedPostgres(settings.home)
        if not server.join():
            raise ConfigurationError("embedded, and does not answer though the service runs: see what that prints")
        return {role: server.url(role) for role in DatabaseRole}
    given = settings.database
    secrets = {
        DatabaseRole.RUNTIME: given.runtime_url,
        DatabaseRole.LOG: given.log_url,
        DatabaseRole.SYNC: given.sync_url,
    }
    urls = {role: secret.value for role, secret in secrets.items() if secret} or read_role_urls(settings.home) or {}
    if urls and given.owner_url:
        urls[DatabaseRole.OWNER] = given.owner_url.value
    return urls


def database_urls(settings: Settings) -> dict[DatabaseRole, str]:
    """As whom one can connect; raises ConfigurationError that says what to do where one cannot."""
    if is_embedded(settings) and holder(settings.home) is None:
        raise ConfigurationError("The embedded database runs while the service runs: start it (make run).")
    urls = known_urls(settings)
    if not urls:
        raise ConfigurationError("The database has no roles yet: turnout migrate makes them.")
    return urls
