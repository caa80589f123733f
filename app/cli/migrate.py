"""`turnout migrate`: the database brought to this version of Turnout."""

from __future__ import annotations

import click

from app.cli.options import load_settings


@click.command()
def migrate() -> None:
    """Bring the database to the newest migration. Roles and partitions are made where they are missing.

    With TURNOUT_DATABASE_OWNER_URL alone, the other roles are made and their passwords kept in TURNOUT_HOME.
    """
    from app.supervisor.database import is_embedded, open_database
    from app.supervisor.home import prepare_home
    from app.supervisor.lock import holder

    settings = load_settings()
    prepare_home(settings.home)
    if is_embedded(settings) and (running := holder(settings.home)):
        click.echo(f"turnout: process {running} serves {settings.home} and migrated it at its start: nothing to do")
        return
    database = open_database(settings)
    try:
        database.migrate()
    finally:
        database.stop()
