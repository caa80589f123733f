from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from app.kernel.inspection import InspectionReport, InspectionRequest
from app.kernel.signature import Task
from tests.support.model_host import RunningHost, model_host
from tests.support.models import dump

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.prediction.runtimes.host import ModelHost
    from app.prediction.runtimes.sklearn import SklearnRuntime

_numbers = count()
ORDINARY_USER = 54321


@pytest.fixture(scope="session")
def restricted_host() -> Iterator[RunningHost]:
    with model_host("restricted") as running:
        yield running


@pytest.fixture(scope="session", params=["as it is run", "ordinary user"])
def trusting_host(request: pytest.FixtureRequest) -> Iterator[RunningHost]:
    """Loads anything: what holds an artifact is the lock alone. As root and, where the tests run as root, as an ordinary user."""
    if request.param == "ordinary user" and os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    with model_host("full", user=ORDINARY_USER if request.param == "ordinary user" else None) as running:
        yield running


@dataclass(slots=True)
class Lab:
    """A host, a connection to it and a folder for artifacts: saves, inspects and opens in one line."""

    running: RunningHost
    host: ModelHost
    folder: Path

    def save(self, estimator: Any, compress: Any = 0) -> Path:
        return dump(estimator, self.folder / f"{next(_numbers)}.joblib", compress)

    async def inspect(
        self, artifact: Any, task: Task = Task.CLASSIFICATION, rows: Any = (), columns: Any = None, timeout_s: float = 60.0
    ) -> InspectionReport:
        path = artifact if hasattr(artifact, "open") else self.save(artifact)
        return await self.host.inspect(uuid4(), path, InspectionRequest(task, columns, tuple(rows)), timeout_s)

    async def open(
        self, artifact: Any, report: InspectionReport, task: Task = Task.CLASSIFICATION, tenant: UUID | None = None
    ) -> SklearnRuntime:
        path = artifact if hasattr(artifact, "open") else self.save(artifact)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert report.failure is None, report.failure
        assert report.signature is not None
        return await self.host.open(tenant or uuid4(), digest, path, report.signature, task, report.classes or ())


@pytest.fixture
def lab(restricted_host: RunningHost, tmp_path: Path) -> Lab:
    return Lab(restricted_host, restricted_host.connect(), tmp_path)


@pytest.fixture
def trusting_lab(trusting_host: RunningHost, tmp_path: Path) -> Lab:
    return Lab(trusting_host, trusting_host.connect(), tmp_path)
