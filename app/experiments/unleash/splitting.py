"""The document of a flag server, and each tenant's share of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.experiments.unleash.types import UnleashDocument


class SplitDocument:
    """A checked document; shares are made when they are first asked for, and kept."""

    revision: int
    problems: tuple[str, ...]

    def of_tenant(self, tenant: str) -> UnleashDocument:
        """The tenant's share; without features where no flag concerns it."""
        raise NotImplementedError
