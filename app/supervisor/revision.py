"""How a database stands to this code, told without importing the migration tool: a second start has no time for it.

A migration that only adds says which older code may go on with its schema (`oldest_code`), and `turnout migrate` leaves that as a comment
on the table of revisions. So code that does not know a revision can tell whether it may serve, and releases roll out while the one before
serves.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from app.db.driver import connect

_VERSIONS = Path(__file__).resolve().parents[2] / "migrations" / "versions"
_REVISION = re.compile(r"^(down_)?revision(?::[^=\n]*)? = [\"']([^\"']+)[\"']", re.MULTILINE)
_COMMENT = re.compile(r"oldest code: (\S+)")
_QUERY = """select (select string_agg(version_num, ' ') from public.alembic_version) as revision,
    obj_description('public.alembic_version'::regclass) as said"""


class Standing(StrEnum):
    """How a database's schema stands to this code."""

    CURRENT = "current"
    BEHIND = "behind"  # or empty: to be migrated
    AHEAD = "ahead"  # of newer code, which only added to it: this code may serve
    FOREIGN = "foreign"  # of newer code, which took something away, or of something else altogether


def known_revisions(versions: Path = _VERSIONS) -> tuple[set[str], set[str]]:
    """All revisions that this code knows, and those that another one follows."""
    made: set[str] = set()
    followed: set[str] = set()
    for file in versions.glob("*.py"):
        for down, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (followed if down else made).add(revision)
    return made, followed


def newest_revision(versions: Path = _VERSIONS) -> str | None:
    """The revision that no other one follows; None where there is none, or more than one."""
    made, followed = known_revisions(versions)
    ends = made - followed
    return ends.pop() if len(ends) == 1 else None


def standing_of(revision: str | None, said: str | None, versions: Path = _VERSIONS) -> Standing:
    """`revision`: the database's; `said`: the comment beside it."""
    known, _ = known_revisions(versions)
    if not revision:
        return Standing.BEHIND
    if revision in known:
        return Standing.CURRENT if revision == newest_revision(versions) else Standing.BEHIND
    oldest = _COMMENT.search(said or "")
    return Standing.AHEAD if oldest and oldest[1] in known else Standing.FOREIGN


async def standing(url: str) -> Standing:
    """Of the database behind `url` (any role that may read the revision; the owner can). Raises Unavailable, ConfigurationError."""
    connection = await connect(url)
    try:
        if not await connection.fetchval("select to_regclass('public.alembic_version') is not null"):
            return Standing.BEHIND
        row = await connection.fetchrow(_QUERY)
        return standing_of(row["revision"], row["said"])
    finally:
        await connection.close()


async def is_current(url: str) -> bool:
    """Whether the database behind `url` needs no migration of this code's."""
    return await standing(url) in {Standing.CURRENT, Standing.AHEAD}
