"""What this machine lacked says nothing about a file: no verdict, so that it is asked again."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from app.errors import ModelUnavailable, Unavailable
from app.kernel.inspection import InspectionRequest, Undecided
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.prediction.runtimes.compiler import Compiler
from tests.integration.compiling.conftest import asked_again
from tests.support.model_host import model_host
from tests.support.models import dump

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.kernel.inspection import InspectionReport
    from app.kernel.proof import Compiled
    from tests.support.model_host import RunningHost

pytestmark = pytest.mark.integration

X = np.random.default_rng(3).normal(size=(40, 3))
SUM = LinearRegression().fit(X, X.sum(axis=1))
SIGNATURE = Signature(tuple(Column(f"x{i}", ColumnType.NUMBER) for i in range(3)), InputKind.ARRAY)
WAITS = "import time; from app.prediction.worker.compiling import first; first.answer = lambda *_: time.sleep(600)"
SLEEPS = "import time; from app.prediction.worker import child; child.inspect_artifact = lambda *_: time.sleep(600)"
SPINS = """
from app.prediction.worker import child
def spin(*_):
    while True: pass
child.inspect_artifact = spin
"""
BURNS = """
from app.prediction.worker.compiling import first
def burn(*_):
    while True: pass
first.answer = burn
"""


@contextmanager
def host(first: str) -> Iterator[tuple[RunningHost, Path]]:
    with model_host(first=first) as running:
        yield running, dump(SUM, running.folder / "sum.joblib")


async def compiled(running: RunningHost, artifact: Path, timeout_s: float) -> Compiled:
    return await Compiler(running.socket).compile(uuid4(), artifact, SIGNATURE, Task.REGRESSION, (), (), timeout_s)


async def inspected(running: RunningHost, artifact: Path, timeout_s: float) -> InspectionReport:
    return await running.connect().inspect(uuid4(), artifact, InspectionRequest(Task.REGRESSION, None, ()), timeout_s)


async def child_of(running: RunningHost, purpose: str) -> int:
    async with asyncio.timeout(30):
        while True:
            for child in (await running.connect().stats())["children"]:
                if child["key"].startswith(purpose):
                    return int(child["pid"])


async def test_a_converter_killed_from_outside_is_no_verdict() -> None:
    with host(WAITS) as (running, artifact):
        compiling = asyncio.create_task(compiled(running, artifact, 60.0))
        os.kill(await child_of(running, "compile/"), signal.SIGKILL)
        with pytest.raises(ModelUnavailable, match="the converter died: killed from outside"):
            await compiling


async def test_a_host_that_goes_away_meanwhile_is_no_verdict() -> None:
    with host(WAITS) as (running, artifact):
        compiling = asyncio.create_task(compiled(running, artifact, 60.0))
        await child_of(running, "compile/")
        running.process.kill()
        with pytest.raises(Unavailable):
            await compiling


async def test_a_host_that_goes_away_during_an_inspection_is_no_verdict() -> None:
    with host(SLEEPS) as (running, artifact):
        inspecting = asyncio.create_task(inspected(running, artifact, 60.0))
        await child_of(running, "inspect/")
        running.process.kill()
        with pytest.raises(Unavailable) as away:
            await inspecting
        assert not isinstance(away.value, Undecided)


async def test_an_inspection_killed_from_outside_is_no_verdict() -> None:
    with host(SLEEPS) as (running, artifact):
        inspecting = asyncio.create_task(inspected(running, artifact, 60.0))
        os.kill(await child_of(running, "inspect/"), signal.SIGKILL)
        with pytest.raises(Undecided, match="died during the inspection: killed from outside"):
            await inspecting


async def test_an_inspection_that_had_no_processor_is_no_verdict_and_one_that_never_ends_is() -> None:
    with host(SLEEPS) as (running, artifact):
        with pytest.raises(Undecided, match=r"^The inspection had 0\.\d seconds of a processor within 4\.$"):
            await inspected(running, artifact, 4.0)
        assert (await running.connect().stats())["children"] == []
    with host(SPINS) as (running, artifact):
        report = await asked_again(lambda: inspected(running, artifact, 2.0))
        assert report.failure == "The inspection took longer than 2 seconds and was stopped."


async def test_a_converter_that_had_no_processor_is_no_verdict_and_one_that_never_ends_is() -> None:
    with host(WAITS) as (running, artifact):
        with pytest.raises(ModelUnavailable, match="seconds of a processor within 6"):
            await compiled(running, artifact, 6.0)
        assert (await running.connect().stats())["children"] == []
    with host(BURNS) as (running, artifact):
        assert (await asked_again(lambda: compiled(running, artifact, 4.0))).proof.reason in (
            "the converter took longer than 4 seconds",
            "the converter died: it used up its processor time",
        )
