"""Flags from an Unleash server: fetched by a thread, checked, split by tenant, kept for a start without the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.experiments.unleash.splitting import SplitDocument
    from app.experiments.unleash.types import UnleashDocument, UnleashState
    from app.kernel.clock import Clock
    from app.observability.metrics import Telemetry


@dataclass(frozen=True, slots=True)
class UnleashOptions:
    """How to reach the server: `url` is the one that ends in /api, `token` a backend token."""

    url: str
    token: str
    shared_flags: bool  # whether a strategy without a condition on `tenantId` counts
    refresh_s: float = 15.0
    app_name: str = "turnout"


class UnleashFlagSource:
    """One a serving process. Everything but `start` and `stop` reads memory, from any thread."""

    def __init__(
        self, options: UnleashOptions, database: Database, sync_database: SyncDatabase, telemetry: Telemetry, clock: Clock
    ) -> None:
        raise NotImplementedError

    async def start(self, on_change: Callable[[], None]) -> None:
        """The last good document of the database, where there is one; fetching goes on in a thread. Waits for no flag server.

        `on_change` is called whenever `document()` changed, from any thread: it must only wake somebody. Raises nothing of the
        server's or the database's.
        """
        raise NotImplementedError

    def document(self) -> SplitDocument | None:
        """The last good document; None before there was one."""
        raise NotImplementedError

    def of_tenant(self, tenant: str) -> UnleashDocument | None:
        """The tenant's share of it, by the tenant's name ("clinic"); the same object until the document changes. None: no document."""
        raise NotImplementedError

    def state(self) -> UnleashState:
        """How the source is."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Ends the thread; bounded, and harmless where nothing was started. What was last good can still be read."""
        raise NotImplementedError
