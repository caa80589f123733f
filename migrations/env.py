"""Alembic's entry. `app.db.migrate` hands over a connection; the alembic command brings none and takes the owner's from the settings."""

import os

from alembic import context
from sqlalchemy import Connection

import app.audit.rows
import app.db.outbox
import app.experiments.rows
import app.journal.rows
import app.registry.rows
import app.tenancy.rows  # noqa: F401  with these the metadata knows every table
from app.db import migrate
from app.db.base import Base, refer_to_tenants
from app.errors import ConfigurationError
from app.settings import Settings


def run(connection: Connection) -> None:
    refer_to_tenants(Base.metadata)
    say = context.config.attributes.get("say", lambda _: None)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
        on_version_apply=lambda step, **_: say(
            f"migration {step.up_revision_id}, {'up' if step.is_upgrade else 'down'}: {step.up_revision.doc}"
        ),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_command_line() -> None:
    url = Settings.from_env(os.environ).database.owner_url  # noqa: TID251  an edge: the alembic command
    if url is None:
        raise ConfigurationError("Set TURNOUT_DATABASE_OWNER_URL to the database that alembic is to work on.")
    migrate.with_owner(url.value, run)  # the same lock and timeouts


if "connection" in context.config.attributes:
    run(context.config.attributes["connection"])
else:
    run_from_command_line()
