"""A tenant's export: JSON lines, the first says what it is, the last that it is whole.

Done where the database's URLs are, by whoever may read them: no API hands out everything at once.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from uuid import UUID

import click

from app.cli.database import database_urls
from app.db.driver import run_blocking
from app.db.export import tenant_named, tenant_rows
from app.db.privileges import DatabaseRole
from app.errors import ConfigurationError
from app.kernel.clock import SystemClock
from app.kernel.home import MASTER_KEY
from app.kernel.version import VERSION
from app.prediction.captures import opened
from app.tenancy.keys import MasterKey, TenantKeys, UnreadableSecret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any, TextIO

    from app.db.export import TenantRows
    from app.settings import Settings

FORMAT = 1
_SEALED = "captured_inputs"


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
            counts = run_blocking(_write(settings, urls, slug, file))
        partial.rename(out)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)
    return counts


async def _write(settings: Settings, urls: Mapping[DatabaseRole, str], slug: str, file: TextIO) -> dict[str, int]:
    tenant_id = await tenant_named(urls[DatabaseRole.SYNC], slug)
    head = {"turnout": VERSION, "format": FORMAT, "tenant": slug, "at": SystemClock().now().isoformat()}
    file.write(json.dumps(head) + "\n")
    counts: dict[str, int] = {}
    async with tenant_rows(urls[DatabaseRole.RUNTIME], tenant_id) as tenant:
        keys: TenantKeys | None = None
        for table, columns in (await tenant.tables()).items():
            counts[table] = 0
            async for row in tenant.rows(table, columns):
                if table == _SEALED:
                    keys = keys or await _keys(settings, tenant_id, tenant)
                    row = _opened(row, keys)  # noqa: PLW2901  the same row, readable
                file.write(f'{{"table": {json.dumps(table)}, "row": {row}}}\n')
                counts[table] += 1
    file.write(json.dumps({"end": True, "rows": counts}) + "\n")
    return counts


async def _keys(settings: Settings, tenant_id: UUID, tenant: TenantRows) -> TenantKeys:
    master_key = MasterKey.load(settings.master_key_file or settings.home / MASTER_KEY)
    try:
        return TenantKeys.derive(tenant_id, master_key.unwrap(tenant_id, await tenant.wrapped_secret()))
    except UnreadableSecret as error:
        raise ConfigurationError(f"What the tenant has sealed cannot be read: {error}.") from None


def _opened(row: str, keys: TenantKeys) -> str:
    """A captured input as it was sent, in place of its sealed bytes; where these were changed, they stay as they are."""
    found: dict[str, Any] = json.loads(row)
    try:
        found["input"] = opened(keys, UUID(found["prediction_id"]), bytes.fromhex(found["sealed"].removeprefix("\\x")))
    except UnreadableSecret:
        return row
    del found["sealed"]
    return json.dumps(found, ensure_ascii=False)
