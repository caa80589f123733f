from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pytest

from app.errors import ModelUnavailable
from app.kernel.inspection import InspectionRequest
from app.prediction.runtimes.compiler import Compiler
from tests.support.model_host import RunningHost, model_host
from tests.support.models import dump

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from app.kernel.proof import Compiled
    from app.kernel.signature import Signature, Task

TOLERANCE = 1e-9  # what the service asks unless somebody loosens it
T = TypeVar("T")
_numbers = count()


async def asked_again(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` comes to on a machine that has a processor for it: until then it is no verdict, and asked again as the service does."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await ask()
            except ModelUnavailable as error:
                if "seconds of a processor within" not in error.message:
                    raise


@dataclass(frozen=True, slots=True)
class Version:
    """What the registry would know of an artifact."""

    signature: Signature
    classes: tuple[str, ...]
    compiled: Compiled


@dataclass(frozen=True, slots=True)
class Workshop:
    """A host and a compiler: an estimator becomes a version in one line."""

    running: RunningHost

    async def version(self, estimator: Any, task: Task, rows: Any = ()) -> Version:
        path = dump(estimator, self.running.folder / f"{next(_numbers)}.joblib")
        report = await self.running.connect().inspect(uuid4(), path, InspectionRequest(task, None, tuple(rows)), 60.0)
        assert report.failure is None, report.failure
        assert report.signature is not None
        classes = report.classes or ()
        compiler = Compiler(self.running.socket, TOLERANCE)
        compiled = await compiler.compile(uuid4(), path, report.signature, task, classes, tuple(rows), 60.0)
        return Version(report.signature, classes, compiled)


@pytest.fixture(scope="session")
def compiling_host() -> Iterator[RunningHost]:
    with model_host() as running:
        yield running


@pytest.fixture
def workshop(compiling_host: RunningHost) -> Workshop:
    return Workshop(compiling_host)
