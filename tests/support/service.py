"""The whole service as a process tree, and a small client: tests from outside, one service a test process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import joblib
import pytest

from tests.support.database import remove_home

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
READY_WITHIN_S = 120.0

REGISTER = "mutation($input: RegisterModelVersionInput!) { registerModelVersion(input: $input) { number status statusReason } }"
STATUS = """query($model: String!, $number: Int!) { model(name: $model) { version(number: $number) {
  status statusReason runtime classes artifactDigest signature { name type required minimum maximum categories } } } }"""
PROMOTE = """mutation($model: String!, $version: Int!, $alias: String! = "production", $expected: Int, $breaking: Boolean! = false,
  $reason: String) { promote(model: $model, version: $version, alias: $alias, expectedRevision: $expected, allowBreaking: $breaking,
  reason: $reason) { version previousVersion revision by reason } }"""
PREDICT = """query($model: String!, $row: FeatureRow!, $unit: ID, $alias: String, $version: Int) {
  predict(model: $model, features: $row, unit: $unit, alias: $alias, version: $version) {
    id model version reason label probability probabilities { label probability } value degraded } }"""
BATCH = """query($model: String!, $rows: [FeatureRow!], $matrix: FeatureMatrix, $version: Int) {
  predictBatch(model: $model, rows: $rows, matrix: $matrix, version: $version) {
    id version rowCount classes labels probabilities values } }"""


@dataclass
class Service:
    """A running `turnout serve` with a home of its own."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    tokens: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, tenant: str, *roles: str, subject: str = "tester") -> str:
        key = (tenant, subject, *roles)
        if key not in self.tokens:
            options = [o for role in roles for o in ("--role", role)]
            command = [sys.executable, "-m", "app.cli.main", "token", "--tenant", tenant, "--subject", subject, *options]
            made = subprocess.run(command, cwd=ROOT, env=environment(self.home), capture_output=True, text=True, check=True)
            self.tokens[key] = made.stdout.strip()
        return self.tokens[key]

    def client(self, tenant: str, *roles: str, subject: str = "tester") -> Client:
        return Client(self, self.token(tenant, *(roles or ("ADMIN",)), subject=subject))

    def new_tenant(self, tenant: str, **limits: int) -> Client:
        """An ADMIN of a new tenant."""
        operator = self.client("platform", "OPERATOR")
        made = operator.ask(
            "mutation($input: CreateTenantInput!) { createTenant(input: $input) { id status } }",
            input={"id": tenant, "name": tenant.title(), "limits": limits},
        )
        assert made == {"createTenant": {"id": tenant, "status": "ACTIVE"}}
        return self.client(tenant)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(90)


class Refused(AssertionError):
    """An answer with errors, where none were expected."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(json.dumps(errors, ensure_ascii=False)[:2000])
        self.errors = errors


@dataclass
class Client:
    service: Service
    token: str

    def post(self, query: str, **variables: Any) -> httpx.Response:
        body = {"query": query, "variables": variables}
        return httpx.post(f"{self.service.url}/graphql", json=body, headers=self.headers, timeout=30)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """`data` of an answer without errors; raises Refused."""
        answer = self.post(query, **variables).json()
        if answer.get("errors"):
            raise Refused(answer["errors"])
        return answer["data"]

    def refused(self, query: str, **variables: Any) -> dict[str, Any]:
        """The one error of an answer that must have one."""
        answer = self.post(query, **variables).json()
        assert len(answer["errors"]) == 1, answer
        return answer["errors"][0]

    def upload(self, artifact: bytes) -> str:
        """The digest."""
        answer = httpx.post(f"{self.service.url}/artifacts", content=artifact, headers=self.headers, timeout=60)
        assert answer.status_code == 201, answer.text
        return answer.json()["digest"]

    def register(self, model: str, task: str, artifact: Any, **more: Any) -> dict[str, Any]:
        """The version once it is READY or FAILED, with its `number`. `artifact`: bytes, or an estimator."""
        data = artifact if isinstance(artifact, bytes) else dumped(artifact)
        given = {"model": model, "task": task, "artifactDigest": self.upload(data), **more}
        number = self.ask(REGISTER, input=given)["registerModelVersion"]["number"]
        end = time.monotonic() + 120
        while time.monotonic() < end:
            version = self.ask(STATUS, model=model, number=number)["model"]["version"]
            if version["status"] != "VALIDATING":
                return {**version, "number": number}
            time.sleep(0.05)
        raise AssertionError("the version stayed VALIDATING")

    def ready(self, model: str, task: str, artifact: Any, **more: Any) -> int:
        version = self.register(model, task, artifact, **more)
        assert version["status"] == "READY", version
        return version["number"]

    def serve(self, model: str, task: str, artifact: Any, **more: Any) -> int:
        """Registered, READY and promoted to production: the number."""
        number = self.ready(model, task, artifact, **more)
        self.ask(PROMOTE, model=model, version=number)
        return number

    def predict(self, model: str, row: Any, **more: Any) -> dict[str, Any]:
        return self.ask(PREDICT, model=model, row=row, **more)["predict"]


def dumped(estimator: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(estimator, path)
        return path.read_bytes()


def environment(home: Path, **more: str) -> dict[str, str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return plain | {"TURNOUT_HOME": str(home), "PYTHONPATH": str(ROOT)} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_service(home: Path, port: int, *options: str, **more: str) -> Service:
    """`turnout serve`, ready to answer."""
    return when_ready(begin_service(home, port, *options, **more))


def begin_service(home: Path, port: int, *options: str, **more: str) -> Service:
    """`turnout serve`, which may not answer yet."""
    log = home.with_suffix(".log")
    command = [sys.executable, "-m", "app.cli.main", "serve", "--port", str(port), *options]
    env = environment(home, **{"TURNOUT_STOP_GRACE_S": "0", **more})
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    return Service(home, port, process, log)


def when_ready(service: Service) -> Service:
    """The same, once it is ready to answer."""
    process, log = service.process, service.log
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"{service.url}/readyz", timeout=5).status_code == 200:
                return service
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text()[-3000:])


@contextmanager
def own_service(*options: str, **more: str) -> Iterator[Service]:
    """A service with a home of its own, and with the settings `more`; ended cleanly afterwards, with nothing unexpected in its log."""
    folder = Path(tempfile.mkdtemp(prefix="turnout-service-"))
    folder.chmod(0o711)
    running = start_service(folder / "home", free_port(), *options, **more)
    try:
        yield running
    finally:
        status = running.stop()
        text = running.log.read_text()
        remove_home(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)
        assert status == 0, text[-3000:]
        assert "unexpected_error" not in text, text[-5000:]
        assert "routes_not_applied" not in text, text[-5000:]


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service of this test process, for tests that make tenants of their own."""
    with own_service() as running:
        yield running
