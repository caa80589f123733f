"""The evaluator of both sources behind two doors: a document in, an answer for one flag and one context out.

`UnleashEngine` serialises the context, asks through `json` and looks up impressions on each question: 13 µs, of which the evaluation is
2.5. So the questions go to its library directly, by the same functions. They keep the interpreter's lock: three microseconds are shorter
than any hand-over to another thread. Taking a document releases it.
"""

from __future__ import annotations

import ctypes
import json
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import orjson
from yggdrasil_engine.engine import UnleashEngine, YggdrasilError

from app.errors import Unavailable
from app.experiments.flags.document import PATTERN_OPERATOR, Constraint, Document, Flag, FlagsRefused, Problem, Strategy

if TYPE_CHECKING:
    from app.experiments.flags.context import Context

_NO_CUSTOM_STRATEGIES = b"{}"


class RawVariant(NamedTuple):
    """The evaluator's own answer: `name` is "disabled" where no choice was drawn; `payload` its text."""

    name: str
    enabled: bool
    payload: str | None
    feature_enabled: bool


class Engine:
    """One checked document, compiled. Immutable: a changed document is another engine. Any thread may ask.

    Raises FlagsRefused where the evaluator does not take the document whole.
    """

    __slots__ = ("_check", "_engine", "_free", "_state")

    def __init__(self, document: Document) -> None:
        self._engine = UnleashEngine()
        _take(self._engine, document)
        # The functions of a library handle of our own: argument types are set on it alone.
        library = ctypes.PyDLL(self._engine.lib._name)  # noqa: SLF001  the path it was loaded from
        self._check = library.check_variant
        self._check.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]
        self._check.restype = ctypes.c_void_p
        self._free = library.free_response
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None
        self._state = ctypes.c_void_p(self._engine.state)

    def ask(self, flag: str, context: Context) -> RawVariant | None:
        """What the flag gives in this context; None where the document has no such flag. Raises Unavailable where the evaluator fails."""
        answer = self._check(self._state, flag.encode(), context, _NO_CUSTOM_STRATEGIES)
        try:
            text = ctypes.string_at(answer)
        finally:
            self._free(answer)
        read = orjson.loads(text)
        if read["status_code"] == "Error":
            raise Unavailable(f"The flag {flag!r} could not be evaluated.")
        value = read["value"]
        if value is None:
            return None
        payload = value.get("payload")
        return RawVariant(value["name"], value["enabled"], None if payload is None else payload["value"], value["featureEnabled"])


def _take(engine: UnleashEngine, document: Document) -> None:
    """Its own word is not enough: it says nothing of a document that it dropped, and fails over its own warnings."""
    try:
        warned = engine.take_state(document.to_json().decode())
        known = {toggle.name for toggle in engine.list_known_toggles()}
    except (YggdrasilError, TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise FlagsRefused(
            [Problem("", "", f"was not taken by the evaluator ({type(error).__name__}): a rule could not be compiled.")]
        ) from error
    missing = sorted({flag.name for flag in document.flags} - known)
    if warned or missing:
        raise FlagsRefused([Problem(name, "", "was not taken by the evaluator.") for name in missing or [""]])


@lru_cache(maxsize=1024)
def takes_pattern(pattern: str) -> bool:
    """Whether the evaluator compiles this regular expression: one that it cannot compile it reads as "nobody", without a word.

    An empty alternative before it makes any good one match the empty text, and completes no bad one.
    """
    probe = Constraint("probe", PATTERN_OPERATOR, (f"|{pattern}",))
    try:
        answer = Engine(Document(0, (Flag("probe", strategies=(Strategy("default", (probe,)),)),))).ask("probe", _PROBE)
    except FlagsRefused:
        return False
    return answer is not None and answer.feature_enabled


_PROBE: Context = b'{"userId":"probe","properties":{"probe":""}}'
