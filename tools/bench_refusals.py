"""How soon a refusal comes, from the moment a request is sent.

    python -m tools.bench_refusals [--seconds 6] [--connections 1000]

A crowd asks one serving process, from a process of its own at a lower priority; a watcher, on one connection and without an event loop,
asks forty times a second as the same tenant, and times each answer. By turns: nobody else; a crowd at twenty times the tenant's limit
(429); more connections than can be served soon, each of which asks again when `Retry-After` says (503); and the same asking again at once,
which no client should. Told are milliseconds by status, and how many answers a second the crowd got.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress

import numpy as np
from sklearn.linear_model import LogisticRegression

from tests.support.service import Client, own_service
from tools.chaos.load import Caller, request_of

MODEL = "model"
WATCHED_PER_S = 40
LIMITED_PER_S, TIMES_ITS_LIMIT = 50, 20
ENOUGH = {"requestsPerSecond": 100_000, "burst": 1_000_000, "concurrency": 10_000, "rowsPerDay": 2**40}
LIMITED = ENOUGH | {"requestsPerSecond": LIMITED_PER_S, "burst": LIMITED_PER_S}
SETTLED_S = 2.0


class Watcher:
    """One who asks, waits and looks at the clock."""

    def __init__(self, port: int, request: bytes) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), 30)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request

    def watch(self, seconds: float) -> dict[int, list[float]]:
        """Milliseconds of each answer, by status."""
        took: defaultdict[int, list[float]] = defaultdict(list)
        end = time.perf_counter() + seconds
        due = time.perf_counter()
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            self._connection.sendall(self._request)
            status = self._answer()
            took[status].append(1000 * (time.perf_counter() - began))
            due = max(due + 1 / WATCHED_PER_S, time.perf_counter())
        return took

    def _answer(self) -> int:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._more()
        return int(head.split(b" ", 2)[1])

    def _more(self) -> bytes:
        data = self._connection.recv(65_536)
        if not data:
            raise ConnectionError("the service hung up")
        return data


async def crowd(port: int, request: bytes, connections: int, per_s: float, seconds: float, *, heeds: bool) -> Counter[int]:
    """Answers by status. `per_s` 0: as fast as answers come."""
    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def one(which: int) -> None:
        await asyncio.sleep(which / connections)  # they do not come in one moment
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            began = time.monotonic()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n", 1)[0]))
            status = int(head.split(b" ", 2)[1])
            statuses[status] += 1
            if status != 200 and heeds:
                await asyncio.sleep(min(float(head.split(b"retry-after:")[1].split(b"\r\n", 1)[0]), max(0.0, end - time.monotonic())))
            elif per_s:
                await asyncio.sleep(max(0.0, began + connections / per_s - time.monotonic()))
        writer.close()

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds + 10):
            await asyncio.gather(*(one(which) for which in range(connections)))
    return statuses


def told(took: dict[int, list[float]]) -> str:
    return "; ".join(
        f"{status}: {len(times)}, p50 {statistics.median(times):.1f}, p99 {np.percentile(times, 99):.1f}, most {max(times):.1f} ms"
        for status, times in sorted(took.items())
    )


def beside(port: int, client: Client, connections: int, per_s: float, seconds: float, *, heeds: bool) -> tuple[dict[int, list[float]], str]:
    """What the watcher saw while the crowd was there, and what the crowd got."""
    given = (str(port), str(connections), str(per_s), str(seconds + SETTLED_S + 1), str(heeds))
    command = [sys.executable, "-m", "tools.bench_refusals", "--crowd", *given]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(client.token)
        process.stdin.close()
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        watcher = Watcher(port, asked(client.token))
        time.sleep(SETTLED_S)
        seen = watcher.watch(seconds)
        return seen, process.stdout.readline().strip()


def asked(token: str) -> bytes:
    return request_of(Caller("", token, MODEL, (0.4, -0.2, 0.1)), None)


def as_crowd(port: str, connections: str, per_s: str, seconds: str, heeds: str) -> None:
    """In a process of its own, which has the token from its standard input."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.nice(5)
    request = asked(sys.stdin.read())
    print(flush=True)
    got = asyncio.run(crowd(int(port), request, int(connections), float(per_s), float(seconds), heeds=heeds == "True"))
    print(", ".join(f"{status}: {count / float(seconds):.0f} a second" for status, count in sorted(got.items())), flush=True)


def main(arguments: list[str]) -> None:
    """Prints a line for each kind of crowd."""
    if arguments[:1] == ["--crowd"]:
        as_crowd(*arguments[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--only", default="", help="the crowds in whose names this stands")
    given = parser.parse_args(arguments)
    with own_service("--workers", "1") as service:
        tenants = service.new_tenant("many", **ENOUGH), service.new_tenant("limited", **LIMITED)
        features = np.random.default_rng(0).normal(size=(60, 3))
        for tenant in tenants:
            tenant.serve(MODEL, "CLASSIFICATION", LogisticRegression().fit(features, (features[:, 0] > 0).astype(int)))
        many, limited = tenants
        port = service.port
        print("nobody else:", told(Watcher(port, asked(many.token)).watch(given.seconds)), flush=True)
        per_s = LIMITED_PER_S * TIMES_ITS_LIMIT
        kinds = [
            ("20 times its limit", limited, 8, per_s, False),
            ("overload, heeding Retry-After", many, given.connections, 0, True),
            ("overload, at once again", many, given.connections, 0, False),
        ]
        for name, client, connections, pace, heeds in (kind for kind in kinds if given.only in kind[0]):
            seen, got = beside(port, client, connections, pace, given.seconds, heeds=heeds)
            print(f"{name}: {told(seen)}  (the crowd: {got}; load {os.getloadavg()[0]:.0f})", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
