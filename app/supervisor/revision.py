"""Whether a database needs migrating, told without importing the migration tool: a second start has no time for it."""

from __future__ import annotations

import re
from pathlib import Path

from app.db.driver import connect

_VERSIONS = Path(__file__).resolve().parents[2] / "migrations" / "versions"
_REVISION = re.compile(r"^(down_)?revision(?::[^=\n]*)? = [\"']([^\"']+)[\"']", re.MULTILINE)


def newest_revision(versions: Path = _VERSIONS) -> str | None:
    """The revision that no other one follows; None where there is none, or more than one."""
    made: set[str] = set()
    followed: set[str] = set()
    for file in versions.glob("*.py"):
        for down, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (followed if down else made).add(revision)
    ends = made - followed
    return ends.pop() if len(ends) == 1 else None


async def is_current(url: str) -> bool:
    """Whether the database behind `url` (any role that may read the revision; the owner can) is at the newest revision."""
    connection = await connect(url)
    try:
        if not await connection.fetchval("select to_regclass('public.alembic_version') is not null"):
            return False
        return newest_revision() in {row["version_num"] for row in await connection.fetch("select version_num from public.alembic_version")}
    finally:
        await connection.close()
