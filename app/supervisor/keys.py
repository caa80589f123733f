"""The keys that a first start makes: once, by the parent, before any process could race another for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.supervisor.console import say

if TYPE_CHECKING:
    from app.settings import Settings


def make_missing_keys(settings: Settings) -> None:
    """Makes the master key and, in development, the issuer's key, where there are none. Raises ConfigurationError."""
    master = settings.home / "master.key"
    issuer = settings.home / "development-issuer.json"
    # Imported where something is to be made: a second start pays for neither.
    if settings.master_key_file is None and settings.development and not master.exists():
        from app.tenancy.keys import MasterKey

        say(f"making the master key {master}: keep a copy, the tenants' keys in the database open with it alone")
        MasterKey.load_or_create(master)
    if not settings.issuers and settings.development and not issuer.exists():
        from app.tenancy.identity.development import DevelopmentIssuer

        say("making the development issuer's key (turnout token mints with it)")
        DevelopmentIssuer.load_or_create(settings)
