"""Frames between processes of one machine: two lengths, a JSON header, raw bytes. Never pickle.

Layout: 4 bytes header length, 4 bytes body length (both little-endian, unsigned), the header (a JSON object), the body.
An artifact follows its `load` or `inspect` frame as plain bytes whose number the header gives: it may be larger than a frame.
Used by both ends; imports nothing that a serving process should not have.
"""

from __future__ import annotations

import os
import select
import struct
import time
from typing import Any

import numpy as np
import orjson

from app.kernel.tensors import Batch

PREFIX = struct.Struct("<II")
LARGEST_HEADER = 32 * 1024 * 1024
LARGEST_BODY = 1024 * 1024 * 1024
_TEXTS_A_CHUNK = 1_000


class Hangup(Exception):
    """The other end closed, stalled, or does not keep to the layout."""


def frame(header: dict[str, Any], body_bytes: int = 0) -> bytes:
    """A frame's first part; the caller writes `body_bytes` more after it."""
    encoded = orjson.dumps(header)
    return PREFIX.pack(len(encoded), body_bytes) + encoded


def parse_header(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The JSON object; raises Hangup for anything else."""
    try:
        header = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Hangup("the header is not JSON") from None
    if type(header) is not dict:
        raise Hangup("the header is not an object")
    return header


class BlockingPipe:
    """One end of a non-blocking stream socket, used by plain reads and writes that wait: all that a locked child may do."""

    def __init__(self, fd: int, patience_s: float) -> None:
        self.fd = fd
        self._patience_s = patience_s
        self._poll_in = select.poll()
        self._poll_in.register(fd, select.POLLIN)
        self._poll_out = select.poll()
        self._poll_out.register(fd, select.POLLOUT)

    def read_some(self, limit: int) -> bytes:
        """1 to `limit` bytes; raises Hangup at the end of the stream or when nothing comes."""
        while True:
            try:
                data = os.read(self.fd, limit)
            except BlockingIOError:
                self._wait(self._poll_in)
                continue
            except OSError as error:
                raise Hangup(str(error)) from None
            if not data:
                raise Hangup("closed")
            return data

    def read_exactly(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            data += self.read_some(min(size - len(data), 1 << 20))
        return data

    def read_frame(self) -> tuple[dict[str, Any], bytearray]:
        """The next header and body; raises Hangup."""
        header_size, body_size = PREFIX.unpack(self.read_exactly(PREFIX.size))
        if header_size > LARGEST_HEADER or body_size > LARGEST_BODY:
            raise Hangup("a frame beyond the largest size")
        return parse_header(self.read_exactly(header_size)), self.read_exactly(body_size)

    def write(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                try:
                    view = view[os.write(self.fd, view[: 1 << 20]) :]
                except BlockingIOError:
                    self._wait(self._poll_out)
                except OSError as error:
                    raise Hangup(str(error)) from None

    def _wait(self, poll: select.poll) -> None:
        until = time.monotonic() + self._patience_s
        while not poll.poll(1_000):
            if time.monotonic() > until:
                raise Hangup("the other end stalls")


def encode_batch(batch: Batch) -> tuple[dict[str, Any], list[bytes]]:
    """(header fields, body parts) of a batch: the numbers as float64, then each STRING column as JSON lists of at most 1,000 texts.

    Raises ValueError for a text that is not valid Unicode.
    """
    numbers = np.ascontiguousarray(batch.numbers, dtype=np.float64)
    parts: list[bytes] = []
    if numbers.size:
        parts.append(numbers.tobytes())
    chunks: list[list[int]] = []
    for column in batch.texts:
        try:
            encoded = [orjson.dumps(column[i : i + _TEXTS_A_CHUNK]) for i in range(0, len(column), _TEXTS_A_CHUNK)]
        except orjson.JSONEncodeError:
            raise ValueError("A text is not valid Unicode: it holds a lone surrogate.") from None
        chunks.append([len(chunk) for chunk in encoded])
        parts.extend(encoded)
    return {"rows": batch.rows, "numbers": numbers.shape[1], "texts": chunks}, parts


def decode_batch(header: dict[str, Any], body: bytearray) -> Batch:
    """The batch that `encode_batch` took apart."""
    rows, width = header["rows"], header["numbers"]
    size = rows * width * 8
    numbers = np.frombuffer(body, dtype=np.float64, count=rows * width).reshape(rows, width)
    view, texts = memoryview(body)[size:], []
    for lengths in header["texts"]:
        column: list[str | None] = []
        for length in lengths:
            column += orjson.loads(view[:length])
            view = view[length:]
        texts.append(tuple(column))
    return Batch(rows, numbers, tuple(texts))
