"""The real service for whatever measures it: started empty in a home of its own, a tenant without limits, a model, a request, a client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
TENANT, KEY = "bench", "tumour-logistic"
DOCUMENT = 'query($row: FeatureRow!) { predict(model: "tumour", features: $row, unit: "bench") { id label probability version } }'


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


def turnout(home: Path, *arguments: str) -> list[str]:
    """The command line of `turnout`, as a shell would call it for this home."""
    return ["env", f"TURNOUT_HOME={home}", "TURNOUT_LOG_LEVEL=error", sys.executable, "-P", "-m", "app.cli.main", *arguments]


def start_service(home: Path, *options: str, settings: Sequence[str] = ()) -> tuple[subprocess.Popen[str], int]:
    """The real service, empty. `settings`: variables of its environment, NAME=value."""
    command = ["env", *settings, *turnout(home, "serve", "--port", "0", *options)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "serving on http" in line:
            return process, int(line.split(" (")[0].rpartition(":")[2])
    sys.exit("the service did not start; what it printed above says why")


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What it prints."""
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout.strip()


def make_tenant(home: Path, port: int, tenant: str = TENANT) -> None:
    """A tenant whose limits are out of the way: the bench is after the machine's."""
    document = "mutation($input: CreateTenantInput!) { createTenant(input: $input) { id } }"
    most = {"requestsPerSecond": 1_000_000, "burst": 1_000_000, "concurrency": 10_000, "rowsPerDay": 2**50}
    body = json.dumps({"query": document, "variables": {"input": {"id": tenant, "name": "Bench", "limits": most}}}).encode()
    operator = run(turnout(home, "token", "--subject", "bench", "--role", "OPERATOR"))
    answer = asyncio.run(ask(port, request_bytes("/graphql", body, operator)))
    if b'"errors"' in answer:
        sys.exit(f"the bench's tenant could not be made: {answer[:300]!r}")


def limit_tenant(home: Path, port: int, tenant: str, limits: dict[str, int]) -> None:
    """Changes these of the tenant's limits."""
    document = "mutation($id: String!, $limits: TenantLimitsInput!) { updateTenantLimits(tenant: $id, limits: $limits) { id } }"
    operator = run(turnout(home, "token", "--subject", "bench", "--role", "OPERATOR"))
    body = json.dumps({"query": document, "variables": {"id": tenant, "limits": limits}}).encode()
    answer = asyncio.run(ask(port, request_bytes("/graphql", body, operator)))
    if b'"errors"' in answer:
        sys.exit(f"the limits of {tenant} could not be changed: {answer[:300]!r}")


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
