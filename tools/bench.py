"""`make bench`: what a prediction over GraphQL costs, as a ratio to a floor measured in the same run.

The floor is an ASGI application that reads a body and answers a constant, under the same uvicorn settings: the least that any
service on this stack can cost. Absolute times drift with the machine and its load; the ratio holds. Takes about a minute.

Before that: what a compiled model saves, beside scikit-learn's own call (`tools.bench_runtime`).
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 4.0
CONNECTIONS = (1, 32)
ROUNDS = 2  # floor and service by turns, so that a drifting machine drifts for both
TENANT, KEY = "bench", "tumour-logistic"
DOCUMENT = 'query($row: FeatureRow!) { predict(model: "tumour", features: $row, unit: "bench") { id label probability version } }'


@dataclass(frozen=True)
class Load:
    """One measurement. Times in milliseconds."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def request_bytes(path: str, body: bytes, token: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """Sends the same request as soon as the last one is answered. Knows just enough HTTP: a status line, Content-Length, a body."""

    def __init__(self, request: bytes, until: float, expected: bytes) -> None:
        self.request, self.until, self.expected = request, until, expected
        self.times: list[float] = []
        self.errors = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.buffer = b""
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        start = head.find(b"content-length:") + 15
        if len(self.buffer) < end + 4 + int(head[start:].split(b"\r\n", 1)[0]):
            return
        now = time.perf_counter()
        self.times.append(now - self.began)
        self.errors += not (head.startswith(b"http/1.1 200") and self.expected in self.buffer)
        if now < self.until:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def drive(port: int, request: bytes, connections: int, expected: bytes) -> Load:
    """`connections` clients, each always waiting for one answer, for a few seconds."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Connection(request, began + SECONDS, expected), "127.0.0.1", port) for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    took = time.perf_counter() - began
    times = sorted(1000 * t for _, protocol in made for t in protocol.times)
    if not times:
        sys.exit("no answer at all: is the service alive?")
    errors = sum(protocol.errors for _, protocol in made)
    return Load(len(times) / took, statistics.median(times), times[int(len(times) * 0.99)], errors)


FLOOR = """
import socket, sys, uvicorn
BODY = b'{"data":{"predict":{"label":"benign"}}}'
HEAD = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEAD})
    await send({"type": "http.response.body", "body": BODY})
config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
                        server_header=False, date_header=False)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


def start_floor() -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        process = subprocess.Popen([sys.executable, "-c", FLOOR, str(listener.fileno())], pass_fds=[listener.fileno()])
        return process, listener.getsockname()[1]


def turnout(home: Path, *arguments: str) -> list[str]:
    """The command line of `turnout`, as a shell would call it for this home."""
    return ["env", f"TURNOUT_HOME={home}", "TURNOUT_LOG_LEVEL=error", sys.executable, "-P", "-m", "app.cli.main", *arguments]


def start_service(home: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """The real service, empty."""
    process = subprocess.Popen(turnout(home, "serve", "--port", "0", *options), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "serving on http" in line:
            return process, int(line.split(" (")[0].rpartition(":")[2])
    sys.exit("the service did not start; what it printed above says why")


def run(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def make_tenant(home: Path, port: int, tenant: str = TENANT) -> None:
    """A tenant whose limits are out of the way: the bench is after the machine's."""
    document = "mutation($input: CreateTenantInput!) { createTenant(input: $input) { id } }"
    most = {"requestsPerSecond": 1_000_000, "burst": 1_000_000, "concurrency": 10_000, "rowsPerDay": 2**50}
    body = json.dumps({"query": document, "variables": {"input": {"id": tenant, "name": "Bench", "limits": most}}}).encode()
    operator = run(turnout(home, "token", "--subject", "bench", "--role", "OPERATOR"))
    answer = asyncio.run(ask(port, request_bytes("/graphql", body, operator)))
    if b'"errors"' in answer:
        sys.exit(f"the bench's tenant could not be made: {answer[:300]!r}")


def make_model(home: Path) -> dict[str, Any]:
    """Serves the demo's logistic pipeline to the tenant; a row for it."""
    run([sys.executable, "-P", "-m", "app.cli.demo_models", str(home), KEY])
    sample = json.loads((home / f"{KEY}.json").read_text())["sample"]
    (home / "sample.json").write_text(json.dumps(sample))
    options = ["--tenant", TENANT, "--task", "classification", "--sample", str(home / "sample.json"), "--wait", "--json"]
    run(turnout(home, "model", "register", str(home / f"{KEY}.joblib"), "--model", "tumour", *options))
    run(turnout(home, "model", "promote", "tumour", "1", "--tenant", TENANT, "--json"))
    return dict(sample[0])


def predict_request(home: Path, row: dict[str, Any]) -> bytes:
    body = json.dumps({"query": DOCUMENT, "variables": {"row": row}}).encode()
    token = run(turnout(home, "token", "--subject", "bench", "--tenant", TENANT, "--role", "PREDICTOR"))
    return request_bytes("/graphql", body, token)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return body


def measure(targets: dict[str, tuple[int, bytes, bytes]], connections: int) -> dict[str, Load]:
    """The better of two rounds each."""
    best: dict[str, Load] = {}
    for _ in range(ROUNDS):
        for name, (port, request, expected) in targets.items():
            load = asyncio.run(drive(port, request, connections, expected))
            if name not in best or load.requests_per_s > best[name].requests_per_s:
                best[name] = load
    return best


def show(connections: int, loads: dict[str, Load]) -> None:
    floor, service = loads["floor"], loads["predict"]
    for name, load in loads.items():
        print(
            f"{connections:3} connections  {name:8} {load.requests_per_s:8.0f} requests/s   p50 {load.p50_ms:7.2f} ms   "
            f"p99 {load.p99_ms:7.2f} ms   {load.errors} errors"
        )
    ratio: Any = floor.requests_per_s / service.requests_per_s
    print(f"{connections:3} connections  a prediction costs {ratio:.1f} times the floor (p50: {service.p50_ms / floor.p50_ms:.1f} times)\n")


def main() -> None:
    subprocess.run([sys.executable, "-m", "tools.bench_runtime"], cwd=ROOT, check=True)  # before the service takes a core
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        home = Path(folder) / "home"
        print("starting the service, training and registering a model", flush=True)
        service, port = start_service(home)
        floor, floor_port = start_floor()
        try:
            make_tenant(home, port)
            request = predict_request(home, make_model(home))
            answer = asyncio.run(ask(port, request))
            if b'"label":' not in answer:
                sys.exit(f"the service does not predict: {answer[:300]!r}")
            targets = {"floor": (floor_port, request, b"benign"), "predict": (port, request, b'"label":"benign"')}
            for connections in CONNECTIONS:
                show(connections, measure(targets, connections))
        finally:
            floor.terminate()
            service.send_signal(signal.SIGINT)
            floor.wait(30)
            service.wait(30)


if __name__ == "__main__":
    main()
