"""PostgreSQL gone, frozen, or absent at the start: loaded models answer by the last good state, the rest says UNAVAILABLE at once."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from app.db.embedded.postmaster import PORT
from app.db.privileges import DatabaseRole
from tests.support.database import execute, remove_home
from tests.support.flag_server import FlagServer
from tests.support.postgres import other_postgres
from tests.support.service import PREDICT, Service, begin_service, free_port, start_service, when_ready
from tests.support.unleash_features import document, feature, on, strategy, variant
from tests.support.valkey import own_valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import OtherPostgres
    from tests.support.service import Client

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("without-database")]

X = np.arange(20, dtype=float).reshape(10, 2)
Y = np.array([0, 1] * 5)
MODELS = "{ models(first: 1) { edges { node { name } } } }"
SUSPEND = 'mutation { suspendTenant(tenant: "sleepy", reason: "unpaid") { status } }'
RESUME = 'mutation { resumeTenant(tenant: "sleepy", reason: "paid") { status } }'
REVOKE = 'mutation { revokeTokens(subject: "mallory", reason: "left") }'
ARM = """query($model: String!, $row: FeatureRow!, $unit: ID) {
  predict(model: $model, features: $row, unit: $unit) { variant version reason degraded } }"""
ROW = [1.0, 2.0]
BUSY_S = 1.5  # what a machine with other work to do adds


@contextmanager
def own_home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="turnout-away-"))
    folder.chmod(0o711)
    try:
        yield folder / "home"
    finally:
        remove_home(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(home: Path, port: int, ends: int = 0, **settings: str) -> Iterator[Service]:
    """`ends`: its exit status."""
    service = start_service(home, port, **settings)
    try:
        yield service
    finally:
        assert service.stop() == ends, service.log.read_text()[-3000:]
        assert "was destroyed but it is pending" not in service.log.read_text()


def until(what: Callable[[], Any], within_s: float = 20.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def health(service: Service) -> dict[str, Any]:
    return httpx.get(f"{service.url}/health", timeout=5).json()


def events(home: Path, name: str) -> list[dict[str, Any]]:
    """What the service's processes logged under this name."""
    lines = home.with_suffix(".log").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and f'"{name}"' in line]
    return [event for event in found if event["event"] == name]


def kept(home: Path, other: OtherPostgres) -> bool:
    """Whether the state on the disk is of the newest generation."""
    newest = execute(other.server.url(DatabaseRole.SYNC), "select generation from routing_generation")[0][0]
    return any(event["generation"] == newest for event in events(home, "last_good_state_written")[-1:])


@dataclass
class Seeded:
    """A home whose service has run once, and its port and tokens."""

    home: Path
    port: int
    settings: dict[str, str]
    tokens: dict[tuple[str, ...], str]

    @contextmanager
    def service(self, ends: int = 0) -> Iterator[Service]:
        with running(self.home, self.port, ends, **self.settings) as service:
            service.tokens.update(self.tokens)
            yield service


@contextmanager
def seeded(other: OtherPostgres, **more: str) -> Iterator[Seeded]:
    """`clinic` serves a compiled and a native model, `sleepy` is suspended, and mallory's tokens are revoked."""
    with own_home() as home:
        seed = Seeded(home, free_port(), other.settings | more, {})
        with seed.service() as service:
            clinic, sleepy = service.new_tenant("clinic"), service.new_tenant("sleepy")
            clinic.serve("risk", "CLASSIFICATION", LogisticRegression().fit(X, Y))
            clinic.serve("native", "CLASSIFICATION", DummyClassifier(strategy="constant", constant=1).fit(X, Y))
            sleepy.serve("risk", "CLASSIFICATION", LogisticRegression().fit(X, Y))
            assert {v["runtime"] for v in health(service)["models"]} == {"onnx", "sklearn"}
            for subject in ("mallory", "trent"):
                service.client("clinic", "PREDICTOR", subject=subject).predict("risk", ROW)
            service.client("platform", "OPERATOR").ask(SUSPEND)
            clinic.ask(REVOKE)
            seed.tokens.update(service.tokens)
            until(lambda: kept(home, other))
        yield seed


@pytest.fixture(scope="module")
def other() -> Iterator[OtherPostgres]:
    with other_postgres() as found:
        yield found


@pytest.fixture(scope="module")
def seed(other: OtherPostgres) -> Iterator[Seeded]:
    with seeded(other) as found:
        yield found


def answer(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=5)
    except httpx.TransportError:
        return None


def timed(ask: Callable[[], str]) -> tuple[float, str]:
    began = time.monotonic()
    said = ask()
    return time.monotonic() - began, said


def repeat(stop: threading.Event, ask: Callable[[], Any]) -> list[Any]:
    said = []
    while not stop.is_set():
        said.append(ask())
    return said


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@contextmanager
def refusing(other: OtherPostgres) -> Iterator[list[int]]:
    """Somebody at the stopped server's address who hangs up on everybody; the process ids of who came, in order."""
    came: list[int] = []
    path = other.server._found.sockets / f".s.PGSQL.{PORT}"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        path.chmod(0o777)
        door.listen(100)

        def hang_up() -> None:
            while True:
                try:
                    visitor, _ = door.accept()
                except OSError:
                    return
                with visitor:
                    came.append(struct.unpack("3i", visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        try:
            yield came
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            path.unlink()


def code(error: dict[str, Any]) -> str:
    return error["extensions"]["code"]


def logged(other: OtherPostgres) -> int:
    return execute(other.server._superuser_url("turnout"), "select count(*) from predictions")[0][0]


def test_a_start_without_the_database_answers_by_the_last_good_state_and_converges_when_it_is_back(other, seed):
    before = logged(other)
    other.stop()
    began = time.monotonic()
    with seed.service() as service:
        took = time.monotonic() - began
        print("ready after", took)
        clinic = service.client("clinic")
        predicted = [clinic.predict(model, ROW) for model in ("risk", "native", "risk")]
        assert [each["version"] for each in predicted] == [1, 1, 1]
        told = health(service)
        assert (told["status"], told["database"]["status"], told["routing"]["source"]) == ("degraded", "down", "lastGood")
        assert told["routing"]["ageSeconds"] > 0

        assert code(service.client("sleepy").refused(PREDICT, model="risk", row=ROW)) == "TENANT_SUSPENDED"
        assert code(service.client("clinic", "PREDICTOR", subject="mallory").refused(PREDICT, model="risk", row=ROW)) == "UNAUTHENTICATED"
        assert service.client("clinic", "PREDICTOR", subject="trent").predict("risk", ROW)["version"] == 1
        for question in (MODELS, SUSPEND):
            error = service.client("clinic" if question == MODELS else "platform", "ADMIN" if question == MODELS else "OPERATOR").refused(
                question
            )
            assert (code(error), error["extensions"]["retryAfterMs"] > 0) == ("UNAVAILABLE", True)

        other.start()
        until(lambda: health(service)["routing"]["source"] == "database")
        assert clinic.ask(MODELS)["models"]["edges"]
        service.client("platform", "OPERATOR").ask(RESUME)
        assert until(lambda: service.client("sleepy").predict("risk", ROW))["version"] == 1
        service.client("platform", "OPERATOR").ask(SUSPEND)
        until(lambda: logged(other) == before + 5)
        until(lambda: kept(seed.home, other))
    assert took < 15


def test_without_a_last_good_state_it_lives_is_not_ready_and_begins_by_itself_when_the_database_is_there():
    with other_postgres() as other, own_home() as home:
        other.stop()
        service = begin_service(home, free_port(), **other.settings)
        try:
            until(lambda: events(home, "no_last_good_state"))
            alive = until(lambda: answer(f"{service.url}/livez"))
            assert alive.status_code == 200
            ready = answer(f"{service.url}/readyz")
            assert (ready.status_code, ready.json()["reason"]) == (503, "the first picture of tenants and routes is not there yet")
            refused = httpx.post(f"{service.url}/graphql", json={"query": MODELS}, headers=service.client("clinic").headers, timeout=5)
            error = refused.json()["errors"][0]
            assert (refused.status_code, code(error), error["extensions"]["retryAfterMs"]) == (503, "UNAVAILABLE", 1000)
            other.start()
            when_ready(service)
            assert service.new_tenant(f"late-{time.monotonic_ns()}").ask("{ viewer { subject } }") == {"viewer": {"subject": "tester"}}
        finally:
            assert service.stop() == 0, service.log.read_text()[-3000:]
        assert "starting it again" not in service.log.read_text()  # nobody died of waiting


def test_while_the_database_is_frozen_predictions_go_on_and_nothing_else_waits_for_long(other, seed):
    with seed.service() as service, ThreadPoolExecutor(9) as pool:
        clinic = service.client("clinic")
        clinic.predict("risk", ROW)
        clinic.ask(MODELS)
        stop = threading.Event()
        other.freeze()
        try:
            predicting = pool.submit(repeat, stop, lambda: clinic.predict("risk", ROW)["version"])
            asking = [pool.submit(timed, lambda: code(clinic.refused(MODELS))) for _ in range(8)]
            first = [each.result() for each in asking]
            then = [timed(lambda: code(clinic.refused(MODELS))) for _ in range(20)]
            revoked = timed(lambda: code(clinic.refused(REVOKE)))
            told = health(service)
        finally:
            other.thaw()
        thawed = time.monotonic()
        until(lambda: "errors" not in clinic.post(MODELS).json())
        print("first", max(first)[0], "then", max(then)[0], "revoke", revoked, "back after", time.monotonic() - thawed)
        stop.set()
        versions = predicting.result()
    assert {said for _, said in (*first, *then, revoked)} == {"UNAVAILABLE"}
    assert set(versions) == {1}
    assert len(versions) > 20
    assert max(first)[0] < 2.5 + BUSY_S
    assert max(then)[0] < BUSY_S
    assert (told["status"], told["database"]["status"]) == ("degraded", "down")


def test_a_database_that_refuses_connections_is_asked_for_one_a_second_by_each_process(other, seed):
    with seed.service() as service:
        clinic = service.client("clinic")
        other.stop()
        try:
            with refusing(other) as attempts:
                end = time.monotonic() + 8
                while time.monotonic() < end:
                    assert code(clinic.refused(MODELS)) == "UNAVAILABLE"
                    assert clinic.predict("risk", ROW)["version"] == 1
                by_process = Counter(pid for pid in attempts if "app.main" in command(pid))
        finally:
            other.start()
        until(lambda: "errors" not in clinic.post(MODELS).json())
    print(by_process)
    assert list(by_process.values())
    assert max(by_process.values()) <= 8 + 3  # and as many as it takes to find out


def arms(client: Client) -> dict[str, tuple[str, int]]:
    """What each of some units is answered by."""
    answers = {unit: client.ask(ARM, model="risk", row=ROW, unit=unit)["predict"] for unit in map(str, range(20))}
    return {unit: (each["variant"], each["version"]) for unit, each in answers.items()}


def test_with_database_flag_server_and_shared_limits_gone_together_at_the_start_everybody_keeps_the_arm():
    flags, split = FlagServer(), [variant("v1", 500, {"version": 1, "control": True}), variant("v2", 500, {"version": 2})]
    flags.give(document(feature("model.risk", strategy(on("clinic"), variants=split))))
    with other_postgres() as other, own_valkey() as valkey:
        unleash = {"TURNOUT_UNLEASH_URL": flags.url, "TURNOUT_UNLEASH_TOKEN": "default:development.x", "TURNOUT_UNLEASH_REFRESH_S": "1"}
        with seeded(other, TURNOUT_REDIS_URL=valkey.url, **unleash) as seed:
            with seed.service() as service:
                clinic = service.client("clinic")
                assert clinic.ready("risk", "CLASSIFICATION", LogisticRegression(C=0.5).fit(X, Y)) == 2
                until(lambda: len(set(arms(clinic).values())) == 2)
                before = arms(clinic)
                until(lambda: kept(seed.home, other))
            other.stop()
            valkey.kill()
            flags.stop()
            with seed.service(ends=1) as service:  # loudly: what it answered waits in the spool for the database
                clinic = service.client("clinic")
                assert arms(clinic) == before
                assert code(service.client("sleepy").refused(PREDICT, model="risk", row=ROW)) == "TENANT_SUSPENDED"
                told = health(service)
                assert (told["status"], told["routing"]["source"], told["limits"]["status"]) == ("degraded", "lastGood", "degraded")
