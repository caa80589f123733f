"""`python -m app.graphql.http.bulk_reader`: reads the JSON of large bodies beside the process that answers, which meanwhile answers.

It knows nothing but the bytes that it is sent. It gives back the request without its many rows, and these as arrays of numbers or, where
they are more than numbers, as small pieces of JSON; or why the body is refused; or "no": then the body is read where all bodies are.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from select import select
from struct import Struct
from typing import Any

import orjson

from app.errors import BadRequest, InvalidInput
from app.graphql.http.key_count import count_keys
from app.graphql.http.strict_json import MAX_CONTAINERS, MAX_LIST, check_lists, read_object
from app.kernel.memory import give_back_memory
from app.kernel.packed import pack
from app.kernel.ranks import LONG_WORK

ASKED = Struct("=Q?")  # the length of a body, and whether its rows are wanted as they were sent
LENGTH = Struct("=QQ")  # of the header and of what follows it; 0 and 0: no
MAX_REST = 256 * 1024  # bytes of a request without its rows, with the names of a wide matrix; a larger one is out of the ordinary
MAX_KEYS_ELSEWHERE = 200_000  # in all objects of a request that is out of the ordinary: whoever reads it answers nobody meanwhile
MAX_NESTING = 12  # of what is not rows; a request that nests deeper is out of the ordinary
PIECE_VALUES = 4_000  # of rows in one piece: read in a fraction of a millisecond
_IDLE_S = 1.0
_ROWS = frozenset({dict, list})


def read(body: bytes) -> tuple[bytes, list[Any]] | None:
    """A header, as JSON, and the bytes that follow it; None: "no".

    The header is {"refused": why}, {"unfit": why} for values that no argument takes, or {"rest": the request, "taken": [{"variable",
    "inside", "names", "shape"} or {"variable", "inside", "pieces": sizes in bytes}]} in the order of the bytes. `inside`: the rows are the
    variable's `data`, not the variable.
    """
    taken = _Taken(booleans=holds_booleans(body))
    try:
        data = read_object(body, taken.arrays)
    except BadRequest as error:
        return _elsewhere(body, {}) if taken.places else _refused(error.message)
    taken.pieces(data)
    if not taken.places or taken.rows > MAX_CONTAINERS // 2 or not _is_shallow(data, MAX_NESTING):
        return _elsewhere(body, data)
    header = orjson.dumps({"rest": data, "taken": taken.places})
    return (header, taken.parts) if len(header) <= MAX_REST else _elsewhere(body, data)


def read_as_sent(body: bytes) -> tuple[bytes, list[Any]]:
    """As `read`, but all rows as pieces, in which each number is what it was, and never "no"; refused is what from_body refuses."""
    taken = _Taken(booleans=True)
    try:
        data = read_object(body)
    except BadRequest as error:
        return _refused(error.message)
    taken.pieces(data)
    return orjson.dumps({"rest": data, "taken": taken.places}), taken.parts


def _elsewhere(body: bytes, data: dict[str, Any]) -> tuple[bytes, list[Any]] | None:
    """None: "no"; or the refusal of what would take too long where all bodies are read."""
    variables = data.get("variables")
    try:
        check_lists(variables if type(variables) is dict else {})
    except InvalidInput as error:
        return orjson.dumps({"unfit": error.message}), []
    keys = count_keys(body).together
    if keys <= MAX_KEYS_ELSEWHERE:
        return None
    return _refused(
        f"The request holds objects of {keys:,} keys together; at most {MAX_KEYS_ELSEWHERE:,} are taken where they are not the rows of a "
        "batch, each a variable of its own. Lists in column order need no keys."
    )


def _refused(why: str) -> tuple[bytes, list[Any]]:
    return orjson.dumps({"refused": why}), []


class _Taken:
    """What is taken out of a request, in the order of its bytes."""

    def __init__(self, *, booleans: bool) -> None:
        self._booleans = booleans
        self.rows = 0
        self.places: list[dict[str, Any]] = []
        self.parts: list[Any] = []

    def arrays(self, data: dict[str, Any]) -> None:
        """Rows that are numbers alone, which are known not to nest."""
        for name, inside, rows in many_rows(data):
            packed = pack(rows, booleans=self._booleans) if len(rows) <= MAX_LIST else None
            if packed is not None:
                place = {"names": packed.names, "shape": packed.numbers.shape}
                self._take(data, name, inside, packed.count, place, [packed.numbers.data.cast("B")])

    def pieces(self, data: dict[str, Any]) -> None:
        """All other rows."""
        for name, inside, rows in many_rows(data):
            each = max(1, PIECE_VALUES // max(1, len(rows[0])))
            pieces = [orjson.dumps(rows[start : start + each]) for start in range(0, len(rows), each)]
            self._take(data, name, inside, len(rows), {"pieces": [len(piece) for piece in pieces]}, pieces)

    def _take(self, data: dict[str, Any], name: str, inside: bool, rows: int, place: dict[str, Any], parts: list[Any]) -> None:
        self.rows += rows
        self.places.append({"variable": name, "inside": inside, **place})
        self.parts += parts
        if inside:
            data["variables"][name]["data"] = None
        else:
            data["variables"][name] = None


def holds_booleans(body: bytes) -> bool:
    """Whether true or false may stand in a list. A letter is found in a fiftieth of the time that a word takes."""
    begun, ended = max(0, body.find(b"[[")), body.rfind(b"]") + 1
    if body.find(b"u", begun, ended) < 0 and body.find(b"s", begun, ended) < 0:
        ended = begun
    return body.find(b"true", 0, ended) >= 0 or body.find(b"false", 0, ended) >= 0


def many_rows(data: dict[str, Any]) -> list[tuple[str, bool, list[Any]]]:
    """Variables that are rows, or (True) whose `data` are, and these."""
    variables = data.get("variables")
    found = []
    for name, value in variables.items() if type(variables) is dict else ():
        inside = type(value) is dict and "data" in value
        rows = value["data"] if inside else value
        if type(rows) is list and rows and type(rows[0]) in _ROWS and None not in rows:
            found.append((name, inside, rows))
    return found


def _is_shallow(value: Any, levels: int) -> bool:
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        return True
    return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in value)


def serve(connection: socket.socket) -> None:
    """Answers until the other side is gone."""
    while True:
        if not select([connection], [], [], _IDLE_S)[0]:
            give_back_memory()
        try:
            size, as_sent = ASKED.unpack(exactly(connection, ASKED.size))
            body = bytes(exactly(connection, size))
        except ConnectionResetError:
            return
        header, parts = read_as_sent(body) if as_sent else read(body) or (b"", [])
        connection.sendall(LENGTH.pack(len(header), sum(map(len, parts))) + header)
        for part in parts:
            connection.sendall(part)


def exactly(connection: socket.socket, size: int) -> bytearray:
    """The next `size` bytes; raises ConnectionResetError where the other side closed before that."""
    received = bytearray(size)
    view, at = memoryview(received), 0
    while at < size:
        count = connection.recv_into(view[at:])
        if not count:
            raise ConnectionResetError
        at += count
    return received


if __name__ == "__main__":
    gc.disable()  # what JSON makes has no cycles
    os.nice(LONG_WORK)
    serve(socket.socket(fileno=int(sys.argv[1])))
