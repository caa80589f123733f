"""Looks over a graph's bytes before a parser makes objects of them: two bytes can stand for an object of a hundred.

Only fields that compiled models need may be there; all others, and so functions, subgraphs and data in other files, are refused here.
Source: Protocol Buffers, "Encoding"; onnx.proto of the ONNX specification.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_MESSAGES = 200_000  # nodes, attributes, constants
MOST_ENTRIES = 3_000_000  # fields that are looked at one by one
MOST_SMALL_BYTES = 1024 * 1024  # of names and types of inputs and outputs, versions, notes
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Runs of what attributes of trees hold by the million are passed over at once: floats and ints.
_RUNS = re.compile(rb"(?:\x3d[\x00-\xff]{4}|\x40[\x80-\xff]{0,9}[\x00-\x7f])+")


class GraphRefused(Exception):
    """The graph is not loaded; the text says why."""


# field number: what it holds. "": a number or a text; "small": of bounded size in all; others: a message with fields of its own.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {1: "", 2: "small", 3: "small", 4: "small", 5: "", 6: "small", 7: "graph", 8: "small", 14: "small"},
    "graph": {1: "node", 2: "small", 5: "tensor", 10: "small", 11: "small", 12: "small", 13: "small", 16: "small"},
    "node": {1: "text", 2: "text", 3: "text", 4: "text", 5: "attribute", 6: "small", 7: "text", 9: "small"},
    "attribute": {1: "text", 2: "", 3: "", 4: "text", 5: "tensor", 7: "", 8: "", 9: "text", 10: "tensor", 13: "small", 20: ""},
    "tensor": {1: "", 2: "", 4: "", 5: "", 6: "text", 7: "", 8: "text", 9: "text", 10: "", 11: "", 12: "small", 14: "", 16: "small"},
}
_REFUSED = {
    ("model", 20): "training steps", ("model", 25): "functions of its own", ("graph", 15): "sparse constants",
    ("attribute", 6): "a graph within a node", ("attribute", 11): "a graph within a node", ("tensor", 13): "data in other files",
    ("tensor", 3): "constants in pieces",
}  # fmt: skip


def look_over(data: bytes) -> None:
    """Returns where nothing is there that should not be; raises GraphRefused."""
    waiting = [("model", 0, len(data))]
    messages = entries = small = 0
    while waiting:
        kind, start, stop = waiting.pop()
        messages += 1
        for number, wire, begin, end in _fields(data, start, stop, skip_runs=kind == "attribute"):
            entries += 1
            holds = _FIELDS[kind].get(number)
            if holds is None:
                raise GraphRefused(f"its graph has {_REFUSED.get((kind, number), f'an unknown part ({kind}, {number})')}")
            if holds in _FIELDS:
                if wire != _BYTES:
                    raise GraphRefused("its graph is no ONNX model")
                waiting.append((holds, begin, end))
            elif holds == "small":
                small += end - begin + 1
            if len(waiting) + messages > MOST_MESSAGES or entries > MOST_ENTRIES:
                raise GraphRefused("its graph has too many parts")
        if small > MOST_SMALL_BYTES:
            raise GraphRefused("its graph has too many notes")


def _fields(data: bytes, at: int, stop: int, *, skip_runs: bool) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, start of the value, end of it) of each field of a message."""
    while at < stop:
        if skip_runs and (run := _RUNS.match(data, at, stop)) is not None:
            at = run.end()
            continue
        key, at = _varint(data, at, stop)
        wire = key & 7
        begin = at
        if wire == _VARINT:
            _, at = _varint(data, at, stop)
        elif wire == _BYTES:
            size, begin = _varint(data, at, stop)
            at = begin + size
        elif wire in {_FIXED32, _FIXED64}:
            at += 4 if wire == _FIXED32 else 8
        else:
            raise GraphRefused("its graph is no ONNX model")
        if at > stop:
            raise GraphRefused("its graph is cut short")
        yield key >> 3, wire, begin, at


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise GraphRefused("its graph is cut short")
