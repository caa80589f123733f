"""The doctor's look at the database: reachable, of which version, up to date, and without a hole between tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.database import known_urls
from app.cli.findings import Finding, Level
from app.db.driver import connect, run_blocking, translated
from app.db.privileges import DatabaseRole
from app.db.roles import check_roles, server_warnings
from app.errors import AppError, ConfigurationError
from app.journal.partitions import days_ahead
from app.kernel.clock import SystemClock
from app.registry.liveness import Listed, listed_replicas
from app.supervisor.database import is_embedded
from app.supervisor.lock import holder
from app.supervisor.revision import is_current
from app.tenancy.tombstones import WAITING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.settings import Settings

_FEW_DAYS = 3
_LATE_HOURS = 2.0


def database_findings(settings: Settings) -> Iterator[Finding]:
    """Findings about the database; looks only, so an embedded server that does not run stays so."""
    if is_embedded(settings) and holder(settings.home) is None:
        yield Finding("database", Level.NOTE, "embedded; it runs while the service runs, and is examined then")
        return
    try:
        urls = known_urls(settings)
        if not urls:
            yield Finding("database", Level.NOTE, "configured, without roles yet: turnout migrate makes them")
            return
        yield from _findings(urls, "embedded" if is_embedded(settings) else "configured")
    except (AppError, ConfigurationError) as error:
        yield Finding("database", Level.UNREACHABLE, str(error))


def _findings(urls: Mapping[DatabaseRole, str], kind: str) -> Iterator[Finding]:
    any_url = urls[DatabaseRole.RUNTIME]
    yield Finding("database", Level.OK, f"{kind}, PostgreSQL {run_blocking(_server_version(any_url))}")
    for warning in server_warnings(any_url):
        yield Finding("database", Level.UNSAFE, warning)
    holes = check_roles(urls)
    for hole in holes:
        yield Finding("tenants apart", Level.UNSAFE, hole)
    if not holes:
        yield Finding("tenants apart", Level.OK, f"no hole in the roles {', '.join(urls)}")
    if owner := urls.get(DatabaseRole.OWNER):
        current = run_blocking(is_current(owner))
        yield Finding("migrations", Level.OK if current else Level.UNSAFE, "at the newest" if current else "behind: run turnout migrate")
    else:
        yield Finding("migrations", Level.NOTE, "not examined: that takes TURNOUT_DATABASE_OWNER_URL")
    yield from _replica_findings(urls[DatabaseRole.SYNC])
    yield run_blocking(_erasure_finding(urls[DatabaseRole.SYNC]))
    ahead = run_blocking(days_ahead(any_url, SystemClock()))
    enough = ahead >= _FEW_DAYS
    text = f"partitions for {max(ahead, 0)} more days" + ("" if enough else ": run turnout maintain, or give the parent the owner's URL")
    yield Finding("prediction log", Level.OK if enough else Level.UNSAFE, text)


def _replica_findings(sync_url: str) -> Iterator[Finding]:
    replicas = run_blocking(_replicas(sync_url))
    for each in replicas:
        if each.silent:
            text = f"{each.name} was last heard of {each.silent_s:.0f} s ago: promotions count it as not applied for ten minutes"
            yield Finding("replicas", Level.NOTE, text)
    heard = [each for each in replicas if not each.silent]
    oldest = f", the oldest heartbeat {max(each.silent_s for each in heard):.1f} s ago" if heard else ""
    yield Finding("replicas", Level.OK, f"{len(heard)} serving{oldest}")


async def _erasure_finding(url: str) -> Finding:
    connection = await connect(url)
    try:
        with translated():
            waiting = await connection.fetchrow(WAITING)
    finally:
        await connection.close()
    if not waiting["erasures"]:
        return Finding("erasures", Level.OK, "none waits to be swept")
    hours = (SystemClock().now() - waiting["oldest"]).total_seconds() / 3600
    many = waiting["erasures"]
    text = f"{many} tombstone{'s' * (many > 1)} to sweep the log for, the oldest of {hours:.1f} hours ago"
    late = hours > _LATE_HOURS
    return Finding("erasures", Level.UNSAFE if late else Level.NOTE, text + (": run turnout maintain" if late else ""))


async def _replicas(url: str) -> list[Listed]:
    connection = await connect(url)
    try:
        with translated():
            return await listed_replicas(connection)
    finally:
        await connection.close()


async def _server_version(url: str) -> str:
    connection = await connect(url)
    try:
        return str(await connection.fetchval("show server_version"))
    finally:
        await connection.close()
