"""The keys that a first start makes: once, by the parent, before any process could race another for it. In production: none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import ConfigurationError
from app.kernel.home import DEVELOPMENT_ISSUER, MASTER_KEY
from app.supervisor.console import say

if TYPE_CHECKING:
    from app.settings import Settings


def require_production_keys(settings: Settings) -> None:
    """Raises ConfigurationError that names all that production wants and that is not configured; before anything is made."""
    missing = []
    if settings.master_key_file is None:
        missing.append(
            "TURNOUT_MASTER_KEY_FILE: the file that wraps the tenants' keys, the same on every replica. Make one, and keep a copy: "
            "(umask 077; openssl rand -hex 32 > master.key)"
        )
    if not settings.issuers:
        missing.append("TURNOUT_JWT_ISSUERS: whose tokens count, as a JSON list; docs/settings.md shows one")
    if missing and not settings.development:
        raise ConfigurationError("TURNOUT_ENV is production, which takes no keys of development. Set\n  " + "\n  ".join(missing))


def make_missing_keys(settings: Settings) -> None:
    """Makes the master key and, in development, the issuer's key, where there are none. Raises ConfigurationError."""
    master = settings.home / MASTER_KEY
    issuer = settings.home / DEVELOPMENT_ISSUER
    # Imported where something is to be made: a second start pays for neither.
    if settings.master_key_file is None and settings.development and not master.exists():
        from app.tenancy.keys import MasterKey

        say(f"making the master key {master}: keep a copy, the tenants' keys in the database open with it alone")
        MasterKey.load_or_create(master)
    if not settings.issuers and settings.development and not issuer.exists():
        from app.tenancy.identity.development import DevelopmentIssuer

        say("making the development issuer's key (turnout token mints with it)")
        DevelopmentIssuer.load_or_create(settings)
