"""`python -m app.graphql.http.bulk_reader`: reads the JSON of large bodies beside the process that answers, which meanwhile answers.

It knows nothing but the bytes that it is sent. It gives back the request without its many rows, and these as arrays of numbers or, where
they are more than numbers, as small pieces of JSON; or why the body is refused; or "no": then the body is read where all bodies are.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from struct import Struct
from typing import Any

import orjson

from app.errors import BadRequest
from app.graphql.http.strict_json import read_object
from app.kernel.packed import pack

LENGTH = Struct("=QQ")  # of the header and of what follows it; 0 and 0: no
MAX_REST = 64 * 1024  # bytes of a request without its rows; a larger one is out of the ordinary
MAX_NESTING = 12  # of what is not rows; a request that nests deeper is out of the ordinary
PIECE_VALUES = 4_000  # of rows in one piece: read in a fraction of a millisecond
_ROWS = frozenset({dict, list})


def read(body: bytes) -> tuple[bytes, list[Any]] | None:
    """A header, as JSON, and the bytes that follow it; None: "no".

    The header is {"refused": why}, or {"rest": the request, "taken": [{"variable", "inside", "names", "shape"} or {"variable", "inside",
    "pieces": sizes in bytes}]} in the order of the bytes. `inside`: the rows are the variable's `data`, not the variable.
    """
    try:
        data = read_object(body)
    except BadRequest as error:
        return orjson.dumps({"refused": error.message}), []
    variables = data.get("variables")
    if type(variables) is not dict:
        return None
    taken: list[dict[str, Any]] = []
    parts: list[Any] = []
    for name, value in variables.items():
        inside = type(value) is dict and "data" in value
        rows = value["data"] if inside else value
        if type(rows) is not list or not rows or type(rows[0]) not in _ROWS or None in rows:
            continue
        place, found = _as_parts(rows)
        taken.append({"variable": name, "inside": inside, **place})
        parts += found
        if inside:
            value["data"] = None
        else:
            variables[name] = None
    if not taken or not _is_shallow(data, MAX_NESTING):
        return None
    header = orjson.dumps({"rest": data, "taken": taken})
    return (header, parts) if len(header) <= MAX_REST else None


def _as_parts(rows: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    packed = pack(rows)
    if packed is not None:
        return {"names": packed.names, "shape": packed.numbers.shape}, [packed.numbers.data.cast("B")]
    each = max(1, PIECE_VALUES // max(1, len(rows[0])))
    pieces = [orjson.dumps(rows[start : start + each]) for start in range(0, len(rows), each)]
    return {"pieces": [len(piece) for piece in pieces]}, pieces


def _is_shallow(value: Any, levels: int) -> bool:
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        return True
    return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in value)


def serve(connection: socket.socket) -> None:
    """Answers until the other side is gone."""
    while True:
        head = _exactly(connection, 8)
        body = None if head is None else _exactly(connection, int.from_bytes(head, "little"))
        if body is None:
            return
        header, parts = read(bytes(body)) or (b"", [])
        connection.sendall(LENGTH.pack(len(header), sum(map(len, parts))) + header)
        for part in parts:
            connection.sendall(part)


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    received = bytearray(size)
    view, at = memoryview(received), 0
    while at < size:
        count = connection.recv_into(view[at:])
        if not count:
            return None
        at += count
    return received


if __name__ == "__main__":
    gc.disable()  # what JSON makes has no cycles
    os.nice(5)  # one request after the other is worth more than a batch
    serve(socket.socket(fileno=int(sys.argv[1])))
