"""Which scikit-learn saved a pickle: read off its bytes on their way to the unpickler, for one that cannot be loaded cannot say."""

from __future__ import annotations

import io
import re
from typing import Any

_NAME = b"_sklearn_version"
# The name and its value as pickle writes texts, each perhaps followed by a memo: protocols 0 to 5. A version is taken for no longer
# than versions are: the opcode that follows may be a letter.
_VALUE = re.compile(
    _NAME + rb"(?:\n)?(?:\x94|q.|r....|p\d+\n)?(?:\x8c.|X....|V)"
    rb"([0-9]{1,3}(?:\.[0-9]{1,4}){1,2}(?:(?:a|b|rc|\.dev|\.post)[0-9]{1,3})?)",
    re.DOTALL,
)
_TAIL = 96  # the longest match, and more
_LOOK_AHEAD_BYTES = 64 * 1024 * 1024


class VersionWatch(io.RawIOBase):
    """The bytes of `source`, unchanged; `version` says what they named."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._tail = b""
        self._found: str | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        if self._found is None:
            self._look(data)
        return len(data)

    def version(self) -> str | None:
        """What was named so far, else in the 64 MiB to come; None where nothing is. Reads on: call it when loading is over."""
        left = _LOOK_AHEAD_BYTES
        try:
            while self._found is None and left > 0 and (data := self._source.read(1 << 20)):
                left -= len(data)
                self._look(data)
        except Exception:  # noqa: BLE001  a damaged stream has no more to say
            return self._found
        return self._found

    def _look(self, data: bytes) -> None:
        joined = self._tail + data
        if _NAME in joined and (match := _VALUE.search(joined)):
            self._found = match[1].decode("ascii")
        self._tail = joined[-_TAIL:]
