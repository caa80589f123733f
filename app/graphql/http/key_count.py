"""What a JSON text is made of, and how many keys its objects have, known before one is made: to make them costs ten times as much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_OTHERS = bytes(sorted(set(range(256)) - set(b':{}"')))
_COLON, _OPEN, _QUOTE = b':{"'
_DEEPEST = 32_767  # what is deeper counts as if it were there; nothing so deep is taken


class KeyCount(NamedTuple):
    """Of the largest object, and of all together. A name that stands twice counts twice."""

    largest: int
    together: int


_LONG = 8 * 1024  # from so many bytes on an array counts faster


def count(text: bytes, sign: bytes) -> int:
    """How often this one byte stands in the text."""
    if len(text) < _LONG:
        return text.count(sign)
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord(sign)))


def count_rare(text: bytes, sign: bytes, most: int) -> int:
    """As `count`, of a sign that is expected to be rare, which is faster then. After more than `most` nobody looks for another."""
    found, at = 0, text.find(sign)
    while at >= 0 and found <= most:
        found, at = found + 1, text.find(sign, at + 1)
    return found


def count_keys(text: bytes) -> KeyCount:
    """The keys of a JSON text; of any other text at least those of the part that is JSON, as far as a parser comes."""
    if b"\\" in text:  # all are in strings: pairs go first, then a backslash that is left belongs to what follows it
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    signs = np.frombuffer(text.translate(None, _OTHERS).replace(b'""', b""), dtype=np.uint8)  # strings with none of the signs are gone
    quotes = signs == _QUOTE
    if quotes.any():
        signs = signs[~(np.bitwise_xor.accumulate(quotes) | quotes)]
    braces = np.flatnonzero(signs != _COLON)
    keys = np.diff(braces, append=len(signs)) - 1  # behind each brace, up to the next one
    opens = signs[braces] == _OPEN
    depths = np.cumsum(np.where(opens, 1, -1))  # of the object that a brace begins or comes back to
    order = np.argsort(np.minimum(depths, _DEEPEST).astype(np.int16), kind="stable")
    order = order[depths[order] > 0]
    first = np.flatnonzero(opens[order])  # of each object; behind it, what follows the objects inside it
    if not first.size:
        return KeyCount(0, 0)
    of_each = np.add.reduceat(keys[order], first)
    return KeyCount(int(of_each.max()), int(of_each.sum()))
