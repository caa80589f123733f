"""Clients of our own, where wrk is not installed:

    python -m tools.bench.clients PORT PATH CONNECTIONS SECONDS HEADERS BODIES [CHECK TEXT | THINK MS]

The same arguments and the same last line as `wrk.lua`, and every answer is looked at.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import cast

import uvloop


class Client(asyncio.Protocol):
    """One connection with one request at a time. Knows just enough HTTP: a status line, Content-Length or chunks, a body."""

    def __init__(self, requests: list[bytes], until: float, expected: bytes, think_s: float) -> None:
        self.requests, self.until, self.expected, self.think_s = requests, until, expected, think_s
        self.turn = random.randrange(len(requests))
        self.times: list[float] = []
        self.status = self.wrong = 0
        self.sample, self.buffer = b"", b""
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent
        self.pause()

    def pause(self) -> None:
        if self.think_s:
            self.loop.call_later(random.expovariate(1 / self.think_s), self.send)
        else:
            self.send()

    def send(self) -> None:
        self.turn = (self.turn + 1) % len(self.requests)
        self.buffer = b""
        self.began = time.perf_counter()
        self.transport.write(self.requests[self.turn])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator or not whole(head.lower(), body):
            return
        now = time.perf_counter()
        self.times.append(now - self.began)
        good = head.startswith(b"HTTP/1.1 200")
        self.status += not good
        if good and (self.expected not in body or b'"errors"' in body):
            self.wrong += 1
        if not good or self.expected not in body:
            self.sample = body[:200]
        if now < self.until:
            self.pause()
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def whole(head: bytes, body: bytes) -> bool:
    """Whether `body` is all that `head`, in small letters, announces."""
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])


async def drive(port: int, requests: list[bytes], connections: int, seconds: float, expected: bytes, think_s: float) -> str:
    """The last line."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(requests, began + seconds, expected, think_s), "127.0.0.1", port)
        clients.append(client)
    ended = [asyncio.ensure_future(client.done) for client in clients]
    _, late = await asyncio.wait(ended, timeout=seconds + 30)
    took = time.perf_counter() - began
    times = sorted(1e6 * spent for client in clients for spent in client.times) or [0.0]
    failed = len(late) + sum(client.done.done() and not client.times for client in clients)
    status, wrong = sum(client.status for client in clients), sum(client.wrong for client in clients)
    count, sample = sum(len(client.times) for client in clients), next((client.sample for client in clients if client.sample), b"")
    figures = f"p50={times[len(times) // 2]:.0f} p99={times[int(len(times) * 0.99)]:.0f} max={times[-1]:.0f}"
    outcomes = f"status={status} failed={failed} wrong={wrong} {' '.join(sample.decode(errors='replace').split())}"
    return f"bench: requests={count} us={1e6 * took:.0f} {figures} {outcomes}"


def main(arguments: list[str]) -> None:
    port, path, connections, seconds, headers, bodies, *more = arguments
    head = "".join(line + "\r\n" for line in Path(headers).read_text(encoding="utf-8").splitlines())
    made = [
        f"POST {path} HTTP/1.1\r\nHost: bench\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for body in Path(bodies).read_bytes().splitlines()
    ]
    expected = more[1].encode() if more[:1] == ["CHECK"] else b""
    think_s = float(more[1]) / 1000 if more[:1] == ["THINK"] else 0.0
    print(uvloop.run(drive(int(port), made, int(connections), float(seconds), expected, think_s)))


if __name__ == "__main__":
    main(sys.argv[1:])
