"""Large bodies, read by a process beside this one: a batch of 10,000 rows is 20 to 50 ms of JSON, during which nobody else is answered."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
import structlog

from app.errors import BadRequest, InvalidInput
from app.graphql.http.bulk_reader import ASKED, LENGTH, exactly, holds_booleans, many_rows
from app.graphql.http.key_count import count, count_rare
from app.graphql.http.strict_json import MAX_LIST, read_object
from app.kernel.packed import LooseRows, ManyRows, PackedRows, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from uuid import UUID

T = TypeVar("T")
LARGE_BYTES = 64 * 1024  # smaller ones are read in less time than the way there and back takes
_QUICK_BYTES = 256 * 1024
_QUICK_VALUES, _QUICK_LISTS, _QUICK_OBJECTS, _QUICK_KEYS = 25_000, 2_500, 100, 100  # read in two or three milliseconds, whatever they are
_ROOT = Path(__file__).resolve().parents[3]
_PATIENCE_S = 5.0
_FREED_AT_ONCE = 1_000  # so few may also be kept by whoever works on after the answer
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Bulk:
    """A request whose many rows are ManyRows: in `variables`, or (True) as the `data` of these. `body`: the same as bytes."""

    body: bytes
    data: dict[str, Any]
    variables: dict[str, bool]

    def fits(self, taking: Mapping[str, bool]) -> bool:
        """Whether all of them are variables that take such rows, and where."""
        return self.variables.items() <= taking.items()


def read_here(body: bytes) -> Bulk | None:
    """The request, read by the calling thread, with the same rows taken out. Raises BadRequest.

    None where reading might take longer than the loop may stand still. 1,000 rows of 20 numbers are read at once, objects are not.
    """
    if len(body) > _QUICK_BYTES or count_rare(body, b":", _QUICK_KEYS) > _QUICK_KEYS or count(body, b",") > _QUICK_VALUES:
        return None
    lists, objects = count(body, b"["), count_rare(body, b"{", _QUICK_OBJECTS)
    if lists > _QUICK_LISTS or objects > _QUICK_OBJECTS:
        return None
    variables: dict[str, bool] = {}
    booleans = holds_booleans(body)

    def arrays(data: dict[str, Any]) -> None:
        for name, inside, rows in many_rows(data):
            packed = pack(rows, booleans=booleans) if len(rows) <= MAX_LIST else None
            if packed is not None:
                variables[name] = inside
                _put(data, name, inside, packed)

    data = read_object(body, arrays, lists + objects)
    for name, inside, rows in many_rows(data):
        variables[name] = inside
        _put(data, name, inside, LooseRows(rows))
    return Bulk(body, data, variables)


class BulkBodies:
    """One a serving process. The reader is started with the first body that the loop does not read itself, and again where it died.

    `lane(tenant)`: a thread for what has to wait, the tenants' turns in it; it must run one thing at a time.
    """

    def __init__(self, lane: Callable[[UUID], Executor]) -> None:
        self._lane = lane
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = self._answered = False

    def at_hand(self, tenant_id: UUID) -> bool:
        """Whether the reader has answered. Where it was not asked, it is started, which takes a tenth of a second and more."""
        if not self._asked:
            self._asked = True
            self._lane(tenant_id).submit(self._read, b"{}")
        return self._answered

    async def read(self, tenant_id: UUID, body: bytes) -> Bulk | None:
        """The request; None where it has no many rows, and is to be read as any other. Raises BadRequest, InvalidInput."""
        return await asyncio.get_running_loop().run_in_executor(self._lane(tenant_id), self._read, body)

    async def as_sent(self, tenant_id: UUID, body: bytes, made: Callable[[dict[str, Any]], T]) -> T:
        """What `made`, called in the lane, makes of the request with its rows as they were sent. Raises BadRequest and what `made` does."""
        return await asyncio.get_running_loop().run_in_executor(self._lane(tenant_id), self._as_sent, body, made)

    def release(self, tenant_id: UUID, bulk: Bulk) -> None:
        """Nobody needs the rows any more. Freeing very many takes milliseconds: it is done in the lane, a few at a time."""
        for name, inside in bulk.variables.items():
            value = bulk.data["variables"][name]
            many = value["data"] if inside else value[0]
            if isinstance(many, LooseRows) and many.count > _FREED_AT_ONCE:
                self._lane(tenant_id).submit(_freed, many.rows)

    def close(self) -> None:
        """Ends the reader."""
        self._asked = self._answered = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _read(self, body: bytes) -> Bulk | None:
        answer = self._ask(body, as_sent=False)
        return None if answer is None or not answer[0] else _whole(body, orjson.loads(answer[0]), answer[1])

    def _as_sent(self, body: bytes, made: Callable[[dict[str, Any]], T]) -> T:
        answer = self._ask(body, as_sent=True)
        return made(read_object(body) if answer is None else listed_in(_whole(b"", orjson.loads(answer[0]), answer[1])))

    def _ask(self, body: bytes, *, as_sent: bool) -> tuple[bytearray, bytearray] | None:
        """The reader's header and rows; None where it is lost: the body is read in this process then, and the next one by another."""
        try:
            connection = self._connection or self._start()
            connection.sendall(ASKED.pack(len(body), as_sent))
            connection.sendall(body)
            header_size, rows_size = LENGTH.unpack(exactly(connection, LENGTH.size))
            answer = exactly(connection, header_size), exactly(connection, rows_size)
            self._asked = self._answered = True
            return answer
        except OSError as error:  # it died or hangs
            log.warning("bulk_reader_lost", error=type(error).__name__)
            self.close()
            return None
        except BaseException:  # no memory, say: what the reader still sends must not become the next one's rows
            self.close()
            raise

    def _start(self) -> socket.socket:
        own, its = socket.socketpair()
        with its:
            command = [sys.executable, "-P", "-m", "app.graphql.http.bulk_reader", str(its.fileno())]
            env = {"PATH": os.defpath, "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(command, env=env, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        own.settimeout(_PATIENCE_S)
        self._connection = own
        return own


def listed_in(bulk: Bulk) -> dict[str, Any]:
    """The request's object, where all rows came loose: they are the lists that JSON made of them."""
    variables = bulk.data["variables"] if bulk.variables else {}
    for name, inside in bulk.variables.items():
        if inside:
            variables[name]["data"] = variables[name]["data"].rows
        else:
            variables[name] = variables[name][0].rows
    return bulk.data


def _freed(rows: list[Any]) -> None:
    while rows:
        del rows[-_FREED_AT_ONCE:]


def _whole(body: bytes, header: dict[str, Any], rows: bytearray) -> Bulk:
    """The request with what was taken out put back, arrays over the bytes that came."""
    if (why := header.get("refused")) is not None:
        raise BadRequest(why)
    if (why := header.get("unfit")) is not None:
        raise InvalidInput(why)
    data, view, at = header["rest"], memoryview(rows), 0
    for place in header["taken"]:
        many, size = _rows(place, view[at:])
        at += size
        _put(data, place["variable"], place["inside"], many)
    return Bulk(body, data, {place["variable"]: place["inside"] for place in header["taken"]})


def _put(data: dict[str, Any], name: str, inside: bool, many: ManyRows) -> None:
    if inside:
        data["variables"][name]["data"] = many
    else:
        data["variables"][name] = [many]


def _rows(place: dict[str, Any], view: memoryview) -> tuple[ManyRows, int]:
    """Rows that begin where `view` does, and their size in bytes."""
    if "shape" in place:
        count, width = place["shape"]
        numbers = np.frombuffer(view, dtype=np.float64, count=count * width).reshape(count, width)
        return PackedRows(None if place["names"] is None else tuple(place["names"]), numbers), numbers.nbytes
    rows: list[Any] = []
    at = 0
    for size in place["pieces"]:  # one by one, so that whoever waits for the interpreter waits for one of them
        rows += orjson.loads(view[at : at + size])
        at += size
    return LooseRows(rows), at
