"""The doctor's look at the audit logs: each tenant's chain from its first entry to its head, under the tenant's own key."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson

from app.audit.sealing import verify
from app.cli.database import known_urls
from app.cli.findings import Finding, Level
from app.db.driver import run_blocking
from app.db.engine import Timeouts
from app.db.privileges import DatabaseRole
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.errors import AppError, ConfigurationError
from app.kernel.home import MASTER_KEY
from app.supervisor.database import is_embedded
from app.supervisor.lock import holder
from app.tenancy.keys import MasterKey
from app.tenancy.seals import TenantSeals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from uuid import UUID

    from app.settings import Settings

_AREA = "audit"
_PATIENT = Timeouts(statement_s=60.0, command_s=65.0, idle_in_transaction_s=600.0)
_TENANTS = "select tenant_id, id from tenants where status <> 'ERASED' order by id"


def audit_findings(settings: Settings, heads: Path | None = None) -> list[Finding]:
    """A finding for each tenant whose log was tampered with, naming the first broken entry, and how many hold.

    `heads`: log lines of the service; the seals in their audit_head events must still be in the logs.
    """
    if is_embedded(settings) and holder(settings.home) is None:
        return [Finding(_AREA, Level.UNREACHABLE, "the embedded database runs while the service runs: start it, then verify")]
    try:
        urls = known_urls(settings)
        if not urls:
            return [Finding(_AREA, Level.NOTE, "no database yet: turnout migrate makes it")]
        master_key = MasterKey.load(settings.master_key_file or settings.home / MASTER_KEY)
        return run_blocking(_verified(urls, TenantSeals(master_key), _written(heads)))
    except (AppError, ConfigurationError) as error:
        return [Finding(_AREA, Level.UNREACHABLE, str(error))]


async def _verified(urls: Mapping[DatabaseRole, str], seals: TenantSeals, written: Mapping[str, Mapping[int, bytes]]) -> list[Finding]:
    database, sync = Database(urls[DatabaseRole.RUNTIME], _PATIENT), SyncDatabase(urls[DatabaseRole.SYNC])
    found: list[Finding] = []
    entries = tenants = 0
    try:
        async with sync.driver_connection() as connection:
            listed = await connection.fetch(_TENANTS)
        for tenant_id, name in listed:
            held, broken = await _tenant(database, seals, tenant_id, written.get(str(tenant_id), {}))
            entries, tenants = entries + held, tenants + (broken is None)
            if broken is not None:
                found.append(Finding(_AREA, Level.UNSAFE, f"{name}: {broken}"))
    finally:
        await database.close()
        await sync.close()
    return [*found, Finding(_AREA, Level.OK, f"{entries:,} entries of {tenants:,} tenants hold")]


async def _tenant(database: Database, seals: TenantSeals, tenant_id: UUID, written: Mapping[int, bytes]) -> tuple[int, str | None]:
    """How many entries hold, and what is wrong, if anything is."""
    async with database.tenant_tx(tenant_id) as session:
        try:
            keys = await seals.keys(session, tenant_id)
        except AppError:
            return 0, "cannot be verified: the tenant's secret is not under the master key at hand"
        if keys is None:
            return 0, None  # erased a moment ago
        verdict = await verify(session, tenant_id, keys, written)
    return verdict.entries, None if verdict.broken is None else str(verdict.broken)


def _written(path: Path | None) -> dict[str, dict[int, bytes]]:
    """Seals by tenant and sequence, from the audit_head events among the lines; other lines are passed over."""
    found: dict[str, dict[int, bytes]] = defaultdict(dict)
    for line in [] if path is None else path.read_bytes().splitlines():
        event = _event(line)
        if event is not None:
            found[event["tenant_id"]][int(event["sequence"])] = bytes.fromhex(event["seal"])
    return found


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = orjson.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("event") == "audit_head" else None
