"""Flags from an Unleash server: fetched by threads, checked, split by tenant, kept for a start without the server.

What decides is the last good document. Rubbish is refused and told; a server that is away changes nothing. Of two documents the one with
the newer revision decides, and one that is older than what is known waits: behind a load balancer one server may lag. Where it stays
for three polls, the server was set back, and it is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from app.errors import AppError
from app.experiments.flags.document import FlagsRefused
from app.experiments.unleash.client import FlagServerClient
from app.experiments.unleash.keeping import keep_document, kept_document
from app.experiments.unleash.splitting import SplitDocument
from app.experiments.unleash.types import UnleashOptions, UnleashState

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.experiments.unleash.ports import KeptDocument, SourceTelemetry
    from app.experiments.unleash.types import UnleashDocument
    from app.kernel.clock import Clock

__all__ = ["UnleashFlagSource", "UnleashOptions"]
_POLLS_OF_PATIENCE = 3
log = structlog.get_logger()


class UnleashFlagSource:
    """One a serving process. Everything but `start`, `run` and `stop` reads memory, from any thread."""

    def __init__(
        self,
        options: UnleashOptions,
        database: Database,
        sync_database: SyncDatabase,
        telemetry: SourceTelemetry,
        clock: Clock,
        kept: KeptDocument | None = None,
    ) -> None:
        """`kept`: this machine's own copy of the last good document, for a start without database and server."""
        self._options = options
        self._database, self._sync_database = database, sync_database
        self._telemetry, self._clock = telemetry, clock
        self._kept, self._to_file = kept, b""
        self._client = FlagServerClient(options, self._heard, self._unchanged)
        self._taking = threading.Lock()
        self._on_change: Callable[[], None] = lambda: None
        self._document: SplitDocument | None = None
        self._stored = False
        self._heard_at: datetime | None = None
        self._heard_mono = clock.monotonic()
        self._refused: str | None = None
        self._older_since: float | None = None
        self._to_keep: tuple[int, bytes, bool] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, on_change: Callable[[], None]) -> None:
        """The last good document of this machine or of the database, where there is one; fetching goes on in threads.

        `on_change` is called whenever `document()` changed, from any thread: it must only wake somebody. Raises nothing of the
        server's or the database's, and waits for no flag server.
        """
        self._on_change = on_change
        await self._take_filed()
        await self._take_kept()
        self._client.start()
        self._task = asyncio.create_task(self._tend())

    def document(self) -> SplitDocument | None:
        """The last good document; None before there was one."""
        return self._document

    def of_tenant(self, tenant: str) -> UnleashDocument | None:
        """The tenant's share of it, by the tenant's name ("clinic"); the same object until the document changes. None: no document."""
        document = self._document
        return None if document is None else document.of_tenant(tenant)

    def state(self) -> UnleashState:
        """How the source is."""
        document, silent = self._document, self._silent_s() > _POLLS_OF_PATIENCE * self._options.refresh_s
        return UnleashState(
            heard_at=self._heard_at,
            revision=None if document is None else document.revision,
            stored=self._stored,
            silent=self._client.last_words or "no answer yet" if silent else None,
            refused=self._refused,
            problems=0 if document is None else document.problem_count(),
        )

    async def stop(self) -> None:
        """Asks the threads to end; harmless where nothing was started. What was last good can still be read."""
        task, self._task = self._task, None
        if task is None:
            return
        self._client.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _heard(self, text: str) -> None:
        """In a thread of the client's."""
        try:
            document = SplitDocument.read(text, self._options.shared_flags)
            with self._taking:
                self._heard_now()
                taken = self._take(document, text)
        except FlagsRefused as error:
            self._refuse(error.message)
        except Exception as error:
            log.exception("unleash_document_broke")
            self._refuse(f"could not be read: {type(error).__name__}")
        else:
            if taken:
                self._on_change()

    def _take(self, document: SplitDocument, text: str) -> bool:
        now, known = self._clock.monotonic(), self._document
        set_back = known is not None and document.revision < known.revision
        if set_back:
            self._older_since = now if self._older_since is None else self._older_since
            if now - self._older_since < _POLLS_OF_PATIENCE * self._options.refresh_s:
                self._client.forget()  # so that it is told again
                return False
            log.warning("unleash_set_back", revision=document.revision)
        self._older_since = None
        self._to_file = text.encode()
        self._to_keep = (document.revision, self._to_file, set_back)
        self._document, self._stored = document, False
        if document.problems:
            log.warning("unleash_flags_with_problems", revision=document.revision, problems=document.problems[:20])
        return True

    def _refuse(self, why: str) -> None:
        """Told once; the whole document is asked for again, so that the refusal ends with the first good one."""
        if self._refused != why:
            log.error("unleash_document_refused", why=why)
        self._refused = why
        self._telemetry.unleash_refused()
        self._client.forget()

    def _unchanged(self) -> None:
        with self._taking:
            self._heard_now()

    def _heard_now(self) -> None:
        if self._silent_s() > _POLLS_OF_PATIENCE * self._options.refresh_s:
            log.warning("unleash_heard_again")
        self._heard_at, self._heard_mono, self._refused = self._clock.now(), self._clock.monotonic(), None
        self._telemetry.unleash_heard(self._heard_at.timestamp())

    def _silent_s(self) -> float:
        return self._clock.monotonic() - self._heard_mono

    async def _tend(self) -> None:
        """Keeps what was heard, and hears from others what was kept while the server does not speak to this process."""
        told = False
        while True:
            await asyncio.sleep(min(1.0, self._options.refresh_s))
            try:
                await self._file()
                await self._keep()
                silent = self._silent_s() > _POLLS_OF_PATIENCE * self._options.refresh_s
                if silent and not told:
                    log.warning("unleash_silent", last_words=self._client.last_words)
                told = silent
                if silent and await self._take_kept():
                    self._on_change()
            except AppError as error:
                log.warning("unleash_document_not_kept", code=error.code)
            except Exception:
                log.exception("unleash_tending_broke")

    async def _file(self) -> None:
        """First, for it needs no database."""
        text, self._to_file = self._to_file, b""
        if text and self._kept is not None:
            await asyncio.to_thread(self._kept.write, text)

    async def _take_filed(self) -> None:
        raw = None if self._kept is None else await asyncio.to_thread(self._kept.read)
        if raw is None:
            return
        try:
            document = await asyncio.to_thread(SplitDocument.read, raw.decode(), self._options.shared_flags)
        except (AppError, ValueError) as error:
            log.warning("unleash_filed_document_not_read", why=str(error))
            return
        with self._taking:
            self._document, self._stored = document, True
        log.info("unleash_document_from_disk", revision=document.revision)

    async def _keep(self) -> None:
        if (kept := self._to_keep) is None:
            return
        revision, text, set_back = kept
        document: Any = await asyncio.to_thread(orjson.loads, text)
        await keep_document(self._database, revision, document, also_older=set_back)
        if self._to_keep is kept:
            self._to_keep = None

    async def _take_kept(self) -> bool:
        """Whether the database had a newer document than is known here."""
        known = -1 if self._document is None else self._document.revision
        try:
            raw = await kept_document(self._sync_database, known)
            if raw is None:
                return False
            document = await asyncio.to_thread(SplitDocument.of, raw, self._options.shared_flags)
        except AppError as error:  # also FlagsRefused: of a newer or older Turnout, say
            log.warning("unleash_kept_document_not_read", why=error.message)
            return False
        with self._taking:
            if self._document is not None and self._document.revision >= document.revision:
                return False
            self._document, self._stored = document, True
            self._to_file = orjson.dumps(raw)
        log.info("unleash_document_from_database", revision=document.revision)
        return True
