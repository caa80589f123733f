"""Rows 26 to 30: upgrades under load, storms of retries, clients that are slow, huge or greedy."""

from __future__ import annotations

import json
import resource
import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import psutil

from tools.chaos.faults import SERVING, frozen, pids_of, resident_bytes
from tools.chaos.figures import stretch
from tools.chaos.history import Outcome
from tools.chaos.link import post
from tools.chaos.load import Load
from tools.chaos.rows import Claim, Row, by_tests
from tools.chaos.scenarios.common import answered, clean, not_slower
from tools.chaos.world import MODEL

if TYPE_CHECKING:
    from tools.chaos.rows import Stage

_OUTAGE_S, _STORM_S, _GOOD_AGAIN_S = 5.0, 4.0, 10.0
_CUT_WITHIN_S = 13.0  # heads and bodies have ten seconds
_IDLE = 10_000
_BODY_LIMIT = 8 << 20


def retry_storm(stage: Stage) -> list[Claim]:
    """Nobody is served for five seconds; then five times as many clients as before, each asking again the moment it was refused."""
    world = stage.world()
    with world.load("r27-", share=0.5) as load:
        time.sleep(stage.seconds)
        at = time.monotonic()
        with frozen(psutil.Process(pid) for pid in pids_of(world.service, SERVING)):
            time.sleep(_OUTAGE_S)
        thawed = time.monotonic()
        with Load([world.port], world.callers(), 0.0, 5 * load.connections, "r27s-") as storm:
            time.sleep(_STORM_S)
        time.sleep(max(0.0, thawed + _GOOD_AGAIN_S + 2.0 - time.monotonic()))
    usual = _goodput(load, at - stage.seconds, at)
    good = next((s for s in range(int(_GOOD_AGAIN_S)) if _goodput(load, thawed + s, thawed + s + 1) >= 0.9 * usual), None)
    refused = stretch(storm.tried).codes
    told = "never" if good is None else f"{good + 1} s after"
    return [
        Claim(
            good is not None,
            f"goodput at 90 % of {usual:.0f}/s: {told}; the storm: {stretch(storm.tried).asked} requests, refused {refused or 'none'}",
        ),
        *clean(stage, world, [*load.operations, *storm.operations]),
    ]


def _goodput(load: Load, start: float, end: float) -> float:
    """Answers a second."""
    good = sum(start <= tried.at + tried.took_s < end and tried.operation.outcome is Outcome.OK for tried in load.tried)
    return good / (end - start)


def slow_clients(stage: Stage) -> list[Claim]:
    world = stage.world()
    token = world.new_caller("slow").token  # beside the four: what it asks is no part of the history
    question = {
        "query": f'query($m: FeatureMatrix!) {{ predictBatch(model: "{MODEL}", matrix: $m) {{ probabilities labels }} }}',
        "variables": {"m": {"data": [[0.4, -0.2, 0.1]] * 10_000}},
    }
    large = post("/graphql", json.dumps(question).encode(), token)
    small = post("/graphql", json.dumps({"query": "{ viewer { tenant } }"}).encode(), token)
    with world.load("r28-", share=0.5) as load, ExitStack() as stack:
        time.sleep(stage.seconds)
        before = stretch(load.tried)
        drips = [_opened(stack, world.port, large, small_buffer=True) for _ in range(4)]
        time.sleep(2.0)  # until their batches are computed: what they do afterwards is the fault
        at = time.monotonic()
        half_heads = [_opened(stack, world.port, small[:40]) for _ in range(20)]
        half_bodies = [_opened(stack, world.port, small[:-5]) for _ in range(20)]
        cut = _cut_after([*half_heads, *half_bodies], at + _CUT_WITHIN_S)
        for drip in drips:
            _sip(drip)
        mid = time.monotonic()
        idle = _idle(stack, world.port)
        filled = time.monotonic()
        time.sleep(max(3.0, stage.seconds))
        end = time.monotonic()
    return [
        Claim(cut == 40, f"{cut} of 40 clients with half a head or body cut within {_CUT_WITHIN_S:.0f} s"),
        not_slower(before, stretch(load.between(at, mid)), 1.2),
        Claim(idle >= 500, f"beside {idle} idle connections"),
        not_slower(before, stretch(load.between(filled, end)), 1.2),
        answered(stretch(load.tried)),
        *clean(stage, world, load.operations),
    ]


def _opened(stack: ExitStack, port: int, data: bytes, *, small_buffer: bool = False) -> socket.socket:
    connection = socket.socket()
    stack.callback(connection.close)
    if small_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    connection.sendall(data)
    return connection


def _cut_after(connections: list[socket.socket], end: float) -> int:
    """How many requests the service ended until then: with a refusal, or by hanging up."""
    cut = 0
    for connection in connections:
        connection.settimeout(max(0.05, end - time.monotonic()))
        try:
            cut += connection.recv(16)[:12] in {b"", b"HTTP/1.1 408"}
        except TimeoutError:
            continue
        except OSError:
            cut += 1
    return cut


def _sip(connection: socket.socket) -> None:
    connection.settimeout(0.1)
    with suppress(OSError):
        connection.recv(1)


def _idle(stack: ExitStack, port: int) -> int:
    """As many idle connections as this process may have, 10,000 at the most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(_IDLE, hard - 500)
    for made in range(most):
        try:
            _opened(stack, port, b"")
        except OSError:
            return made
    return most


def huge_requests(stage: Stage) -> list[Claim]:
    world = stage.world()
    token = world.tenants["north"].token
    before = {pid: resident_bytes(pid) for pid in pids_of(world.service, SERVING)}
    head = "POST /graphql HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\n"
    with world.load("r29-", share=0.5) as load:
        time.sleep(stage.seconds)
        at = time.monotonic()
        bodies = [
            _flood(world.port, f"{head}Authorization: Bearer {token}\r\nContent-Length: {200 << 20}\r\n\r\n".encode()) for _ in range(5)
        ]
        tokens = [
            _flood(world.port, f"{head}Authorization: Bearer {'x' * (1 << 20)}\r\nContent-Length: 2\r\n\r\n".encode(), 0)[0]
            for _ in range(5)
        ]
        heads = [_flood(world.port, f"{head}X-Filler: {'x' * 200_000}\r\nContent-Length: 2\r\n\r\n".encode(), 0)[0] for _ in range(5)]
        queries = {world.tenants["north"].refused("{ models { edges " * 400 + "}" * 800)["extensions"]["code"] for _ in range(5)}
        end = time.monotonic()
    grown = max(resident_bytes(pid) - was for pid, was in before.items())
    taken = max(sent for _, sent in bodies)
    statuses = {status for status, _ in bodies}
    return [
        Claim(statuses == {413}, f"200 MB: {_named(statuses)}"),
        Claim(taken <= _BODY_LIMIT + (4 << 20), f"at most {taken >> 10} kB of it taken, in buffers of the kernel too"),
        Claim(set(tokens) <= {400, 401, 431}, f"a token of 1 MB: {_named(set(tokens))}"),
        Claim(set(heads) <= {400, 431}, f"a header of 200 kB: {_named(set(heads))}"),
        Claim(queries == {"QUERY_TOO_COMPLEX"}, f"a query 800 deep: {', '.join(queries)}"),
        Claim(grown < 5 << 20, f"memory {grown / (1 << 20):+.1f} MB"),
        not_slower(stretch(load.between(0, at)), stretch(load.between(at, end)), 1.2),
        answered(stretch(load.tried)),
        *clean(stage, world, load.operations),
    ]


def _flood(port: int, head: bytes, more_bytes: int = 200 << 20) -> tuple[int, int]:
    """The answer's status (0: hung up without one), and how many bytes of the body were taken before."""
    sent, chunk = 0, b"x" * 65_536
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        with suppress(OSError):
            connection.sendall(head)
            connection.settimeout(2)
            while sent < more_bytes:
                sent += connection.send(chunk)
        connection.settimeout(10)
        try:
            line = connection.recv(64)
        except OSError:
            return 0, sent
    return int(line.split(b" ")[1]) if line.startswith(b"HTTP/1.1 ") else 0, sent


def _named(statuses: set[int]) -> str:
    return ", ".join(str(status) if status else "hung up" for status in sorted(statuses))


def noisy_tenant(stage: Stage) -> list[Claim]:
    world = stage.world()
    limit, times = 20, 20
    noisy = world.new_caller("noisy", requestsPerSecond=limit, burst=limit)
    length = max(6.0, stage.seconds)
    with world.load("r30-", share=0.5) as load:
        time.sleep(length)
        at = time.monotonic()
        with Load([world.port], [noisy], float(limit * times), 8) as noise:
            time.sleep(length)
        end = time.monotonic()
    during, loud = load.between(at, end), stretch(noise.tried)
    served = [
        sum(tried.operation.tenant == tenant and tried.operation.outcome is Outcome.OK for tried in during) for tenant in world.tenants
    ]
    ratio = max(served) / max(1, min(served))
    most = 1.1 * limit * (1 + end - at)
    return [
        answered(stretch(during)),
        not_slower(stretch(load.between(0, at)), stretch(during), 1.2),
        Claim(ratio < 1.1, f"fairness ratio {ratio:.2f}"),
        Claim(
            set(loud.codes) <= {"RATE_LIMITED"} and loud.answered <= most,
            f"the noisy one: {loud.answered} of {loud.asked} answered{_rest(loud.codes)}",
        ),
        *clean(stage, world, load.operations),
    ]


def _rest(codes: dict[str, int]) -> str:
    return "".join(f", {count} {code}" for code, count in sorted(codes.items()))


ROWS = [
    Row(
        26,
        "rolling restart (SIGHUP, twice) with a migration that adds columns, old and new code at once, under load",
        "both work on both schemas; migrations wait 500 ms for a lock and try again",
        "0 failed requests; no lock wait > 1 s",
        by_tests("tests/e2e/test_rolling.py", "tests/integration/db/test_migrating_beside_a_service.py", words="rolling_restart or migrat"),
    ),
    Row(
        27,
        "storm of retries: 5 s without service, then five times the clients, each again the moment it is refused",
        "refused early; the rest is answered",
        "goodput at 90 % within 10 s; checker 0",
        retry_storm,
    ),
    Row(
        28,
        "slow clients: half a head, half a body, an answer not read; 10,000 idle connections (500 where descriptors are few)",
        "cut at their deadlines; the busy ones notice nothing",
        "40 of 40 cut in 13 s; ≥ 99.9 % answered, p99 < 1.2×; checker 0",
        slow_clients,
    ),
    Row(
        29,
        "body of 200 MB, token of 1 MB, header of 200 kB, query 800 deep",
        "refused without being read",
        "413 at the limit, 431 or 401, 400; memory < +5 MB; p99 < 1.2×; checker 0",
        huge_requests,
    ),
    Row(
        30,
        "a tenant that asks 20 times its limit",
        "its own 429s",
        "others ≥ 99.9 %, p99 < 1.2×, fairness ratio < 1.1; checker 0",
        noisy_tenant,
    ),
]
