"""PostgreSQL gone, frozen, or absent at the start: loaded models answer by the last good state, the rest says UNAVAILABLE at once."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from app.db.privileges import DatabaseRole
from tests.support.database import execute, remove_home
from tests.support.postgres import other_postgres
from tests.support.service import PREDICT, Service, free_port, start_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import OtherPostgres

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("without-database")]

X = np.arange(20, dtype=float).reshape(10, 2)
Y = np.array([0, 1] * 5)
MODELS = "{ models(first: 1) { edges { node { name } } } }"
SUSPEND = 'mutation { suspendTenant(tenant: "sleepy", reason: "unpaid") { status } }'
RESUME = 'mutation { resumeTenant(tenant: "sleepy", reason: "paid") { status } }'
REVOKE = 'mutation { revokeTokens(subject: "mallory", reason: "left") }'
ROW = [1.0, 2.0]


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
def running(home: Path, port: int, **settings: str) -> Iterator[Service]:
    service = start_service(home, port, **settings)
    try:
        yield service
    finally:
        assert service.stop() == 0, service.log.read_text()[-3000:]


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
    def service(self) -> Iterator[Service]:
        with running(self.home, self.port, **self.settings) as service:
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
