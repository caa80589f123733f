"""`python -m app.graphql.export FILE`: the schema in its definition language, for `make schema` and the test that compares it."""

from __future__ import annotations

import sys
from pathlib import Path

from app.graphql.schema import build_schema


def sdl() -> str:
    """The schema's text, as committed in app/graphql/schema.graphql."""
    return build_schema().as_str() + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(sdl())
