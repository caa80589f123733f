"""The version of this Turnout, as pyproject.toml says it; a test holds the two together."""

from __future__ import annotations

VERSION = "0.1.0"
