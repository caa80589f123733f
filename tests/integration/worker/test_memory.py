"""What a child takes of the machine is measured where it loads, and not guessed from its artifact."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from app.kernel.inspection import InspectionRequest
from app.kernel.signature import Task
from app.prediction.budget import MIB, loaded_bytes, native_bytes_of
from tests.support.model_host import model_host
from tests.support.models import dump

if TYPE_CHECKING:
    from pathlib import Path

    from app.prediction.runtimes.sklearn import SklearnRuntime
    from tests.support.model_host import RunningHost

pytestmark = pytest.mark.integration


async def opened(running: RunningHost, path: Path) -> SklearnRuntime:
    host = running.connect()
    report = await host.inspect(uuid4(), path, InspectionRequest(Task.REGRESSION, None, ()), 60.0)
    assert report.signature is not None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()  # noqa: ASYNC240  nothing else runs here
    return await host.open(uuid4(), digest, path, report.signature, Task.REGRESSION, ())


async def test_a_child_is_measured_with_what_it_holds_and_without_what_all_children_share() -> None:
    """80 MB of zeros compress to next to nothing: the artifact's size says nothing about them, and the measure all."""
    rows = np.zeros((100_000, 100))
    with model_host() as running:
        small = dump(KNeighborsRegressor(1).fit(rows[:10], rows[:10, 0]), running.folder / "small.joblib")
        large = dump(KNeighborsRegressor(1, algorithm="brute").fit(rows, rows[:, 0]), running.folder / "large.joblib", compress=3)
        first, second = [await opened(running, path) for path in (small, large)]
        try:
            assert first.memory_bytes is not None
            assert second.memory_bytes is not None
            assert 1 * MIB < first.memory_bytes < 32 * MIB
            assert 76 * MIB < second.memory_bytes - first.memory_bytes < 200 * MIB
            assert native_bytes_of(large.stat().st_size) < 20 * MIB < loaded_bytes(second.memory_bytes)
            assert await second._zygote.memory("somebody-elses", second.pid) is None
        finally:
            await first.close()
            await second.close()
