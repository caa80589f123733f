"""A tenant's export: JSON lines, the first says what it is, the last that it is whole.

Done where the database's URLs are, by whoever may read them: no API hands out everything at once.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from app.cli.database import database_urls
from app.db.driver import run_blocking
from app.db.export import tenant_named, tenant_rows
from app.db.privileges import DatabaseRole
from app.kernel.clock import SystemClock
from app.kernel.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from app.settings import Settings

FORMAT = 1


def export_tenant(settings: Settings, slug: str, out: Path) -> dict[str, int]:
    """How many rows of each table are in `out`, which only its owner may read. Under that name it is whole, or not there.

    Raises click.UsageError where it is there already, NotFound, Unavailable, ConfigurationError.
    """
    if out.exists():
        raise click.UsageError(f"{out} is there already: an export overwrites nothing.")
    urls = database_urls(settings)
    partial = out.with_name(out.name + ".partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            counts = run_blocking(_write(urls[DatabaseRole.SYNC], urls[DatabaseRole.RUNTIME], slug, file))
        partial.rename(out)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)
    return counts


async def _write(sync_url: str, runtime_url: str, slug: str, file: TextIO) -> dict[str, int]:
    tenant_id = await tenant_named(sync_url, slug)
    head = {"turnout": VERSION, "format": FORMAT, "tenant": slug, "at": SystemClock().now().isoformat()}
    file.write(json.dumps(head) + "\n")
    counts: dict[str, int] = {}
    async with tenant_rows(runtime_url, tenant_id) as tenant:
        for table, columns in (await tenant.tables()).items():
            counts[table] = 0
            async for row in tenant.rows(table, columns):
                file.write(f'{{"table": {json.dumps(table)}, "row": {row}}}\n')
                counts[table] += 1
    file.write(json.dumps({"end": True, "rows": counts}) + "\n")
    return counts
