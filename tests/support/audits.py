"""graphql-http's audit suite, in Node."""

import json
from pathlib import Path

from tests.support.npm import node

FOLDER = Path(__file__).parents[1] / "contract" / "audits"


def run_audits(url: str, token: str) -> list[dict]:
    """Each audit as {id, name, status ("ok", "notice", "warn", "error"), reason}."""
    return [json.loads(line) for line in node(FOLDER, "audit.mjs", AUDIT_URL=url, AUDIT_TOKEN=token).splitlines()]
