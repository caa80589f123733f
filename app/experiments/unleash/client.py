"""UnleashClient as a fetcher: what it hears is handed on, what it would decide is not asked.

Its own word that it is initialised says nothing: it says so after a refusal, too. What it fetched is told by an event, that nothing
changed by its answer's status alone, which a hook sees, and failures by its log, so that is listened to.
"""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from UnleashClient.cache import BaseCache
from UnleashClient.clients.unleash_client import UnleashClient
from UnleashClient.constants import ETAG, FEATURES_URL
from UnleashClient.events import BaseEvent, UnleashFetchedEvent
from UnleashClient.utils import LOGGER, InstanceAllowType

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.experiments.unleash.types import UnleashOptions

REQUEST_WITHIN_S = 5
_EMPTY = '{"version":2,"features":[]}'
_LONGEST_WORD = 300
log = structlog.get_logger()


class FlagServerClient:
    """Polls in threads of its own. `heard` gets each document's text, `unchanged` is called where the server has nothing new."""

    def __init__(self, options: UnleashOptions, heard: Callable[[str], None], unchanged: Callable[[], None]) -> None:
        self._heard = heard
        self._unchanged = unchanged
        self._memory = _Memory()
        self._words = _LastWords()
        self._interval_s = options.refresh_s
        self._ended = threading.Event()
        self._client = UnleashClient(
            url=options.url,
            app_name=options.app_name,
            custom_headers={"Authorization": options.token},
            custom_options={"hooks": {"response": self._answered}},
            refresh_interval=options.refresh_s,  # type: ignore[arg-type]  # fractions of a second as well: its scheduler takes them
            request_timeout=REQUEST_WITHIN_S,
            request_retries=0,  # the next poll is one
            disable_metrics=True,  # it decides nothing here, so it has nothing to count
            cache=self._memory,
            event_callback=self._told,
            multiple_instance_mode=InstanceAllowType.SILENTLY_ALLOW,
        )

    def start(self) -> None:
        """Begins to poll; waits for nobody."""
        LOGGER.addHandler(self._words)
        LOGGER.setLevel(logging.WARNING)
        LOGGER.propagate = False  # a traceback for each poll of a server that is away
        threading.Thread(target=self._begin, name="unleash", daemon=True).start()

    def stop(self) -> None:
        """Asks the threads to end; they do within a request's time. May be called twice, from any thread."""
        if self._ended.is_set():
            return
        self._ended.set()
        LOGGER.removeHandler(self._words)
        threading.Thread(target=self._end, name="unleash-end", daemon=True).start()

    def forget(self) -> None:
        """The next poll asks for the whole document, also where it is the one that was fetched last."""
        self._memory.forget()

    @property
    def last_words(self) -> str | None:
        """What the client last complained about."""
        return self._words.last

    def _begin(self) -> None:
        while not self._ended.is_set():
            try:
                self._client.initialize_client()
            except Exception as error:
                self._words.last = f"{type(error).__name__}: {error}"[:_LONGEST_WORD]
                log.exception("unleash_client_did_not_start")
                self._ended.wait(self._interval_s)
            else:
                break

    def _end(self) -> None:
        try:
            self._client.destroy()
        except Exception as error:  # noqa: BLE001  whatever it is, it is over
            log.warning("unleash_client_did_not_end", why=type(error).__name__)

    def _told(self, event: BaseEvent) -> None:
        if isinstance(event, UnleashFetchedEvent) and not self._ended.is_set():
            self._heard(event.raw_features)

    def _answered(self, answer: Any, *_: Any, **__: Any) -> None:
        if answer.status_code == HTTPStatus.NOT_MODIFIED and not self._ended.is_set():
            self._unchanged()


class _Memory(BaseCache):
    """The ETag alone. The features are not kept: the client's evaluator gets an empty document, for it is not asked."""

    def __init__(self) -> None:
        self._etag = ""

    def set(self, key: str, value: Any) -> None:
        if key == ETAG:
            self._etag = str(value)

    def mset(self, data: dict[str, Any]) -> None:
        """The client empties the ETag at its start."""

    def get(self, key: str, default: Any = None) -> Any:
        if key == FEATURES_URL:
            return _EMPTY
        return self._etag if key == ETAG else default

    def exists(self, key: str) -> bool:
        return key in {ETAG, FEATURES_URL}

    def destroy(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._etag = ""


class _LastWords(logging.Handler):
    """Keeps the last complaint, without its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:_LONGEST_WORD]
