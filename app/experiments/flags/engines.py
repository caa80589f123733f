"""The engines of tenants that were asked lately, a bounded number: documents are small, compiled ones are not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from app.experiments.flags.engine import Engine
from app.experiments.flags.remembering import Remembered

if TYPE_CHECKING:
    from app.experiments.flags.document import Document

MOST_ENGINES = 1_000  # some 50 KB each


class Engines:
    """Compiled documents, the least recently asked dropped first. Any thread may ask.

    One that was dropped is compiled again when it is asked for: a few tenths of a millisecond, and the same answers.
    """

    def __init__(self, most: int = MOST_ENGINES) -> None:
        self._most = most
        self._kept: OrderedDict[int, tuple[Document, Engine]] = OrderedDict()  # by identity: entries keep their document alive
        self._lock = threading.Lock()
        self.remembered = Remembered()  # what they decided

    def of(self, document: Document) -> Engine:
        """The document's engine. Raises FlagsRefused where the evaluator does not take it, which a tested document never meets."""
        with self._lock:
            kept = self._kept.get(id(document))
            if kept is not None:
                self._kept.move_to_end(id(document))
                return kept[1]
        engine = Engine(document)  # outside the lock: others go on; two may compile the same, which is harmless
        with self._lock:
            self._kept[id(document)] = (document, engine)
            self._kept.move_to_end(id(document))
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return engine

    def drop(self, document: Document) -> None:
        """Forgets a document that decides no more."""
        with self._lock:
            self._kept.pop(id(document), None)

    def __len__(self) -> int:
        return len(self._kept)
