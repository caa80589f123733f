"""`turnout maintain`: what the owner of the tables does for the data, where no parent process holds the owner's URL."""

from __future__ import annotations

import click

from app.cli.options import load_settings


@click.command()
def maintain() -> None:
    """Sweep what was erased or is too old.

    The service does so by itself where it runs the database or knows TURNOUT_DATABASE_OWNER_URL; elsewhere run this every hour.
    """
    from app.supervisor.database import is_embedded, open_database
    from app.supervisor.home import prepare_home
    from app.supervisor.lock import holder

    settings = load_settings()
    prepare_home(settings.home)
    if is_embedded(settings) and (running := holder(settings.home)):
        click.echo(f"turnout: process {running} serves {settings.home} and does this by itself: nothing to do")
        return
    database = open_database(settings)
    try:
        database.tend_all()
    finally:
        database.stop()
